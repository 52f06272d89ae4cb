"""Logs for TensorBoard: refused at once without its package; with it they say what log.csv says."""

import importlib.util

import pytest

from retrieval.errors import TrainingError
from retrieval.train.loop import callbacks
from retrieval.train.loop.callbacks import TensorBoardWriter, require_tensorboard


def test_a_missing_tensorboard_package_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(callbacks, "find_spec", lambda _name: None)
    with pytest.raises(TrainingError, match=r"needs its package. Run `pip install tensorboard`, or train without"):
        require_tensorboard()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the package tensorboard")
@pytest.mark.filterwarnings("ignore")
def test_rows_after_the_checkpoint_are_purged_on_resume(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    require_tensorboard()
    for first, last, loss in ((0, 4, 1.0), (2, 4, 2.0)):  # the second process goes on from step 2
        log = TensorBoardWriter(tmp_path, step=first)
        log.write([{"step": step, "epoch": 1, "loss": loss} for step in range(first + 1, last + 1)])
        log.write([{"step": last, "epoch": 1, "mean_recall": 0.5}])
        log.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(one.step, one.value) for one in read.Scalars("training/loss")] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
    assert [one.step for one in read.Scalars("validation/mean_recall")] == [4]

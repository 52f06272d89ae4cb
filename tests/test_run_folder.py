"""The run folder: which folders are accepted, and a log without duplicates after a kill."""

import pytest

from retrieval.errors import TrainingError
from retrieval.files import write_atomically
from retrieval.train.config import TrainConfig
from retrieval.train.defaults import apply_defaults
from retrieval.train.run_folder import LOG_COLUMNS, RunFolder

CONFIG = apply_defaults(TrainConfig(epochs=2))


def row(step):
    return {"step": step, "epoch": 1, "loss": 0.5}


def test_a_new_and_an_empty_folder_are_accepted(tmp_path):
    for folder in (tmp_path, tmp_path / "new"):
        for resume in (False, True):
            RunFolder(folder).check(CONFIG, resume=resume)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    for resume in (False, True):
        with pytest.raises(
            TrainingError, match=r"holds something other than a training run\. Choose a new or an empty"
        ):
            RunFolder(tmp_path).check(CONFIG, resume=resume)
    with pytest.raises(TrainingError, match="something other"):
        RunFolder(tmp_path / "photos" / "a.jpg").check(CONFIG, resume=False)


def test_a_run_is_resumed_only_on_request_and_with_its_own_settings(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin(CONFIG, step=0)
    with pytest.raises(TrainingError, match=r"run already holds a training run\. Resume it, or choose another"):
        run.check(CONFIG, resume=False)
    with pytest.raises(TrainingError, match=r"was begun with epochs 2, now 3\. Resume with the old settings"):
        run.check(apply_defaults(TrainConfig(epochs=3)), resume=True)
    run.check(apply_defaults(TrainConfig(epochs=2, device="cpu", threads=4)), resume=True)


def test_unfinished_files_of_a_killed_start_are_ignored(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / ".config.json.tmp").write_text("{")
    RunFolder(tmp_path).check(CONFIG, resume=False)


def test_the_log_is_truncated_to_the_checkpoint(tmp_path):
    run = RunFolder(tmp_path)
    run.begin(CONFIG, step=0)
    run.append_log([row(1), row(2)])
    run.append_log([row(3)])
    with run.log.open("a") as log:
        log.write("4,1,0.")  # killed in the middle of a line
    run.begin(CONFIG, step=2)
    run.append_log([row(3)])
    assert [line["step"] for line in run.read_log()] == ["1", "2", "3"]
    assert tuple(run.read_log()[0]) == LOG_COLUMNS


def test_a_failed_write_leaves_only_the_old_file(tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "old")]

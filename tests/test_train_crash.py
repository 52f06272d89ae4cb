"""Training loses nothing to a kill at a random moment or in the middle of a save, or to a full disk."""

import resource
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from training_crashes import CONFIG, killed, write_pictures

from retrieval.pairs import read_pairs
from retrieval.train import train
from retrieval.train.run_folder import RunFolder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_kills_at_random_moments_and_inside_saves_change_nothing(tmp_path):
    """Weights, checkpoint and log are compared byte for byte with those of an undisturbed training."""
    outcomes = [outcome for outcome in killed(tmp_path, kills=3, seed=1) if outcome["killed"]]
    assert len(outcomes) == 3
    assert {outcome["inside a save"] for outcome in outcomes} == {True, False}


@contextmanager
def full_disk(room):
    """Limit the size of files: writing beyond it fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("room", [0, 1_000_000])
def test_a_full_disk_loses_no_checkpoint(tmp_path, room):
    """It fills up in the middle of a run: the last checkpoint and the best model stay, and training resumes."""
    pairs = read_pairs(write_pictures(tmp_path / "pictures"))
    config = replace(CONFIG, cache_bytes=0)  # so that pictures would be kept on the disk too
    train(pairs, tmp_path / "whole", config=config, validation=pairs)
    limit = full_disk(room)

    def fill(step, *_):
        if step == 5:
            limit.__enter__()

    folder = RunFolder(tmp_path / "run")
    try:
        with pytest.raises(OSError, match=r"[Tt]oo large"):
            train(pairs, folder.path, config=config, validation=pairs, progress=fill)
    finally:
        limit.__exit__(None, None, None)
    assert [path for path in folder.path.rglob("*") if path.suffix == ".tmp"] == []
    later = []
    train(
        pairs, folder.path, config=config, validation=pairs, resume=True, progress=lambda step, *_: later.append(step)
    )
    assert later == [5, 6, 7, 8, 9]  # the fourth step has the last checkpoint
    for name in ("open_clip_model.safetensors", "training/state.safetensors"):
        assert (folder.path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

"""A killed process loses no acknowledged change, and the next build completes the rest."""

import pytest
from crashes import crash, random_moment, write_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures") / "photos")


@pytest.mark.parametrize("seed", range(5))
def test_kill_at_a_random_moment_loses_no_acknowledged_change(tmp_path, pictures, seed):
    crash(tmp_path, pictures, seed, moment=random_moment(seed))


@pytest.mark.parametrize(
    "step",
    [
        "the vectors are not synced yet",
        "the vectors are written",
        "the compacted vectors are not synced yet",
        "the compacted vectors are written",
        "the old vectors are not yet removed",
    ],
)
def test_kill_between_two_writes_loses_no_acknowledged_change(tmp_path, pictures, step):
    crash(tmp_path, pictures, 0, step=step)

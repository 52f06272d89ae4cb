"""Files are whole or not there."""

import pytest

from retrieval.files import write_atomically


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")

    def half(aside):
        aside.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("a", "old")]


def test_a_file_is_readable_as_any_new_file_here_whatever_its_writer_made_of_it(tmp_path):
    (tmp_path / "usual").touch()

    def private(aside):
        aside.write_text("new")
        aside.chmod(0o600)

    write_atomically(tmp_path / "a", private)
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode

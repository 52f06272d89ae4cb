"""Files that are whole or not there: written aside, synced, renamed."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a path beside `path`, and put that file in its place once it is whole and on the disk.

    The file gets the mode that this process gives new files, whatever `write` made of it: safetensors writes files
    that only their owner can read.

    Raises:
        OSError: the disk is full or failing; what was at `path` is untouched.
    """
    aside = path.with_name(f".{path.name}.tmp")
    try:
        aside.touch()
        mode = aside.stat().st_mode
        write(aside)
        aside.chmod(mode)
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the disk has a file, or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

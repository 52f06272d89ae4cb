"""Decoded pictures in one file on disk, which is read through memory and goes away with the process."""

import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import Image

from retrieval.errors import TrainingError

_MOST_OF_FREE: Final = 0.5  # of what is free on the disk: checkpoints and whatever else runs need the rest


class DiskCache:
    """Pictures of mode RGB by number, as bytes in a nameless file: nothing is left of it however the process ends.

    One thread keeps pictures, any number of them look. A disk that is full only ends the keeping: what is there stays.
    """

    def __init__(self, folder: Path, budget: int, *, sharers: int = 1) -> None:
        """An empty cache in a folder, which is made, for at most so many bytes and half of what is free there.

        Processes of one machine that have a cache each, so many `sharers`, have no more than that together.

        Raises:
            TrainingError: there can be no file in the folder.
        """
        self._file: BinaryIO | None = None
        self._places: dict[int, tuple[int, int, int]] = {}  # of each picture: offset, width, height
        self._end, self._budget = 0, budget
        if not budget:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._budget = min(budget, int(_MOST_OF_FREE * shutil.disk_usage(folder).free)) // sharers
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it lives as long as this object)
        except OSError as error:
            raise TrainingError(f"no cache of pictures can be in {folder}: {error.strerror}; name another") from error

    def __len__(self) -> int:
        return len(self._places)

    def keep(self, number: int, image: Image.Image) -> None:
        """Keep a picture, if there is room."""
        size = 3 * image.width * image.height
        if self._file is None or self._end + size > self._budget:
            return
        try:
            written = os.pwrite(self._file.fileno(), image.tobytes(), self._end)
        except OSError:  # full, or over the quota
            written = 0
        if written < size:
            self._budget = self._end
            return
        self._places[number] = (self._end, image.width, image.height)
        self._end += size

    def get(self, number: int) -> Image.Image | None:
        """A picture that was kept; None where it was not."""
        place = self._places.get(number)
        if place is None or self._file is None:
            return None
        offset, width, height = place
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        length = offset - start + 3 * width * height
        with mmap.mmap(self._file.fileno(), length, offset=start, access=mmap.ACCESS_READ) as seen:
            pixels = np.frombuffer(seen[offset - start :], np.uint8)
        return Image.fromarray(pixels.reshape(height, width, 3))

    def close(self) -> None:
        """Give the room on the disk back."""
        self._places.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

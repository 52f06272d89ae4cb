"""Pictures that were handed in as bytes: kept as files inside the catalog, named by their content."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from retrieval.files import sync, write_atomically
from retrieval.hashing import content_hash
from retrieval.images import open_image
from retrieval.images.sources import ImageSource

FOLDER: Final = "pictures"


def keep_picture(catalog: Path, content: bytes) -> ImageSource:
    """Write the picture into the catalog's folder, on the disk when this returns; the same content is the same file.

    Raises:
        ImageError: it is no picture.
        OSError: the disk is full or failing.
    """
    open_image(content, size=1)
    name = content_hash(content)
    path = catalog / FOLDER / name[:2] / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, partial(_write, content))
        sync(path.parent.parent)
    return ImageSource(path=path, name=path.relative_to(catalog).as_posix())


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def drop_pictures(catalog: Path, *, named: Iterable[str]) -> None:
    """Delete the kept pictures but those `named`, by paths from the catalog's folder: what deleted items left."""
    kept = {catalog / name for name in named}
    for path in (catalog / FOLDER).glob("??/*"):
        if path not in kept:
            path.unlink(missing_ok=True)

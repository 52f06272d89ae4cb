"""Pictures that come as bytes: files inside the catalog's folder, named by their content."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from retrieval.catalog.items import escape_surrogates
from retrieval.errors import ImageError
from retrieval.files import fsync, write_atomically
from retrieval.hashing import content_hash
from retrieval.images import open_image
from retrieval.images.sources import ImageSource
from retrieval.pairs import Skipped
from retrieval.records.database import report_disk_errors
from retrieval.types import Item

FOLDER: Final = "pictures"


def store_pictures(catalog: Path, items: Iterable[Mapping[str, Any] | Item]) -> tuple[list[Any], list[Skipped]]:
    """Return the items with files in place of bytes, and those that are skipped since their bytes are no picture."""
    stored: list[Any] = []
    skipped = []
    for item in items:
        images = item.get("images") if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(images, list | tuple):  # `parse_item` checks it
            stored.append(item)
            continue
        try:
            with report_disk_errors(catalog):
                files = [store_picture(catalog, image) if isinstance(image, bytes) else image for image in images]
            stored.append({**item, "images": files})
        except ImageError as error:
            skipped.append(Skipped(escape_surrogates(str(item.get("id"))), f"a picture {error}"))
    return stored, skipped


def store_picture(catalog: Path, content: bytes) -> ImageSource:
    """Write the picture into the catalog's folder, synced when this returns; the same content is the same file.

    Raises:
        ImageError: it is no picture.
        OSError: the disk is full or failing.
    """
    open_image(content, size=1)
    name = content_hash(content)
    path = catalog / FOLDER / name[:2] / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, partial(Path.write_bytes, data=content))
        fsync(path.parent.parent)
    return ImageSource(path=path, name=path.relative_to(catalog).as_posix())


def delete_unused_pictures(catalog: Path, *, used: Iterable[str]) -> None:
    """Delete the stored pictures except those `used`, by paths relative to the catalog's folder."""
    used_files = {catalog / name for name in used}
    for path in (catalog / FOLDER).glob("??/*"):
        if path not in used_files:
            path.unlink(missing_ok=True)

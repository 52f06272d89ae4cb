"""The layout of a folder of images, each with its captions in a .txt or .json file of the same name, or alone."""

import os
import posixpath
from pathlib import Path

from retrieval.errors import ImageError, PairsError
from retrieval.images.sources import ImageSource, detect_format, read_head
from retrieval.pairs.image_folder import PICTURE_SUFFIXES
from retrieval.pairs.layout import Collector, Layout, Record, Source
from retrieval.pairs.sample import MAX_BYTES, Sample
from retrieval.pairs.tables import TABLE_SUFFIXES

_NOT_AN_IMAGE = "is not an image; to read pairs from it, give the file itself and not its folder"
_UNUSED = {".txt": "has no image of the same name beside it", ".json": _NOT_AN_IMAGE}


def _read_folder(source: Source, collector: Collector) -> tuple[Path, str]:
    root = source.path
    if source.images is not None:
        raise PairsError(f"{root} holds its images itself. A folder of images goes with a table or a captions JSON.")
    files, unusable = source.listing
    for name, reason in unusable:
        collector.skip(name, reason, may_hide_items=name.endswith("/"))
    sidecars: dict[str, dict[str, str]] = {suffix: {} for suffix in _UNUSED}
    images = []
    for name in files:
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() in sidecars:
            sidecars[suffix.lower()][stem] = name
        elif suffix.lower() in PICTURE_SUFFIXES or _check_image(root, name, collector):
            images.append(name)
    used: set[str] = set()
    for name in images:
        stem = posixpath.splitext(name)[0]
        own = {suffix: path for suffix, paths in sidecars.items() if (path := paths.get(name) or paths.get(stem))}
        used.update(own.values())
        collector.add(ImageSource(Path(f"{root}{os.sep}{name}"), name), _read_sidecars(root, own, collector))
    for suffix, paths in sidecars.items():
        for path in sorted(set(paths.values()) - used):
            collector.skip(path, _UNUSED[suffix], may_hide_items=False)
    return root, "captioned folder" if used else "folder"


def _read_sidecars(root: Path, paths: dict[str, str], collector: Collector) -> Record:
    sample = Sample()
    for suffix, path in paths.items():
        try:
            sample.add_sidecar(suffix, read_head(root / path, MAX_BYTES + 1))
        except (ImageError, PairsError) as error:
            collector.skip(path, str(error), may_hide_items=False)
    return sample.to_record()


def _check_image(root: Path, name: str, collector: Collector) -> bool:
    """Return whether a file of another suffix is an image by its first bytes; otherwise skip it."""
    try:
        detect_format(read_head(root / name, 1024))
    except ImageError as error:
        is_table = posixpath.splitext(name)[1].lower() in TABLE_SUFFIXES
        collector.skip(name, _NOT_AN_IMAGE if is_table else str(error), may_hide_items=False)
        return False
    return True


PICTURE_FOLDER = Layout(
    "a folder of images, with .txt files of the same names or alone", lambda source: source.path.is_dir(), _read_folder
)

"""The layout of a folder of images, each with its captions in a .txt or .json file of the same name, or alone."""

import os
import posixpath
from pathlib import Path

from retrieval.errors import ImageError, PairsError
from retrieval.images.sources import ImageSource, detect_format, read_head
from retrieval.pairs.columns import collect_texts, parse_row
from retrieval.pairs.image_folder import PICTURE_SUFFIXES
from retrieval.pairs.layout import Collector, Layout, Source
from retrieval.pairs.tables import TABLE_SUFFIXES, Row, decode, parse_json

_NOT_AN_IMAGE = "is not an image; to read pairs from it, give the file itself and not its folder"
_MAX_TEXT = 2**20  # bytes of a caption file: a larger one is something else


def _read_folder(source: Source, collector: Collector) -> tuple[Path, str]:
    root = source.path
    if source.images is not None:
        raise PairsError(f"{root} holds its images itself. A folder of images goes with a table or a captions JSON.")
    files, unusable = source.listing
    for name, reason in unusable:
        collector.skip(name, reason, may_hide_items=name.endswith("/"))
    sidecars: dict[str, dict[str, str]] = {".txt": {}, ".json": {}}
    images = []
    for name in files:
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() in sidecars:
            sidecars[suffix.lower()][stem] = name
        elif suffix.lower() in PICTURE_SUFFIXES or _check_image(root, name, collector):
            images.append(name)
    used: set[str] = set()
    for name in images:
        own = {suffix: known.get(name) or known.get(posixpath.splitext(name)[0]) for suffix, known in sidecars.items()}
        used.update(path for path in own.values() if path)
        lines = _read_text(root, own[".txt"], collector).splitlines()
        identity, captions, attributes = parse_row(_read_json(root, own[".json"], collector))
        image = ImageSource(Path(f"{root}{os.sep}{name}"), name)
        collector.add(image, captions=collect_texts(lines) or captions, attributes=attributes, id=identity)
    _skip_unused(sidecars, used, collector)
    return root, "captioned folder" if used else "folder"


def _skip_unused(sidecars: dict[str, dict[str, str]], used: set[str], collector: Collector) -> None:
    reasons = {".txt": "has no image of the same name beside it", ".json": _NOT_AN_IMAGE}
    for suffix, known in sidecars.items():
        for name in sorted(set(known.values()) - used):
            collector.skip(name, reasons[suffix])


def _check_image(root: Path, name: str, collector: Collector) -> bool:
    """Return whether a file of another suffix is an image by its first bytes; otherwise skip it."""
    try:
        detect_format(read_head(root / name, 1024))
    except ImageError as error:
        is_table = posixpath.splitext(name)[1].lower() in TABLE_SUFFIXES
        collector.skip(name, _NOT_AN_IMAGE if is_table else str(error))
        return False
    return True


def _read_text(root: Path, name: str | None, collector: Collector) -> str:
    """Return the text of a caption file; empty where there is none or it is skipped as unreadable."""
    if name is None:
        return ""
    try:
        data = read_head(root / name, _MAX_TEXT + 1)
        if len(data) <= _MAX_TEXT:
            return decode(data, name="the text")
        collector.skip(name, f"has more than {_MAX_TEXT:,} bytes, too many for captions")
    except (ImageError, PairsError) as error:
        collector.skip(name, str(error))
    return ""


def _read_json(root: Path, name: str | None, collector: Collector) -> Row:
    """Return the object of a JSON file beside an image; empty where there is none."""
    text = _read_text(root, name, collector)
    try:
        value = parse_json(text) if text else {}
    except ValueError as error:
        collector.skip(name or "", f"is not JSON ({error})")
        return {}
    return value if isinstance(value, dict) else {}


PICTURE_FOLDER = Layout(
    "a folder of images, with .txt files of the same names or alone", lambda source: source.path.is_dir(), _read_folder
)

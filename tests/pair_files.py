"""What the tests of pairs share: small pictures and tables on disk, and what was read in a form to compare."""

import json
from pathlib import Path

import pytest
from hostile_files import encoded, picture

from retrieval.errors import PairsError
from retrieval.pairs import read_pairs

JPEG = encoded(picture(), "JPEG")


def write_pictures(folder: Path, *names: str) -> Path:
    """Write the same small JPEG under some names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(JPEG)
    return folder


def write_text(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    """Write a text file."""
    path.write_bytes(text.encode(encoding))
    return path


def write_jsonl(path: Path, *rows) -> Path:
    """Write a JSON line for each row."""
    return write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def captions_by_name(pairs) -> dict[str, tuple[str, ...]]:
    """Return the captions by the name of the image."""
    return {pair.image.name: pair.captions for pair in pairs}


def skip_reasons(pairs) -> dict[str, str]:
    """Return the reasons of skipped files and rows by name."""
    return {entry.name: entry.reason for entry in pairs.skipped}


def read_error(source, **options) -> str:
    """Return the message with which a source is refused."""
    with pytest.raises(PairsError) as caught:
        read_pairs(source, **options)
    return str(caught.value)

"""What the tests of pairs share: small pictures and tables on disk, and what was read in a form to compare."""

import json
from pathlib import Path

import pytest
from hostile_files import encoded, picture

from retrieval.errors import PairsError
from retrieval.pairs import read_pairs

JPEG = encoded(picture(), "JPEG")


def pictures(folder: Path, *names: str) -> Path:
    """Write the same small JPEG under some names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(JPEG)
    return folder


def written(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    """Write a text file."""
    path.write_bytes(text.encode(encoding))
    return path


def jsonl(path: Path, *rows) -> Path:
    """Write a JSON line for each row."""
    return written(path, "".join(json.dumps(row) + "\n" for row in rows))


def by_name(pairs) -> dict[str, tuple[str, ...]]:
    """Captions by the name of the picture."""
    return {pair.image.name: pair.captions for pair in pairs}


def skipped(pairs) -> dict[str, str]:
    """Reasons by name."""
    return {entry.name: entry.reason for entry in pairs.skipped}


def reason(source, **options) -> str:
    """Why a source as a whole is refused."""
    with pytest.raises(PairsError) as caught:
        read_pairs(source, **options)
    return str(caught.value)

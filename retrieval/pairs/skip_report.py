"""The report of skipped rows and images: a CSV file to fix a feed by."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from retrieval.files import write_atomically
from retrieval.pairs.types import Skipped

COLUMNS = ("row", "id", "picture", "reason")


def write_skip_report(path: Path, skipped: Iterable[Skipped], *, ids: Mapping[str, str] | None = None) -> None:
    """Write a line for each skipped row or image, in UTF-8 with a byte order mark; the file is replaced as a whole.

    `ids` are those of items by the name of an image, for images that only the build found unreadable.
    """
    lines = [
        (
            entry.row,
            entry.id or (ids or {}).get(entry.name, ""),
            "" if entry.row and entry.name.startswith(entry.row) else entry.name,
            entry.reason.removesuffix(f" ({entry.row})"),
        )
        for entry in skipped
    ]

    def write(aside: Path) -> None:
        with aside.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *lines])

    write_atomically(path, write)

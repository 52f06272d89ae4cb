"""The report of what was refused: a CSV to mend a feed by."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.files import write_atomically

if TYPE_CHECKING:
    from retrieval.pairs import Skipped

COLUMNS = ("row", "id", "picture", "reason")


def write_refusals(path: Path, skipped: Iterable["Skipped"], *, ids: Mapping[str, str] | None = None) -> None:
    """Write a line for each row or picture that was refused, in UTF-8 with a mark; the file is whole or as it was.

    Args:
        path: the file to write.
        skipped: what was refused.
        ids: of items by the name of a picture, for the pictures that only the build found bad.

    Raises:
        OSError: it cannot be written.
    """
    lines = [_line(one, ids or {}) for one in skipped]

    def write(aside: Path) -> None:
        with aside.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *lines])

    write_atomically(path, write)


def _line(one: "Skipped", ids: Mapping[str, str]) -> tuple[str, str, str, str]:
    is_row = bool(one.row) and one.name.startswith(one.row)
    reason = one.reason.removesuffix(f" ({one.row})")
    return one.row, one.id or ids.get(one.name, ""), "" if is_row else one.name, reason

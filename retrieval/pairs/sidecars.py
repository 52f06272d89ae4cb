"""Captions and attributes of an image in files of the same name: .txt, .json, .cls."""

from dataclasses import dataclass, field, replace

from retrieval.errors import PairsError
from retrieval.pairs.columns import Record, collect_texts, parse_row
from retrieval.pairs.tables import Row, decode, parse_json

MAX_BYTES = 2**20  # a larger file is something else


@dataclass(slots=True)
class Sidecars:
    """What the files beside one image say of it."""

    captions: list[str] = field(default_factory=list)
    row: Row = field(default_factory=dict)

    def add(self, suffix: str, data: bytes) -> None:
        """Take in a file: each line of a .txt is a caption, a .json is the row of a table, a .cls a class.

        Raises:
            PairsError: It is too large, in another encoding than UTF-8 and UTF-16, or not JSON.
        """
        if len(data) > MAX_BYTES:
            raise PairsError(f"has more than {MAX_BYTES:,} bytes, too many for captions")
        text = decode(data, name="the text")
        if suffix == ".txt":
            self.captions += text.splitlines()
        elif suffix == ".cls":
            self.row["cls"] = int(text) if text.strip().isdecimal() else text.strip()
        elif text:
            try:
                value = parse_json(text)
            except ValueError as error:
                raise PairsError(f"is not JSON ({error})") from error
            self.row |= value if isinstance(value, dict) else {}

    def to_record(self) -> Record:
        """Return them as a row; captions in a .txt take precedence."""
        record = parse_row(self.row)
        return replace(record, captions=collect_texts(self.captions) or record.captions)

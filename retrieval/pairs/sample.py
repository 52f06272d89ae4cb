"""A sample: images with their captions and attributes in files of the same name, .txt, .json or .cls."""

from dataclasses import dataclass, field, replace

from retrieval.errors import PairsError
from retrieval.images.sources import ImageSource
from retrieval.pairs.columns import collect_texts, read_plain_records
from retrieval.pairs.layout import Record
from retrieval.pairs.tables import Row, Table, decode, parse_json

MAX_BYTES = 2**20  # a larger file is something else


@dataclass(slots=True)
class Sample:
    """Files of one name."""

    images: list[ImageSource] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    row: Row = field(default_factory=dict)

    def add_sidecar(self, suffix: str, data: bytes) -> None:
        """Add a file beside the images, or raise a PairsError with the reason against it.

        Each line of a .txt is a caption, a .json is a row of a table, a .cls a class.
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
        """Return what the sidecar files say as a row; captions in a .txt take precedence."""
        table = Table("", rows=[("", self.row)])
        record = next(read_plain_records(table, has_images=False)) if self.row else Record()
        return replace(record, captions=collect_texts(self.captions) or record.captions)

"""The interface of a layout, `Layout`: it matches a `Source` of pairs and reads its records into a `Collector`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from retrieval.errors import ColumnError
from retrieval.images.sources import ImageSource
from retrieval.pairs.image_folder import has_pictures, list_files
from retrieval.pairs.types import AttributeValue, Pair, Pairs, Skipped

_LONGEST_NAME = 300


@dataclass(frozen=True)  # no slots: a cached property needs a dict
class Source:
    """A file or folder to read pairs from."""

    path: Path
    images: Path | None = None  # the folder of the images, if given; of no use where the source holds them itself
    columns: Mapping[str, str] = field(default_factory=dict)  # the `map` of `read_pairs`; empty without `has_columns`

    @cached_property
    def suffix(self) -> str:
        """The suffix of a file in lower case; empty for a folder."""
        return self.path.suffix.lower() if self.path.is_file() else ""

    @cached_property
    def listing(self) -> tuple[list[str], list[tuple[str, str]]]:
        """The files under a folder, and the unusable entries with their reasons; see `list_files`."""
        return list_files(self.path)

    def shards(self, suffix: str) -> list[Path]:
        """Return the files of that suffix: itself, or those of a folder without pictures."""
        if self.suffix == suffix:
            return [self.path]
        files = self.listing[0] if self.path.is_dir() else []
        return [] if has_pictures(files) else [self.path / name for name in files if name.lower().endswith(suffix)]

    def unmappable(self) -> ColumnError:
        """Return the error that columns cannot be mapped."""
        tables = "Map the columns of a CSV, TSV, XML, JSONL or Parquet file."
        return ColumnError(f"{self.path.name} is not a table, so its columns cannot be mapped. {tables}")


@dataclass(frozen=True, slots=True)
class Record:
    """One row by the meaning of its columns, of which a collector takes id, captions and attributes."""

    place: str = ""  # in a table: "line 7"
    images: tuple[str, ...] = ()  # names, or in a table with packed images the places of their bytes
    id: str | None = None
    captions: tuple[str, ...] = ()
    attributes: dict[str, AttributeValue] = field(default_factory=dict)  # all other columns


@dataclass(slots=True)
class Collector:
    """Collects the pairs of a source.

    Rows of one id and one image become one pair; a name is skipped once, in a table once in each row.
    """

    _pairs: dict[tuple[str, Path, str | None], tuple[ImageSource, dict[str, None], dict[str, AttributeValue]]] = field(
        default_factory=dict
    )
    _skipped: dict[tuple[str, str, str], Skipped] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def add(self, image: ImageSource, record: Record) -> None:
        """Add an image, whose id is its name by default; an attribute keeps its first value."""
        key = (record.id or image.name, image.path, image.member)
        _, captions, attributes = self._pairs.setdefault(key, (image, {}, {}))
        captions.update(dict.fromkeys(record.captions))
        for name, value in record.attributes.items():
            attributes.setdefault(name, value)

    def skip(
        self, name: str, reason: str, *, row: str = "", item_id: str | None = None, may_hide_items: bool = True
    ) -> None:
        """Record a file or row ("line 7") that is not a pair as `Skipped`, under a printable name.

        Unless its id is known or `may_hide_items` is False, it may hold any item, and a build then drops none.
        """
        name, identity = _escape_name(name), None if item_id is None else _escape_name(item_id)
        skipped = Skipped(name, reason, row, identity, may_hide_items and item_id is None)
        self._skipped.setdefault((name, row, reason if row else ""), skipped)

    def to_pairs(self, source: Path, *, root: Path, layout: str) -> Pairs:
        """Return everything that was collected."""
        pairs = (Pair(key[0], image, tuple(texts), values) for key, (image, texts, values) in self._pairs.items())
        return Pairs(source, root, layout, tuple(pairs), tuple(self._skipped.values()), tuple(self.notices))


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which people lay out pairs on disk.

    `read` adds each image as `ImageSource(path, name)`, the name relative to the source, with its `Record`, and skips
    what it cannot read, the unusable entries of `Source.listing` too. `image_folder` has `PICTURE_SUFFIXES`.
    """

    description: str  # for the message that lists the accepted layouts
    matches: Callable[[Source], bool]
    # adds the pairs of a source; returns the folder that image names are relative to, and the name of the layout
    read: Callable[[Source, Collector], tuple[Path, str]]
    has_columns: bool = False  # whether `Source.columns` may rename them


def _escape_name(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()[:_LONGEST_NAME]

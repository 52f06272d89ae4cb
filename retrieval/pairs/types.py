"""Image-text pairs: an image with its captions and attributes, and all pairs of one source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from retrieval.images.sources import ImageSource

AttributeValue: TypeAlias = "str | int | float | bool | list[AttributeValue] | dict[str, AttributeValue] | None"


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and the captions that belong to it."""

    id: str  # of the item; pairs of one id are one item with several images
    image: ImageSource
    captions: tuple[str, ...] = ()  # in the order of the source
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)  # the other fields by name, in JSON's types


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or row that was skipped, and the reason: "there is no such file"."""

    name: str  # of the image or file, else of the row, with its id; the reason reads on as a sentence
    reason: str
    row: str = ""  # that it belongs to, "products.csv line 7"; empty outside of tables
    id: str | None = None
    may_hide_items: bool = False  # of any id, as a row, folder or shard that cannot be read: a build then drops none


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of one source."""

    source: Path  # the file or folder that was read, absolute
    root: Path  # the folder that image names are relative to
    # "captioned folder", "folder", "metadata", "table", "google merchant", "shopify", "coco", "karpathy", "webdataset"
    layout: str
    pairs: tuple[Pair, ...]  # sorted by name for a folder, else in the order of the source
    skipped: tuple[Skipped, ...] = ()
    notices: tuple[str, ...] = ()  # of data read, but hardly as meant: a column of numbers that one cell turns to text

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]

    def by_item(self) -> dict[str, list[Pair]]:
        """Return the pairs of each item id, in order."""
        items: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            items.setdefault(pair.id, []).append(pair)
        return items

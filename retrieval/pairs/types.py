"""Image-text pairs: an image with its captions and attributes, and all pairs of one source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from retrieval.images import ImageSource

AttributeValue: TypeAlias = "str | int | float | bool | list[AttributeValue] | dict[str, AttributeValue] | None"


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and the captions that belong to it.

    Attributes:
        id: The item's id; pairs of one id are one item with several images.
        captions: None, one or more, in the order of the source.
        attributes: The other fields of the source by name, in JSON's types.
    """

    id: str
    image: ImageSource
    captions: tuple[str, ...] = ()
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or row that was skipped, and the reason: "there is no such file".

    Attributes:
        name: Of the image or file, else of the row, with its id; the reason reads on as a sentence.
        row: The row that it belongs to, "products.csv line 7"; empty outside of tables.
        may_hide_items: Whether it may hold items of any id: a row, folder or shard that cannot be read.
    """

    name: str
    reason: str
    row: str = ""
    id: str | None = None
    may_hide_items: bool = False


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of one source.

    Attributes:
        source: The file or folder that was read, absolute.
        root: The folder that image names are relative to.
        layout: "captioned folder", "folder", "metadata", "table", "google merchant", "shopify", "coco", "karpathy" or
            "webdataset".
        pairs: Sorted by name for a folder, else in the order of the source.
        notices: Data that was read, but hardly as meant: a column of numbers that one cell turns into text.
    """

    source: Path
    root: Path
    layout: str
    pairs: tuple[Pair, ...]
    skipped: tuple[Skipped, ...] = ()
    notices: tuple[str, ...] = ()

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

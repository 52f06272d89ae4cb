"""Image-text pairs: what they are, and read_pairs, which reads them from every layout that people have them in."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from retrieval.errors import PairsError
from retrieval.images import ImageSource
from retrieval.pairs import layouts

__all__ = ["AttributeValue", "Pair", "Pairs", "Skipped", "read_pairs"]

AttributeValue: TypeAlias = "str | int | float | bool | list[AttributeValue] | dict[str, AttributeValue] | None"


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture and the captions that belong to it.

    Attributes:
        id: the item's id; pairs of one id are one item with several pictures.
        captions: none, one or more, in the order of the source.
        attributes: what else the source says of it, by name, in JSON's types.
    """

    id: str
    image: ImageSource
    captions: tuple[str, ...] = ()
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or row that is no pair, and the reason: "there is no such file".

    Attributes:
        name: the picture's or file's; else the row's, with its id.
        reason: why, to stand behind the name.
        row: where the row stands that it is of: "products.csv line 7"; empty where it is of none.
        id: the row's id, where it has one.
        hides: whether nobody knows what it holds: a row, folder or shard that cannot be read.
    """

    name: str
    reason: str
    row: str = ""
    id: str | None = None
    hides: bool = False


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of one source.

    Attributes:
        source: what was read, absolute.
        root: the folder that the names of pictures are relative to.
        layout: how it is laid out: "captioned folder", "folder", "metadata", "table", "google merchant",
            "shopify", "coco", "karpathy", "webdataset".
        pairs: sorted by name for a folder, else in the order of the source.
        skipped: what is no pair, with the reason.
        notices: what was taken, but hardly as it was meant: a column of numbers that one cell makes text.
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
        """Pairs of each item's id, in order."""
        items: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            items.setdefault(pair.id, []).append(pair)
        return items


_LONGEST_NAME = 300


@dataclass(slots=True)
class Collector:
    """Takes pairs in from a layout's reader.

    Rows of one id and one picture become one pair; a name is skipped once, in a table once in each row.
    """

    _found: dict[tuple[str, Path, str | None], tuple[ImageSource, dict[str, None], dict[str, AttributeValue]]] = field(
        default_factory=dict
    )
    _skipped: dict[tuple[str, str, str], Skipped] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def add(
        self,
        image: ImageSource,
        *,
        captions: Iterable[str] = (),
        attributes: Mapping[str, AttributeValue] | None = None,
        id: str | None = None,  # noqa: A002 (what everyone calls it)
    ) -> None:
        """Take in a picture, whose name is its id where there is none; an attribute keeps its first value."""
        key = (id or image.name, image.path, image.member)
        _, texts, values = self._found.setdefault(key, (image, {}, {}))
        texts.update(dict.fromkeys(captions))
        for name, value in (attributes or {}).items():
            values.setdefault(name, value)

    def skip(
        self,
        name: str,
        reason: str,
        *,
        row: str = "",
        id: str | None = None,  # noqa: A002
        hides: bool = False,
    ) -> None:
        """Note what is no pair, under a name that can be printed."""
        shown, identity = _printable(name), None if id is None else _printable(id)
        key = (shown, row, reason if row else "")
        self._skipped.setdefault(key, Skipped(shown, reason, row, identity, hides))

    def skip_row(self, row: str, reason: str, *, id: str | None = None, hides: bool = False) -> None:  # noqa: A002
        """Note a row of a table that is no pair, under its place and id."""
        self.skip(row if id is None else f"{row} ({id})", reason, row=row, id=id, hides=hides)

    def pairs(self, source: Path, *, root: Path, layout: str) -> Pairs:
        """All that was taken in."""
        found = (Pair(key[0], image, tuple(texts), values) for key, (image, texts, values) in self._found.items())
        return Pairs(source, root, layout, tuple(found), tuple(self._skipped.values()), tuple(self.notices))


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()[:_LONGEST_NAME]


def read_pairs(
    source: Path | str,
    *,
    images: Path | str | None = None,
    map: Mapping[str, str] | None = None,  # noqa: A002 (as the option is called)
    empty: bool = False,
) -> Pairs:
    """Image-text pairs of a folder or file, in any of these layouts.

    - a folder of pictures with same-named .txt files, a caption a line; or of pictures alone;
    - a folder with metadata.jsonl, metadata.csv or metadata.parquet (Hugging Face's ImageFolder), nested ones too;
    - a CSV, TSV, JSONL, JSON or Parquet file of rows with a column that names an image;
    - a product feed of Google Merchant in XML (RSS or Atom), TSV, CSV or JSONL, known by its columns id, title,
      image_link, and link or availability; or Shopify's CSV export of products, by Handle and Image Src;
    - a COCO captions JSON or a Karpathy split JSON with its folder of pictures beside it;
    - a WebDataset .tar shard, or a folder of them.

    Pictures are looked for but not opened. What is missing or leads out of the folder is named in skipped.

    Args:
        source: the folder or file.
        images: folder of the pictures, where that is not beside the file; URLs are then looked for in it by their
            path, and that and all other names that lead elsewhere by their last part. Nothing is ever fetched.
        map: columns of a table by what they are to be: {"id": "sku", "image": "photo", "title": "name"}, or any
            attribute; an empty column drops that field.
        empty: whether a source without any picture is taken too: one that was emptied on purpose.

    Raises:
        ColumnError: `map` names a column that is not there.
        PairsError: there is nothing of the kind there.
    """
    path = Path(os.path.realpath(source))
    if not path.exists():
        raise PairsError(f"{source} does not exist; {layouts.ACCEPTED}")
    if images is not None and not Path(images).is_dir():
        raise PairsError(f"the folder of images {images} does not exist or is no folder")
    collector = Collector()
    root, layout = layouts.read(path, collector, images=None if images is None else Path(images), fields=map)
    pairs = collector.pairs(path, root=root, layout=layout)
    if not empty and not pairs.pairs and not pairs.skipped:
        raise PairsError(f"{source} holds no pictures; {layouts.ACCEPTED}")
    return pairs

"""What the API of a catalog takes and returns: Item in, Hits, SyncReport, Agreement and Adoption out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

from index.vectors import Rows
from retrieval.filters.facets import Facet
from retrieval.images.sources import ImageSource
from retrieval.pairs import Skipped

SideName: TypeAlias = Literal["images", "captions"]
Target: TypeAlias = Literal["images", "captions", "items"]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in a catalog: an id, one or more images, any captions, attributes.

    Attributes:
        images: Where the pictures are. May be empty with `image_vectors`.
        captions: Distinct texts, stripped.
        attributes: JSON values; NaN and infinity, which JSON does not have, are None.
        image_vectors: Imported unit rows `(n, d)`: one for each picture, or in place of all pictures.
        caption_vectors: Imported unit rows `(n, d)`, one for each caption.
    """

    id: str
    images: tuple[ImageSource, ...] = ()
    captions: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    image_vectors: Rows | None = None
    caption_vectors: Rows | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that a search found, with its image and its caption.

    Attributes:
        rank: 1 is the best.
        score: What it is ranked by: the cosine of the query and the image's or the caption's vector; BM25 in the mode
            "words"; in a hybrid search the weighted sum of 1 / (10 + rank) over the parts; times the boosts.
        image: Absolute path of the best image, or of the item's first one where captions are ranked; of an image in a
            container the path as if that were a folder ("shard.tar/a.jpg"); None where only its vector is stored.
        caption: The best caption where captions are ranked, else the item's first one; None without captions.
        target: What was ranked; "items" for items as wholes.
        position: Position of the image in the item, from 0.
        ranks: The item's rank in each part of a hybrid search, from 1: "vectors", "words", and "name" for an item whose
            id or number was typed.
        variants: Number of items in the hit's group that pass the filter; None without `group`.
    """

    rank: int
    score: float
    id: str
    image: str | None
    caption: str | None
    attributes: Mapping[str, Any]
    target: Target = "images"
    position: int = 0
    ranks: Mapping[str, int] = field(default_factory=dict)
    variants: int | None = None


class Hits(list[Hit]):
    """The hits of a search, best first.

    Attributes:
        total: Number of items, or of texts where captions are ranked, that can be paged through: those on the ranked
            side that pass the filter and the floor, and in the mode "words" have one of the words.
        facets: Counts of attributes among these items, or among the items that have these texts.
        seconds: Duration of the search by "encode", "search" and "records"; of a batch, all of it together.
    """

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        *,
        total: int = 0,
        facets: Mapping[str, Facet] | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(hits)
        self.total = total
        self.facets = dict(facets or {})
        self.seconds = dict(seconds or {})


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a build or an upsert did, counted in items.

    Attributes:
        skipped: Each picture or row that was left out, with the reason.
        kept_deleted: Items left out because their id was deleted before; `restore=True` takes them back.
        kept_hidden: Items missing from the source that are kept, since they may be in the part of it that could not be
            read; `prune=True` drops them.
    """

    added: int = 0
    changed: int = 0
    dropped: int = 0
    unchanged: int = 0
    skipped: tuple[Skipped, ...] = ()
    kept_deleted: int = 0
    kept_hidden: int = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far searches among some pictures of a source find the same with an encoder in reduced precision.

    Attributes:
        precision: "int8".
        pictures: Number of the pictures, which are searched by each of themselves and by each text.
        texts: Number of their captions.
        best: Fraction of the searches whose best hit is the same as in float32.
        ten: Mean fraction of the ten best hits that are the same.
        recall_at_1: Fraction of the texts whose own picture is the best hit, in float32 and reduced; () without texts.
        recall_at_10: The same of the ten best.
    """

    precision: str
    pictures: int
    texts: int
    best: float
    ten: float
    recall_at_1: tuple[float, ...] = ()
    recall_at_10: tuple[float, ...] = ()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the agreement of its `asdict`, or of that after a way through JSON."""
        recalls = {name: tuple(record[name]) for name in ("recall_at_1", "recall_at_10")}
        return cls(**{**record, **recalls})

    def summary(self) -> str:
        """One line."""
        recalls = {1: self.recall_at_1, 10: self.recall_at_10}
        recall = "".join(f", recall@{k} {both[1]:.3f} (float32 {both[0]:.3f})" for k, both in recalls.items() if both)
        searches = f"{self.pictures} pictures" + (f" and {self.texts} texts" if self.texts else "")
        return (
            f"{self.precision}: searched by {searches} of this source, {self.best:.1%} of the best hits and "
            f"{self.ten:.1%} of the ten best are the same as in float32{recall}"
        )


@dataclass(frozen=True, slots=True)
class Adoption:
    """How many pictures kept their vectors in a swap, and how many distinct captions were embedded again."""

    pictures: int
    captions: int

    def summary(self) -> str:
        """One line."""
        return f"adopted: {self.pictures} pictures kept, {self.captions} captions embedded again"

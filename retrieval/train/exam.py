"""The validation pairs of a training run: read once, and ranked by the model as it is after each epoch."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from retrieval.errors import RetrievalError
from retrieval.evaluate.collection import Collection, collect
from retrieval.images import ImageSource, ahead, content_hash, open_image
from retrieval.metrics import rank
from retrieval.pairs import Pair, Skipped
from retrieval.train.run import RECALL_AT, RECALLS

if TYPE_CHECKING:
    from collections.abc import Generator

    from index.vectors import Ids, Rows
    from retrieval.encoder.open_clip_encoder import OpenClipEncoder
    from retrieval.metrics import Floats


@dataclass(frozen=True, slots=True)
class Marks:
    """How a model did in an exam.

    Attributes:
        ways: from texts to pictures, and from pictures to texts: recall of each query (q, 3), one column for each of
            `RECALL_AT`; and (q,) the number of the item that the query belongs to.
    """

    ways: "tuple[tuple[Floats, Ids], ...]"

    @property
    def mean(self) -> float:
        """Mean recall: over all K, both ways."""
        return float(np.mean([found.mean(axis=0) for found, _ in self.ways]))

    def recalls(self) -> dict[str, float]:
        """Recall by the names of `metrics.recall_both_ways`, and the mean of all."""
        values = (float(value) for found, _ in self.ways for value in found.mean(axis=0))
        recalls = dict(zip(RECALLS, values, strict=True))
        return recalls | {"mean_recall": sum(recalls.values()) / len(recalls)}


@dataclass(frozen=True, slots=True)
class Exam:
    """Pictures and texts that are never learned from.

    Attributes:
        encoder: shares its model with the training.
        pictures: as the encoder's `prepare` returns them.
        collection: which pictures and texts belong together, and who is asked.
        skipped: pictures that cannot be read.
    """

    encoder: "OpenClipEncoder"
    pictures: tuple[Any, ...]
    collection: Collection
    skipped: tuple[Skipped, ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair], encoder: "OpenClipEncoder", *, threads: int | None) -> "Exam":
        """The exam that these pairs make; an empty one where no readable picture has a caption."""
        files = {(pair.image.path, pair.image.member): pair.image for pair in pairs if pair.captions}
        number_of_file: dict[tuple[object, ...], int] = {}
        pictures: dict[str, tuple[int, Any]] = {}
        skipped: list[Skipped] = []
        opened = ahead(partial(_opened, encoder=encoder), files.values(), threads=threads)
        with closing(cast("Generator[Any, None, None]", opened)):
            for (file, source), outcome in zip(files.items(), opened, strict=True):
                if isinstance(outcome, RetrievalError):
                    skipped.append(Skipped(source.name, str(outcome)))
                else:
                    content, prepared = outcome
                    number_of_file[file], _ = pictures.setdefault(content, (len(pictures), prepared))
        shown = [number_of_file.get((pair.image.path, pair.image.member), -1) for pair in pairs]
        collection = collect(pairs, np.array(shown, np.int64), images=len(pictures))
        return cls(encoder, tuple(prepared for _, prepared in pictures.values()), collection, tuple(skipped))

    def grade(self, *, pictures: "Rows | None" = None, texts: "Rows | None" = None) -> "Marks | None":
        """How the model as it is now does, counted as `evaluate` counts it; None without pairs.

        The model is to be in eval mode. Rows that are handed in are not computed again.
        """
        if not self.pictures:
            return None
        right, asked = self.collection.right_images(), (self.collection.item_texts, self.collection.item_images)
        pictures = self.picture_rows() if pictures is None else pictures
        texts = self.text_rows() if texts is None else texts
        ranks = rank(texts, pictures, right), rank(pictures, texts, right.swapped())
        taken = [(way.take(queries.ids), queries.query_of_pair()) for way, queries in zip(ranks, asked, strict=True)]
        return Marks(tuple((np.stack([way.recall(k) for k in RECALL_AT], axis=1), items) for way, items in taken))

    def picture_rows(self) -> "Rows":
        """Rows of the pictures, by the model as it is now."""
        return self.encoder.encode_prepared(self.pictures)

    def text_rows(self) -> "Rows":
        """Rows of the texts, by the model as it is now."""
        return self.encoder.encode_texts(self.collection.texts)

    def digest(self) -> str:
        """Hash of what is asked: equal where the same model gets the same grade."""
        digest = hashlib.blake2b(
            repr((self.collection.texts, self.collection.right_images().ids.tolist())).encode(), digest_size=16
        )
        for picture in self.pictures:
            digest.update(picture.data)
        return digest.hexdigest()


def _opened(source: ImageSource, *, encoder: "OpenClipEncoder") -> tuple[str, Any]:
    data = source.read()
    return content_hash(data), encoder.prepare(open_image(data, size=encoder.image_size))

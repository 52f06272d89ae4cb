"""The validation pairs of a training run: read once, and ranked by the model as it is after each epoch."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from retrieval.collection import collect
from retrieval.errors import RetrievalError
from retrieval.images import ahead, open_image
from retrieval.metrics import Relevance, recall_both_ways
from retrieval.pairs import Pair, Skipped

if TYPE_CHECKING:
    from collections.abc import Generator

    from retrieval.open_clip_encoder import OpenClipEncoder


@dataclass(frozen=True, slots=True)
class Exam:
    """Pictures and texts that are never learned from.

    Attributes:
        encoder: shares its model with the training.
        pictures: as the encoder's `prepare` returns them.
        texts: the distinct captions.
        right: the pictures that are right for each text.
        skipped: pictures that cannot be read.
    """

    encoder: "OpenClipEncoder"
    pictures: tuple[Any, ...]
    texts: tuple[str, ...]
    right: Relevance
    skipped: tuple[Skipped, ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair], encoder: "OpenClipEncoder", *, threads: int | None) -> "Exam":
        """The exam that these pairs make; an empty one where no readable picture has a caption."""
        files = {(pair.image.path, pair.image.member): pair.image for pair in pairs if pair.captions}
        numbers: dict[tuple[object, ...], int] = {}
        pictures: list[Any] = []
        skipped: list[Skipped] = []
        opened = ahead(
            lambda source: encoder.prepare(open_image(source, size=encoder.image_size)), files.values(), threads=threads
        )
        with closing(cast("Generator[Any, None, None]", opened)):
            for (file, source), outcome in zip(files.items(), opened, strict=True):
                if isinstance(outcome, RetrievalError):
                    skipped.append(Skipped(source.name, str(outcome)))
                else:
                    numbers[file] = len(pictures)
                    pictures.append(outcome)
        shown = [numbers.get((pair.image.path, pair.image.member), -1) for pair in pairs]
        collection = collect(pairs, np.array(shown, np.int64), images=len(pictures))
        return cls(encoder, tuple(pictures), collection.texts, collection.right_images(), tuple(skipped))

    def grade(self) -> dict[str, float]:
        """Recall both ways of the model as it is now, in eval mode; empty for an empty exam."""
        if not self.texts:
            return {}
        rows = self.encoder.encode_prepared(self.pictures), self.encoder.encode_texts(self.texts)
        return recall_both_ways(*rows, self.right)

    def digest(self) -> str:
        """Hash of what is asked: equal where the same model gets the same grade."""
        digest = hashlib.blake2b(repr((self.texts, self.right.ids.tolist())).encode(), digest_size=16)
        for picture in self.pictures:
            digest.update(picture.data)
        return digest.hexdigest()

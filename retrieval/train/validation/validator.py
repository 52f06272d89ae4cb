"""The validation pairs of a training run: read once, and ranked by the model as it is after each epoch."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retrieval.concurrency import prefetch_map
from retrieval.errors import EncoderError, EvaluationError, RetrievalError
from retrieval.evaluate.collection import Collection, build_collection
from retrieval.hashing import content_hash
from retrieval.images import ImageSource, open_image
from retrieval.metrics import KS, rank
from retrieval.pairs import Pair, Skipped
from retrieval.train.data.near_duplicates import PERCEPTUAL_HASH, PerceptualHashes, hash_image
from retrieval.train.run_folder import RECALLS
from retrieval.train.validation.comparison import Places

if TYPE_CHECKING:
    from index.vectors import Ids, Rows
    from retrieval.encoder.open_clip_encoder import OpenClipEncoder
    from retrieval.metrics import Floats


@dataclass(frozen=True, slots=True)
class Marks:
    """How a model did in an exam.

    Attributes:
        ways: from texts to pictures, and from pictures to texts: recall of each query (q, 3), one column for each of
            `metrics.KS`; and (q,) the number of the item that the query belongs to.
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
        sources: where each of them is.
        contents: the hash of each picture's bytes.
        prints: of each picture, by which near-duplicates are known.
        collection: which pictures and texts belong together, and who is asked.
        skipped: pictures that cannot be read.
    """

    encoder: "OpenClipEncoder"
    pictures: tuple[Any, ...]
    sources: tuple[ImageSource, ...]
    contents: tuple[str, ...]
    prints: PerceptualHashes
    collection: Collection
    skipped: tuple[Skipped, ...]

    @classmethod
    def of(
        cls,
        pairs: Sequence[Pair],
        encoder: "OpenClipEncoder",
        *,
        threads: int | None,
        opened: Callable[[int, int], None] | None = None,
    ) -> "Exam":
        """The exam that these pairs make; an empty one where no readable picture has a caption.

        Args:
            pairs: what is asked and found.
            encoder: shares its model with the training.
            threads: that open pictures; one a core where it is None.
            opened: called with (done, total) after each file.
        """
        files = {(pair.image.path, pair.image.member): pair.image for pair in pairs if pair.captions}
        number_of_file: dict[tuple[object, ...], int] = {}
        found: dict[str, tuple[int, ImageSource, PerceptualHashes, Any]] = {}
        skipped: list[Skipped] = []
        outcomes = prefetch_map(partial(_opened, encoder=encoder), files.values(), threads=threads)
        with closing(outcomes):
            for done, ((file, source), outcome) in enumerate(zip(files.items(), outcomes, strict=True), start=1):
                if isinstance(outcome, RetrievalError):
                    skipped.append(Skipped(source.name, str(outcome)))
                else:
                    content, printed, prepared = outcome
                    number_of_file[file], *_ = found.setdefault(content, (len(found), source, printed, prepared))
                if opened is not None:
                    opened(done, len(files))
        shown = [number_of_file.get((pair.image.path, pair.image.member), -1) for pair in pairs]
        return cls(
            encoder,
            pictures=tuple(prepared for *_, prepared in found.values()),
            sources=tuple(source for _, source, *_ in found.values()),
            contents=tuple(found),
            prints=np.array([printed for _, _, printed, _ in found.values()], PERCEPTUAL_HASH),
            collection=build_collection(pairs, np.array(shown, np.int64), images=len(found)),
            skipped=tuple(skipped),
        )

    def places(self, *, pictures: "Rows | None" = None, texts: "Rows | None" = None) -> Places | None:
        """How the model as it is now does; None without pairs.

        It is counted as `evaluate` counts it, but that pictures without a caption are not ranked among the others.

        The model is to be in eval mode. Rows that are handed in are not computed again.

        Raises:
            EvaluationError: it gives no direction for something, as one does whose weights have overflowed.
        """
        if not self.pictures:
            return None
        right, asked = (
            self.collection.relevant_images(),
            (self.collection.item_texts.ids, self.collection.item_images.ids),
        )
        pictures = self.picture_rows() if pictures is None else pictures
        texts = self.text_rows() if texts is None else texts
        back = rank(pictures, texts, right.transpose())
        return Places(rank(texts, pictures, right).take(asked[0]), back.take(asked[1]))

    def probe(self, *, images: bool) -> None:
        """See that the model still makes something of a text and, if asked, of a picture, where there are no pairs.

        Raises:
            EvaluationError: it gives no direction, as one does whose weights have overflowed.
        """
        gray = Image.new("RGB", (self.encoder.image_size, self.encoder.image_size), "gray")
        with _graded():
            self.encoder.encode_texts(["a"])
            self.encoder.encode_images([gray] * images)

    def marked(self, places: Places) -> Marks:
        """The marks for right answers that came at these places."""
        asked = self.collection.item_texts, self.collection.item_images
        ways = zip((places.text_to_image, places.image_to_text), asked, strict=True)
        return Marks(
            tuple((np.stack([ranks.recall(k) for k in KS], axis=1), queries.query_of_pair()) for ranks, queries in ways)
        )

    def picture_rows(self) -> "Rows":
        """Rows of the pictures, by the model as it is now."""
        with _graded():
            return self.encoder.encode_prepared(self.pictures)

    def text_rows(self) -> "Rows":
        """Rows of the texts, by the model as it is now."""
        with _graded():
            return self.encoder.encode_texts(self.collection.texts)

    def digest(self) -> str:
        """Hash of what is asked: equal where the same model gets the same grade."""
        digest = hashlib.blake2b(
            repr((self.collection.texts, self.collection.relevant_images().ids.tolist())).encode(), digest_size=16
        )
        for picture in self.pictures:
            digest.update(picture.data)
        return digest.hexdigest()


@contextmanager
def _graded() -> Iterator[None]:
    """What an encoder refuses to say is no error of the encoder's but a grade that there is not."""
    try:
        yield
    except EncoderError as error:
        raise EvaluationError(str(error)) from error


def _opened(source: ImageSource, *, encoder: "OpenClipEncoder") -> tuple[str, PerceptualHashes, Any] | RetrievalError:
    try:
        data = source.read()
        image = open_image(data, size=encoder.image_size)
    except RetrievalError as error:
        return error
    return content_hash(data), hash_image(image), encoder.prepare(image)

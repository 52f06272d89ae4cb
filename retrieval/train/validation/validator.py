"""The validation pairs of a training run: read once, and ranked by the model as it is after each epoch."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retrieval.errors import EncoderError, EvaluationError
from retrieval.evaluate.collection import Collection, build_collection
from retrieval.images import ImageSource
from retrieval.images.pipeline import read_distinct_images, read_images
from retrieval.metrics import KS, rank
from retrieval.pairs import Pair, Skipped
from retrieval.train.data.near_duplicates import PERCEPTUAL_HASH, PerceptualHashes, hash_image
from retrieval.train.distributed import ProcessGroup
from retrieval.train.model.averaging import Ema, Weights, temporary_weights
from retrieval.train.model.lora import merged_state_dict, unmerged_state_dict
from retrieval.train.model.param_groups import is_frozen, set_train_mode
from retrieval.train.run_folder import RECALL_NAMES
from retrieval.train.validation.comparison import AnswerRanks, QueryRecalls
from retrieval.train.validation.model_selection import Interpolation, select_interpolation

if TYPE_CHECKING:
    from index.vectors import Rows
    from retrieval.encoder.open_clip_encoder import OpenClipEncoder


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Images and texts that are never trained on."""

    encoder: "OpenClipEncoder"  # shares its model with the training
    images: tuple[Any, ...]  # the distinct images, as the encoder's `prepare` returns them
    sources: tuple[ImageSource, ...]  # where each of them is
    content_hashes: tuple[str, ...]  # of each image's bytes
    perceptual_hashes: PerceptualHashes  # of each image, for near-duplicates
    collection: Collection  # which images and texts belong together, and which of them are queries
    skipped: tuple[Skipped, ...]  # images that cannot be read

    @classmethod
    def from_pairs(
        cls,
        pairs: Sequence[Pair],
        encoder: "OpenClipEncoder",
        *,
        threads: int | None,
        progress: Callable[[int, int], None] | None = None,
    ) -> "ValidationSet":
        """Read the pairs' images, as `read_distinct_images` does; the set is empty where none has a caption."""
        prepared: dict[str, tuple[PerceptualHashes, Any]] = {}
        captioned = [index for index, pair in enumerate(pairs) if pair.captions]
        distinct = read_distinct_images(
            [pairs[index].image for index in captioned],
            lambda files, wanted: read_images(
                files,
                lambda image: (hash_image(image), encoder.prepare(image)),
                size=encoder.image_size,
                wanted=wanted,
                threads=threads,
            ),
            receive=prepared.__setitem__,
            progress=progress,
        )
        image_of_pair = np.full(len(pairs), -1)
        image_of_pair[captioned] = distinct.numbers
        images = [prepared[content] for content in distinct.contents]
        return cls(
            encoder,
            images=tuple(image for _, image in images),
            sources=distinct.sources,
            content_hashes=distinct.contents,
            perceptual_hashes=np.array([hashes for hashes, _ in images], PERCEPTUAL_HASH),
            collection=build_collection(pairs, image_of_pair, images=len(images)),
            skipped=tuple(Skipped(source.name, reason) for source, reason in distinct.failures),
        )

    def rank_answers(self, *, images: "Rows | None" = None, texts: "Rows | None" = None) -> AnswerRanks | None:
        """Rank the answers to every query by the model as it is, in eval mode; None without pairs.

        Ranks are those of `evaluate`, except that images without a caption are not among the answers. Rows that are
        passed in are not computed again. Non-finite embeddings are an EvaluationError: the weights have diverged.
        """
        if not self.images:
            return None
        right = self.collection.relevant_images()
        images = self.embed_images() if images is None else images
        texts = self.embed_texts() if texts is None else texts
        return AnswerRanks(
            text_to_image=rank(texts, images, right).take(self.collection.item_texts.ids),
            image_to_text=rank(images, texts, right.transpose()).take(self.collection.item_images.ids),
        )

    def sanity_forward(self, *, images: bool) -> None:
        """Embed a text and perhaps an image, as a check without pairs; non-finite rows are an EvaluationError."""
        gray = Image.new("RGB", (self.encoder.image_size, self.encoder.image_size), "gray")
        with _as_evaluation_error():
            self.encoder.encode_texts(["a"])
            self.encoder.encode_images([gray] * images)

    def query_recalls(self, ranks: AnswerRanks) -> QueryRecalls:
        """Recall of each query at each K."""
        texts, images = self.collection.item_texts.query_of_pair(), self.collection.item_images.query_of_pair()
        directions = (ranks.text_to_image, texts), (ranks.image_to_text, images)
        return QueryRecalls(
            tuple((np.stack([found.recall(k) for k in KS], axis=1), items) for found, items in directions)
        )

    def embed_images(self) -> "Rows":
        """Rows of the images, by the model as it is."""
        with _as_evaluation_error():
            return self.encoder.encode_prepared(self.images)

    def embed_texts(self) -> "Rows":
        """Rows of the texts, by the model as it is."""
        with _as_evaluation_error():
            return self.encoder.encode_texts(self.collection.texts)

    def digest(self) -> str:
        """Hash of queries and answers: equal where the same model gets the same recall."""
        digest = hashlib.blake2b(
            repr((self.collection.texts, self.collection.relevant_images().ids.tolist())).encode(), digest_size=16
        )
        for image in self.images:
            digest.update(image.data)
        return digest.hexdigest()


@dataclass(slots=True)
class Validator:
    """Evaluates a model during training: in the main process, which broadcasts the recalls to the others."""

    model: Any
    validation_set: ValidationSet
    process_group: ProcessGroup
    ema: Ema | None
    _frozen_rows: dict[str, "Rows"] = field(default_factory=dict)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Context in which the model has the moving average of its weights, where there is one."""
        return nullcontext() if self.ema is None else temporary_weights(self.model, self.ema.weights)

    def evaluate(self, *, save_ranks_to: Path | None = None) -> dict[str, float]:
        """Recall of the model as it is, empty without validation pairs; the ranks of the answers go to a file."""
        recalls = self._query_recalls(save_ranks_to) if self.process_group.is_main else None
        set_train_mode(self.model)
        return self._broadcast_means(recalls)

    def interpolate(self, start: Weights, alphas: Sequence[float]) -> tuple[Interpolation, dict[str, float]]:
        """The best interpolation between the start and the model as it is, and its recall; weights in main only."""
        with self.averaged_weights():
            tuned = {name: tensor.clone() for name, tensor in merged_state_dict(self.model).items()}
        if not self.process_group.is_main:
            alpha, *_ = self.process_group.broadcast_values([0.0])
            return Interpolation(alpha, {}, None), self._broadcast_means(None)

        def evaluate(weights: Weights) -> QueryRecalls | None:
            with temporary_weights(self.model, unmerged_state_dict(self.model, weights)):
                return self._query_recalls()

        chosen = select_interpolation(start, tuned, alphas=alphas, evaluate=evaluate)
        self.process_group.broadcast_values([chosen.alpha])
        return chosen, self._broadcast_means(chosen.recalls)

    def _broadcast_means(self, recalls: QueryRecalls | None) -> dict[str, float]:
        if not self.validation_set.images:
            return {}
        names = (*RECALL_NAMES, "mean_recall")
        means = {} if recalls is None else recalls.means()
        values = self.process_group.broadcast_values([means.get(name, 0.0) for name in names])
        return dict(zip(names, values, strict=True))

    def _query_recalls(self, save_ranks_to: Path | None = None) -> QueryRecalls | None:
        self.model.eval()
        ranks = self.validation_set.rank_answers(**self._embed_frozen())
        if ranks is None:
            self.validation_set.sanity_forward(images=not is_frozen(self.model, "image"))
        set_train_mode(self.model)
        if ranks is not None and save_ranks_to is not None:
            ranks.save(save_ranks_to)
        return None if ranks is None else self.validation_set.query_recalls(ranks)

    def _embed_frozen(self) -> dict[str, "Rows"]:
        """Rows of the validation pairs by frozen towers, computed at the first evaluation only."""
        if not self._frozen_rows and self.validation_set.images:
            if is_frozen(self.model, "image"):
                self._frozen_rows["images"] = self.validation_set.embed_images()
            if is_frozen(self.model, "text"):
                self._frozen_rows["texts"] = self.validation_set.embed_texts()
        return self._frozen_rows


@contextmanager
def _as_evaluation_error() -> Iterator[None]:
    """Report non-finite embeddings as an EvaluationError: the weights diverged, the encoder works."""
    try:
        yield
    except EncoderError as error:
        raise EvaluationError(str(error)) from error

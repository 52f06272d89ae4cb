"""What a training run achieved: the saved model, evaluated once more, beside the start."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from retrieval.encoder import load_encoder
from retrieval.pairs import Skipped
from retrieval.train.validation.comparison import DIRECTIONS, AnswerRanks, Comparison, compare_recalls, conclude
from retrieval.train.validation.leakage import Leakage

if TYPE_CHECKING:
    from index.vectors import Rows
    from retrieval.train.loop.trainer import Trainer


_SHOWN: Final = {f"{name} R@10": f"{way}_recall@10" for way, name in DIRECTIONS.items()}


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training run achieved."""

    run: Path  # the folder; `load_encoder` takes it
    steps: int  # number of steps taken in all
    images: int  # number of distinct images trained on
    held_out: int  # number of distinct images validated on
    loss: float  # of the last step
    # recall on the validation pairs before the first step, by the names of `RECALL_NAMES`; empty without validation
    before: Mapping[str, float]
    best: Mapping[str, float]  # recall of the saved model
    best_step: int  # the step after which that model was reached
    # the weight of the fine-tuned model in the saved one, where that is an interpolation with the start
    alpha: float | None
    seconds: float  # duration of this call
    skipped: tuple[Skipped, ...]  # rows and images that could not be used, and why
    # each recall of the start and of the saved model, with intervals, by the same names; empty without validation
    comparisons: Mapping[str, Comparison]
    leakage: Leakage  # what validation shares with training

    @property
    def conclusion(self) -> str:
        """One line that says whether training helped, or why that is unknown."""
        reason = "nothing was held out to validate on (there are too few images, or validation was turned off)"
        if self.held_out:
            reason = "the ranks of the starting model were not saved"
        return conclude(self.comparisons, best_step=self.best_step, why_unknown=reason)

    @property
    def warnings(self) -> list[str]:
        """What leaked from training into validation, where anything did."""
        leaked = f"Validation shares {self.leakage} with training, so its figures are too good."
        return [leaked] if self.leakage else []

    def summary(self) -> str:
        """Lines: what was trained on, what leaked, and as the last one the conclusion."""
        line = f"{self.run}: {self.steps} steps on {self.images} images, loss {self.loss:.3f}"
        mix = f", {self.alpha:.0%} of the way from the start," if self.alpha else ""
        if not self.held_out:
            line += f"; not validated: the last model{mix} is kept"
        else:
            pairs = {name: (self.before[key], self.best[key]) for name, key in _SHOWN.items()}
            recalls = [f"{name} {100 * before:.1f} → {100 * best:.1f}" for name, (before, best) in pairs.items()]
            line += f"; on {self.held_out} held-out images {', '.join(recalls)} (step {self.best_step}{mix} is kept)"
        return "\n".join([line, *self.warnings, self.conclusion])


@dataclass(frozen=True, slots=True)
class Evaluations:
    """The validation set ranked before and after training, and the saved model's rows of its images and texts."""

    before: AnswerRanks
    after: AnswerRanks
    images: "Rows"
    texts: "Rows"


def evaluate_saved_model(trainer: "Trainer") -> Evaluations | None:
    """Evaluate the saved model on the pairs that the start was evaluated on; None where either is missing."""
    before = AnswerRanks.load(trainer.folder.starting_ranks)
    if before is None or not trainer.validation_set.images:
        return None
    encoder = cast("Any", load_encoder(str(trainer.folder.path), device=trainer.device))
    validation_set = replace(trainer.validation_set, encoder=encoder)
    images, texts = validation_set.embed_images(), validation_set.embed_texts()
    after = cast("AnswerRanks", validation_set.rank_answers(images=images, texts=texts))
    return Evaluations(before, after, images, texts)


def make_result(
    trainer: "Trainer", evaluations: Evaluations | None, *, skipped: tuple[Skipped, ...], seconds: float
) -> TrainResult:
    """The result of a finished run; `skipped` is what the reader of its pairs left out already."""
    collection = trainer.validation_set.collection
    return TrainResult(
        run=trainer.folder.path,
        steps=trainer.step,
        images=len(trainer.dataset.images),
        held_out=len(trainer.validation_set.images),
        loss=trainer.loss,
        before=trainer.before,
        best=trainer.best,
        best_step=trainer.best_step,
        alpha=trainer.alpha,
        seconds=seconds,
        skipped=(*skipped, *trainer.image_cache.skipped, *trainer.validation_set.skipped),
        comparisons={} if evaluations is None else compare_recalls(evaluations.before, evaluations.after, collection),
        leakage=Leakage.measure(trainer.validation_set, trainer.dataset, trainer.image_cache),
    )

"""What a training run came to: the kept model, graded once more, beside the start."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from retrieval.encoder import load_encoder
from retrieval.pairs import Skipped
from retrieval.train.validation.comparison import Change, Places, changes, verdict
from retrieval.train.validation.leakage import Leakage

if TYPE_CHECKING:
    from index.vectors import Rows
    from retrieval.train.loop.trainer import Trainer


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training run came to.

    Attributes:
        run: the folder; `load_encoder` takes it.
        steps: how many were taken in all.
        pictures: how many distinct ones were learned from.
        held_out: how many distinct ones validated.
        loss: of the last step.
        before: recall on the validation pairs before the first step, under the names of `metrics.recall_both_ways`;
            empty without validation.
        best: recall of the model that was kept.
        best_step: when that was.
        alpha: the share of the tuned weights in the model that was kept, where it is a mix of them and the start's.
        seconds: that this call took.
        skipped: rows and pictures that could not be learned from or validate, and why.
        changes: what became of each recall from the start to the kept model, with intervals, by the same names; empty
            without validation.
        leakage: what validation shares with training.
    """

    run: Path
    steps: int
    pictures: int
    held_out: int
    loss: float
    before: Mapping[str, float]
    best: Mapping[str, float]
    best_step: int
    alpha: float | None
    seconds: float
    skipped: tuple[Skipped, ...]
    changes: Mapping[str, Change]
    leakage: Leakage

    @property
    def verdict(self) -> str:
        """In words, on one line, whether training helped, or that it cannot be told."""
        why_not = "nothing was held out to validate on (too few pictures, or told not to)"
        if self.held_out:
            why_not = "how the start did was not kept"
        return verdict(self.changes, best_step=self.best_step, why_not=why_not)

    def summary(self) -> str:
        """Lines: what was learned from, what leaked, and as the last one the verdict."""
        leaked = [f"validation shares {self.leakage} with training: its figures are too good"] if self.leakage else []
        return "\n".join([self._course(), *leaked, self.verdict])

    def _course(self) -> str:
        line = f"{self.run}: {self.steps} steps on {self.pictures} pictures, loss {self.loss:.3f}"
        if not self.held_out:
            kept = f"the last model, {self.alpha:.0%} of the way from the start," if self.alpha else "the last model"
            return f"{line}; not validated: {kept} is kept"
        ways = {"text→image": "text_to_image_recall@10", "image→text": "image_to_text_recall@10"}
        recalls = [f"{way} R@10 {100 * self.before[key]:.1f} → {100 * self.best[key]:.1f}" for way, key in ways.items()]
        mix = f", {self.alpha:.0%} of the way from the start," if self.alpha else ""
        return f"{line}; on {self.held_out} held-out pictures {', '.join(recalls)} (step {self.best_step}{mix} is kept)"


@dataclass(frozen=True, slots=True)
class Exams:
    """The validation pairs before and after: where every right answer came, and what the kept model makes of all.

    Attributes:
        before: at the start.
        after: by the kept model, loaded as anyone loads it.
        pictures: (n, d) its rows of the pictures.
        texts: (t, d) its rows of the texts.
    """

    before: Places
    after: Places
    pictures: "Rows"
    texts: "Rows"

    @classmethod
    def of(cls, trainer: "Trainer") -> "Exams | None":
        """Grade the kept model on the pairs that the start was graded on; None without either."""
        before = Places.read(trainer.folder.places)
        if before is None or not trainer.exam.pictures:
            return None
        encoder = cast("Any", load_encoder(str(trainer.folder.path), device=trainer.device))
        exam = replace(trainer.exam, encoder=encoder)
        pictures, texts = exam.picture_rows(), exam.text_rows()
        return cls(before, cast("Places", exam.places(pictures=pictures, texts=texts)), pictures, texts)


def result_of(trainer: "Trainer", exams: Exams | None, *, refused: tuple[Skipped, ...], seconds: float) -> TrainResult:
    """The result of a run that is at its end; `refused` is what the reader of its pairs left out already."""
    collection = trainer.exam.collection
    return TrainResult(
        run=trainer.folder.path,
        steps=trainer.step,
        pictures=len(trainer.dataset.images),
        held_out=len(trainer.exam.pictures),
        loss=trainer.loss,
        before=trainer.before,
        best=trainer.best,
        best_step=trainer.best_step,
        alpha=trainer.alpha,
        seconds=seconds,
        skipped=(*refused, *trainer.image_cache.skipped, *trainer.exam.skipped),
        changes={} if exams is None else changes(exams.before, exams.after, collection),
        leakage=Leakage.of(trainer.exam, trainer.dataset, trainer.image_cache),
    )

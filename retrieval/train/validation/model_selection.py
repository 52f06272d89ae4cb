"""How the model of a run does on the validation pairs, and what mix of its start and its end does best."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from torch import Tensor

from retrieval.metrics.intervals import bootstrap_means
from retrieval.train.distributed import ProcessGroup
from retrieval.train.model.averaging import Ema, Weights, interpolate_weights, temporary_weights
from retrieval.train.model.lora import merged_state_dict, unmerged_state_dict
from retrieval.train.model.param_groups import is_frozen, set_train_mode
from retrieval.train.run_folder import RECALLS
from retrieval.train.validation.validator import Exam, Marks

if TYPE_CHECKING:
    from index.vectors import Rows

_RESAMPLES: Final = 400
_CONFIDENCE: Final = 1.96  # standard errors on either side are the 95 % interval


@dataclass(frozen=True, slots=True)
class Interpolation:
    """Weights between the start and the end of a run, and their evaluation; None without validation pairs."""

    alpha: float
    weights: dict[str, Tensor]
    marks: "Marks | None"


@dataclass(slots=True)
class Judge:
    """Grades a model that is being trained; the leading process does, and the others hear of it."""

    model: Any
    exam: Exam
    process_group: ProcessGroup
    ema: Ema | None
    _known: dict[str, "Rows"] = field(default_factory=dict)

    def averaged(self) -> AbstractContextManager[None]:
        """The model with the average of its weights in place of the newest, where there is one."""
        return nullcontext() if self.ema is None else temporary_weights(self.model, self.ema.weights)

    def recalls(self, *, keep: Path | None = None) -> dict[str, float]:
        """Recall of the model as it is now, empty without validation pairs; the places of all answers go to a file."""
        marks = self._marks(keep) if self.process_group.is_main else None
        set_train_mode(self.model)
        return self._told(marks)

    def best_mix(self, start: Weights, alphas: Sequence[float]) -> tuple[Interpolation, dict[str, float]]:
        """The mix of the start and the model as it is now that is to be kept, of these shares, and its recall."""
        with self.averaged():
            tuned = {name: tensor.clone() for name, tensor in merged_state_dict(self.model).items()}
        if not self.process_group.is_main:
            share, *_ = self.process_group.broadcast_values([0.0])
            return Interpolation(share, {}, None), self._told(None)
        mix = select_interpolation(start, tuned, alphas=alphas, evaluate=self._graded)
        self.process_group.broadcast_values([mix.alpha])
        return mix, self._told(mix.marks)

    def _told(self, marks: Marks | None) -> dict[str, float]:
        if not self.exam.pictures:
            return {}
        names = (*RECALLS, "mean_recall")
        recalls = {} if marks is None else marks.recalls()
        return dict(
            zip(names, self.process_group.broadcast_values([recalls.get(name, 0.0) for name in names]), strict=True)
        )

    def _graded(self, weights: Weights) -> Marks | None:
        with temporary_weights(self.model, unmerged_state_dict(self.model, weights)):
            return self._marks()

    def _marks(self, keep: Path | None = None) -> Marks | None:
        self.model.eval()
        places = self.exam.places(**self._frozen_rows())
        if places is None:
            self.exam.probe(images=not is_frozen(self.model, "image"))
        set_train_mode(self.model)
        if places is None:
            return None
        if keep is not None:
            places.write(keep)
        return self.exam.marked(places)

    def _frozen_rows(self) -> dict[str, "Rows"]:
        """What a frozen tower makes of the validation pairs: computed at the first grade, and kept."""
        if not self._known and self.exam.pictures:
            if is_frozen(self.model, "image"):
                self._known["pictures"] = self.exam.picture_rows()
            if is_frozen(self.model, "text"):
                self._known["texts"] = self.exam.text_rows()
        return self._known


def select_interpolation(
    start: Weights, tuned: Weights, *, alphas: Sequence[float], evaluate: Callable[[Weights], Marks | None]
) -> Interpolation:
    """Return the interpolation to keep: of ascending `alphas` the greatest that is as good as the best."""
    evaluated = [evaluate(interpolate_weights(start, tuned, alpha)) for alpha in alphas]
    known = [marks for marks in evaluated if marks is not None]
    place = select_last_equal(known) if known else len(alphas) - 1
    return Interpolation(alphas[place], interpolate_weights(start, tuned, alphas[place]), evaluated[place])


def select_last_equal(marks: Sequence[Marks]) -> int:
    """Return the last of several evaluated models, by ascending alpha, that is as good as the best.

    As good means that the 95 % interval of the paired difference in mean recall, resampled by item, holds zero. Few
    validation pairs tell little apart, and what was learned is worth more to the user than what a smaller alpha keeps
    beyond: none of the alphas forgets much.
    """
    best = max(range(len(marks)), key=lambda place: marks[place].mean)
    for place, one in reversed(list(enumerate(marks))):
        if marks[best].mean - one.mean <= _CONFIDENCE * paired_standard_error(one, marks[best]):
            return place
    return best


def paired_standard_error(one: Marks, other: Marks) -> float:
    """Return the standard error of the difference in mean recall of two models on the same queries."""
    count = 1 + max(int(items.max()) for _, items in one.ways)
    samples = [
        bootstrap_means((theirs - ours).mean(axis=1), items, count=count, resamples=_RESAMPLES, seed=0)
        for (ours, items), (theirs, _) in zip(one.ways, other.ways, strict=True)
    ]
    return float(np.nanstd(np.mean(samples, axis=0)))

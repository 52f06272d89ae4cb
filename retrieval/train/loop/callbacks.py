"""What a training run tells whoever watches it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Progress = Callable[[int, int, float, float], None]


@dataclass(frozen=True, slots=True)
class Watch:
    """Calls that a run makes on the thread that trains.

    Attributes:
        progress: after each step, with (step, steps, loss, pairs per second).
        opened: while pictures are opened before the first step, with (done, total); the ones to learn from first, then
            those that validate.
        kept: while pictures, and then texts, of frozen towers are encoded for the whole run, with (done, total).
        graded: before the first step and after each epoch, with the recalls by the names of
            `metrics.recall_both_ways`; empty without validation.
    """

    progress: Progress = lambda _step, _steps, _loss, _rate: None
    opened: Callable[[int, int], None] = lambda _done, _total: None
    kept: Callable[[int, int], None] = lambda _done, _total: None
    graded: Callable[[Mapping[str, float]], None] = lambda _recalls: None

"""What a training run reports while it runs: to callbacks of the caller, and to TensorBoard."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from retrieval.errors import TrainingError

StepCallback = Callable[[int, int, float, float], None]
ProgressCallback = Callable[[int, int], None]

_NOT_PLOTTED: Final = frozenset({"step", "epoch"})


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Functions that a run calls on the thread that trains."""

    # after each step, with (step, steps, loss, pairs per second)
    on_step: StepCallback = lambda _step, _steps, _loss, _rate: None
    # while images are read before the first step, with (done, total): first those to train on, then those to validate
    # on
    on_images_read: ProgressCallback = lambda _done, _total: None
    # while images, and then texts, go through frozen towers once for the whole run, with (done, total)
    on_precomputed: ProgressCallback = lambda _done, _total: None
    # before the first step and after each epoch, with the recalls by the names of `RECALL_NAMES`; empty without
    # validation pairs
    on_validation: Callable[[Mapping[str, float]], None] = lambda _recalls: None


def require_tensorboard() -> None:
    """Raise a TrainingError where TensorBoard's package is not installed."""
    if find_spec("tensorboard") is None:
        raise TrainingError(
            "Logging to TensorBoard needs its package. Run `pip install tensorboard`, or train without: log.csv and"
            " report.html show the same."
        )


class TensorBoardWriter:
    """Writes rows of the log for TensorBoard, those of training and of validation under separate headings."""

    def __init__(self, folder: Path, *, step: int) -> None:
        """Continue in a folder after this step: later ones that an earlier process wrote no longer count."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows, and flush them to disk."""
        for row in rows:
            for name, value in row.items():
                if name not in _NOT_PLOTTED:
                    part = "validation" if "recall" in name else "training"
                    self._writer.add_scalar(f"{part}/{name}", value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

"""The log of a run once more, as TensorBoard reads it."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from retrieval.errors import TrainingError

_NO_FIGURES: Final = frozenset({"step", "epoch"})


def check_events() -> None:
    """Pass where TensorBoard is installed.

    Raises:
        TrainingError: it is not.
    """
    if find_spec("tensorboard") is None:
        raise TrainingError(
            "logs for TensorBoard need its package: pip install tensorboard, or train without (training/log.csv and"
            " report.html say the same)"
        )


class Events:
    """Writes rows of the log, the training's figures and those of validation apart."""

    def __init__(self, folder: Path, *, step: int) -> None:
        """Go on in a folder after this step: what an earlier process wrote of later ones no longer counts."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows, and see that they are on the disk."""
        for row in rows:
            for name, value in row.items():
                if name not in _NO_FIGURES:
                    part = "validation" if "recall" in name else "training"
                    self._writer.add_scalar(f"{part}/{name}", value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._writer.close()

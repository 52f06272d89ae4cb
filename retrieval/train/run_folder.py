"""A training run's folder: the best model so far in open_clip's own layout, and beside it what resuming needs."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from retrieval.errors import OtherRunError, TrainingError
from retrieval.files import write_atomically
from retrieval.metrics import KS
from retrieval.train.config import TrainConfig
from retrieval.train.defaults import apply_defaults, find_differences

RECALL_NAMES: Final = tuple(f"{way}_recall@{k}" for way in ("text_to_image", "image_to_text") for k in KS)
LOG_COLUMNS: Final = (
    *("step", "epoch", "loss", "learning_rate", "scale", "pairs_per_second"),
    *(*RECALL_NAMES, "mean_recall"),
)


class _File:
    """A path inside a run's folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "RunFolder", _owner: type) -> Path:
        return folder.path / self._name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`path` holds the model and report.html, `path/training` everything else; names on disk are those of 0.1.0.

    Attributes:
        config: The settings, as JSON.
        checkpoint: The last checkpoint: model, optimizer and progress.
        starting_weights: The weights that the run started from, where its result is interpolated with them.
        log: A row for each step; those that end an epoch have the recall on the validation pairs.
        tensorboard: The folder of the log as TensorBoard reads it.
        starting_ranks: The ranks of the answers to the validation queries at the start: `comparison.AnswerRanks`.
        held_out: The ids of the pairs that were held out for validation, where training drew them itself.
        report: The page that says whether training helped.
    """

    path: Path
    training = _File("training")
    config = _File("training/config.json")
    checkpoint = _File("training/state.safetensors")
    starting_weights = _File("training/start.safetensors")
    log = _File("training/log.csv")
    tensorboard = _File("training/tensorboard")
    starting_ranks = _File("training/start_places.npz")
    held_out = _File("training/held_out.json")
    report = _File("report.html")

    def check(self, config: TrainConfig, *, resume: bool) -> None:
        """Raise a TrainingError unless the folder is new, empty, or, when resuming, a run with the same config.

        Another config is an OtherRunError.
        """
        if not self.config.is_file():
            if self.path.exists() and (not self.path.is_dir() or any(map(_is_foreign, self.path.rglob("*")))):
                raise TrainingError(
                    f"{self.path} holds something other than a training run. Choose a new or an empty folder."
                )
            return
        if not resume:
            raise TrainingError(f"{self.path} already holds a training run. Resume it, or choose another folder.")
        changed = find_differences(config, apply_defaults(self.read_config()))
        if changed:
            raise OtherRunError(
                f"{self.path} was begun with {'; with '.join(changed)}. Resume with the old settings, which need not be"
                " repeated, or choose another folder."
            )

    def read_config(self) -> TrainConfig:
        """The config that the run was begun with; a TrainingError where it cannot be read."""
        try:
            return TrainConfig.from_json(self.config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"The settings in {self.config} cannot be read: {error}.") from error

    def begin(self, config: TrainConfig, *, step: int) -> None:
        """Write the config, and cut the log back to this step, so that no step is logged twice."""
        self.training.mkdir(parents=True, exist_ok=True)
        write_atomically(self.config, lambda path: path.write_text(config.to_json(), encoding="utf-8"))
        file = StringIO()
        table = csv.DictWriter(file, LOG_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(row for row in self.read_log() if int(row["step"]) <= step)
        write_atomically(self.log, lambda path: path.write_text(file.getvalue(), encoding="utf-8"))

    def write_held_out(self, ids: Iterable[str]) -> None:
        """Write the ids of the pairs that were held out, for `read_held_out`."""
        text = json.dumps(sorted(set(ids)), ensure_ascii=False, indent=0)
        write_atomically(self.held_out, lambda path: path.write_text(text + "\n", encoding="utf-8"))

    def read_held_out(self) -> frozenset[str]:
        """The ids of the pairs that were held out, if any; a TrainingError where the file is damaged."""
        if not self.held_out.is_file():
            return frozenset()
        try:
            return frozenset(json.loads(self.held_out.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(
                f"{self.held_out} is damaged ({error}). Delete it to evaluate on all of the pairs."
            ) from error

    def read_log(self) -> list[dict[str, str]]:
        """The rows of the log; recalls are empty within an epoch. A last line cut short by a kill is left out."""
        if not self.log.is_file():
            return []
        complete = self.log.read_text(encoding="utf-8").rpartition("\n")[0]
        return list(csv.DictReader(complete.splitlines()))

    def append_log(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows to the log."""
        with self.log.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, LOG_COLUMNS, lineterminator="\n").writerows(rows)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only process that trains in the folder, which is created; one that stays empty is removed again.

        The lock ends with the process, however that ends. Where another process has it, or the folder cannot be
        written, that is a TrainingError.
        """
        path = self.training / "lock"
        created = [folder for folder in (self.training, self.path) if not folder.exists()]
        lock = FileLock(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
            path.write_text(f"{os.getpid()}\n", encoding="ascii")
        except Timeout as error:
            process = path.read_text(encoding="ascii", errors="replace").strip() or "unknown"
            raise TrainingError(
                f"Another training is running in {self.path} (process {process}). Wait until it ends, or choose another"
                " folder."
            ) from error
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written: {error.strerror}. Choose another folder.") from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            lock.release()
            for folder in created:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()


def _is_foreign(path: Path) -> bool:
    """Whether this is a file, and none that a kill leaves of a run without a config."""
    unfinished = path.name.startswith(".") and path.suffix == ".tmp"
    return path.is_file() and not unfinished and (path.parent.name, path.name) != ("training", "lock")

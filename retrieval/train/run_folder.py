"""A training run's folder: the best model so far in open_clip's own layout, and beside it what resuming needs."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from retrieval.errors import OtherRunError, TrainingError
from retrieval.files import write_atomically
from retrieval.metrics import KS
from retrieval.train.config import TrainConfig
from retrieval.train.defaults import differences, with_defaults
from retrieval.train.run_lock import LOCK_FILE

RECALLS: Final = tuple(f"{way}_recall@{k}" for way in ("text_to_image", "image_to_text") for k in KS)
LOG_COLUMNS: Final = ("step", "epoch", "loss", "learning_rate", "scale", "pairs_per_second", *RECALLS, "mean_recall")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`path` holds the model; `path/training` holds config.json, state.safetensors, start_places.npz and log.csv."""

    path: Path

    @property
    def config(self) -> Path:
        """How the run is set up."""
        return self.path / "training" / "config.json"

    @property
    def state(self) -> Path:
        """The last checkpoint: model, optimizer, and how far it came."""
        return self.path / "training" / "state.safetensors"

    @property
    def start(self) -> Path:
        """The weights that the run started from, where its result is mixed with them."""
        return self.path / "training" / "start.safetensors"

    @property
    def log(self) -> Path:
        """A line for each step, those of finished epochs with recall on the validation pairs."""
        return self.path / "training" / "log.csv"

    @property
    def events(self) -> Path:
        """The log as TensorBoard reads it."""
        return self.path / "training" / "tensorboard"

    @property
    def places(self) -> Path:
        """Where the right answers to the validation pairs came before the first step: `verdict.Places`."""
        return self.path / "training" / "start_places.npz"

    @property
    def held_out(self) -> Path:
        """The ids of the pairs that were kept out of training to validate on, where training drew them itself."""
        return self.path / "training" / "held_out.json"

    @property
    def report(self) -> Path:
        """The page that says whether training helped."""
        return self.path / "report.html"

    def check(self, config: TrainConfig, *, resume: bool) -> None:
        """Pass where the folder is new or empty or, on resuming, holds a run of the same config.

        Raises:
            OtherRunError: it holds a run of another config.
            TrainingError: anything else; the message says what to do.
        """
        if self.config.is_file():
            self._check_run(config, resume=resume)
        elif self.path.exists() and (not self.path.is_dir() or any(map(_is_file, self.path.rglob("*")))):
            raise TrainingError(f"{self.path} holds something else than a training run; name a new or an empty folder")

    def _check_run(self, config: TrainConfig, *, resume: bool) -> None:
        if not resume:
            raise TrainingError(f"{self.path} holds a training run; resume it, or name another folder")
        changed = differences(config, with_defaults(self.begun()))
        if changed:
            raise OtherRunError(
                f"{self.path} was begun with {'; with '.join(changed)}; resume with the old settings, which need not be"
                " named, or name another folder"
            )

    def begun(self) -> TrainConfig:
        """The config that the run was begun with.

        Raises:
            TrainingError: it cannot be read.
        """
        try:
            return TrainConfig.from_json(self.config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"the settings in {self.config} cannot be read: {error}") from error

    def begin(self, config: TrainConfig, *, step: int) -> None:
        """Write the config, and leave of the log what came up to this step, so that what follows is not there twice."""
        self.config.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.config, lambda path: path.write_text(config.to_json(), encoding="utf-8"))
        rows = [row for row in self.logged() if int(row["step"]) <= step]
        write_atomically(self.log, lambda path: _write_rows(path, rows))

    def keep_held_out(self, ids: Iterable[str]) -> None:
        """Write which pairs were kept out, for `held_out_ids`."""
        text = json.dumps(sorted(set(ids)), ensure_ascii=False, indent=0)
        write_atomically(self.held_out, lambda path: path.write_text(text + "\n", encoding="utf-8"))

    def held_out_ids(self) -> frozenset[str]:
        """The ids of the pairs that were kept out of training; empty where none were, or where pairs were handed in.

        Raises:
            TrainingError: what the run wrote of them is damaged.
        """
        if not self.held_out.is_file():
            return frozenset()
        try:
            return frozenset(json.loads(self.held_out.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(f"{self.held_out} is damaged ({error}); without it all pairs are measured") from error

    def logged(self) -> list[dict[str, str]]:
        """The log's rows; empty strings where a step has no recall. A last line that a kill cut short is left out."""
        if not self.log.is_file():
            return []
        whole = self.log.read_text(encoding="utf-8").rpartition("\n")[0]
        return list(csv.DictReader(whole.splitlines()))

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows to the log."""
        with self.log.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, LOG_COLUMNS, lineterminator="\n").writerows(rows)


def _is_file(path: Path) -> bool:
    """Whether there is a file that is none of ours which a kill leaves."""
    unfinished = path.name.startswith(".") and path.suffix == ".tmp"
    return path.is_file() and not unfinished and (path.parent.name, path.name) != ("training", LOCK_FILE)


def _write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, LOG_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)

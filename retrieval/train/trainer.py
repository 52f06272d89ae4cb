"""The steps of a training run, with their checkpoints, log and validation."""

import math
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from retrieval.encoder.open_clip_models import Checkpoint, save_run
from retrieval.encoder.text_towers import causal_tower, encode_cut, used_lengths
from retrieval.errors import RetrievalError, TrainingError
from retrieval.images import ahead, cores
from retrieval.train.album import Album
from retrieval.train.batches import Schedule
from retrieval.train.checkpoints import load_state, save_state
from retrieval.train.config import TrainConfig
from retrieval.train.crops import Crops
from retrieval.train.exam import Exam
from retrieval.train.lessons import Exercise, Lessons, Teacher
from retrieval.train.losses import contrastive
from retrieval.train.run import RunFolder

Progress = Callable[[int, int, float, float], None]

_BETAS: Final = (0.9, 0.98)  # and epsilon: CLIP's (Radford et al. 2021, table 18)
_EPSILON: Final = 1e-6
_HIGHEST_SCALE: Final = 100.0  # of the inverse temperature, as in CLIP (section 2.5)
_SMOOTHING: Final = 0.9  # of the speed that is shown
_EVEN_TEXTS: Final = 32  # texts that are encoded together at least, so that short ones need not wait for long ones


@dataclass(slots=True)
class Trainer:
    """A run under way."""

    folder: RunFolder
    config: TrainConfig
    checkpoint: Checkpoint
    album: Album
    lessons: Lessons
    crops: Crops
    exam: Exam
    step: int = 0
    loss: float = math.nan
    before: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    schedule: Schedule = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    _rows: list[dict[str, object]] = field(default_factory=list)
    _speed: float = 0.0
    _saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        counts = [len(captions) for captions in self.lessons.captions]
        self.schedule = Schedule(counts, cast("int", self.config.batch_size), self.config.seed)
        self.optimizer = _optimizer(self.model, weight_decay=cast("float", self.config.weight_decay))

    @property
    def model(self) -> Any:
        """The model, which the exam's encoder shares."""
        return self.checkpoint.model

    @property
    def device(self) -> str:
        """Where the model is."""
        return self.exam.encoder.device

    @property
    def steps(self) -> int:
        """How many the whole run has."""
        return cast("int", self.config.epochs) * self.schedule.steps_per_epoch

    def restore(self) -> None:
        """Go back to the last checkpoint.

        Raises:
            TrainingError: it cannot be read, or was made on other pairs.
        """
        facts = load_state(self.folder.state, model=self.model, optimizer=self.optimizer)
        if facts["pairs"] != self._digests():
            raise TrainingError(
                f"{self.folder.path} was begun with other pictures or texts; resume with those, or name another folder"
            )
        self.step, self.loss, self.best_step = facts["step"], facts["loss"], facts["best_step"]
        self.before, self.best = facts["before"], facts["best"]
        self.model.train()

    def begin(self) -> None:
        """Write what the folder holds from the first step on, the starting model included."""
        self.folder.begin(self.config, step=self.step)
        if self.step == 0:
            self.before = self.best = self._grade()
            self._keep_model()

    def go_on(self, stop: threading.Event, progress: Progress | None) -> None:
        """Take the steps that are left.

        Raises:
            TrainingError: the loss is no longer finite, or a picture is gone.
            KeyboardInterrupt: `stop` was set; a checkpoint was made.
        """
        exercises = ahead(self._teacher().exercise, range(self.step, self.steps), **self._threads())
        with closing(cast("Generator[Exercise | RetrievalError, None, None]", exercises)):
            since = time.perf_counter()
            for exercise in exercises:
                if isinstance(exercise, RetrievalError):
                    raise exercise
                self._learn(exercise)
                self._note(exercise, seconds=time.perf_counter() - since)
                if progress is not None:
                    progress(self.step, self.steps, self.loss, self._speed)
                self._after_step(stop)
                since = time.perf_counter()
        self._save()

    def _teacher(self) -> Teacher:
        return Teacher(
            self.lessons, self.album, schedule=self.schedule, crops=self.crops, tokenizer=self.checkpoint.tokenizer
        )

    def _threads(self) -> dict[str, int]:
        """On a CPU the model needs the cores itself, unless pictures have to be decoded again."""
        in_memory = len(self.album.framed) == len(self.album.sources)
        threads = self.config.threads or (1 if in_memory and self.device == "cpu" else cores())
        return {"threads": threads, "depth": threads + 2}

    def _learn(self, exercise: Exercise) -> None:
        """Take one step; what chance there is in it depends on the seed and the step alone."""
        torch.manual_seed((self.config.seed * 1_000_003 + exercise.step) % 2**63)
        loss = contrastive(
            functional.normalize(self.model.encode_image(self._pixels(exercise.pixels)), dim=-1),
            functional.normalize(_encode_texts(self.model, exercise.tokens, device=self.device), dim=-1),
            scale=self.model.logit_scale.exp(),
            positives=torch.from_numpy(exercise.positives).to(self.device),
        )
        loss.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        if not torch.isfinite(loss.detach() + norm):
            raise TrainingError(
                f"the loss is no longer finite at step {exercise.step + 1} of {self.steps}; {self.folder.path} keeps "
                "the best model so far; train into another folder with a learning rate below "
                f"{self.config.learning_rate:g}"
            )
        self._move(exercise.step)
        self.step, self.loss = exercise.step + 1, loss.item()

    def _move(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config=self.config, steps=self.steps)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(_HIGHEST_SCALE))

    def _pixels(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """The model's input (b, 3, height, width), with the channels last in memory as the bytes are."""
        preprocess = self.checkpoint.preprocess
        mean, deviation = (
            255 * torch.tensor(preprocess[key], device=self.device).reshape(-1, 1, 1) for key in ("mean", "std")
        )
        return (torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() - mean) / deviation

    def _note(self, exercise: Exercise, *, seconds: float) -> None:
        """Put a row into the log, which is written at the next checkpoint."""
        speed = len(exercise.pixels) / max(seconds, 1e-9)
        self._speed = _SMOOTHING * self._speed + (1 - _SMOOTHING) * speed if self._speed else speed
        self._rows.append(
            {
                "step": self.step,
                "epoch": exercise.epoch + 1,
                "loss": self.loss,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "scale": self.model.logit_scale.exp().item(),
                "pairs_per_second": round(speed, 1),
            }
        )

    def _after_step(self, stop: threading.Event) -> None:
        if self.step % self.schedule.steps_per_epoch == 0:
            self._after_epoch()
        due = time.monotonic() - self._saved_at >= self.config.checkpoint_seconds
        if (due and self.step < self.steps) or stop.is_set():
            self._save()
        if stop.is_set():
            raise KeyboardInterrupt

    def _after_epoch(self) -> None:
        """Validate, and keep the model if it is the best so far; without validation the newest counts as that."""
        recalls = self._grade()
        self._rows[-1].update(recalls)
        if not recalls or recalls["mean_recall"] > self.best["mean_recall"]:
            self.best, self.best_step = recalls, self.step
            self._keep_model()

    def _grade(self) -> dict[str, float]:
        self.model.eval()
        recalls = self.exam.grade()
        self.model.train()
        return recalls

    def _keep_model(self) -> None:
        checkpoint = self.checkpoint
        save_run(
            self.model,
            self.folder.path,
            config=checkpoint.config,
            preprocess=checkpoint.preprocess,
            tokenizer=checkpoint.tokenizer,
        )

    def _save(self) -> None:
        """Make a checkpoint. The log comes first: rows after the checkpoint's step are dropped on resuming."""
        self.folder.append(self._rows)
        self._rows.clear()
        facts = {name: getattr(self, name) for name in ("step", "loss", "before", "best", "best_step")}
        save_state(
            self.folder.state, model=self.model, optimizer=self.optimizer, facts=facts | {"pairs": self._digests()}
        )
        self._saved_at = time.monotonic()

    def _digests(self) -> list[str]:
        return [self.lessons.digest(self.album), self.exam.digest()]


def learning_rate(step: int, *, config: TrainConfig, steps: int) -> float:
    """The learning rate of a step, counted from 0: a straight rise, then half a cosine down to 0 at the end."""
    peak, warm = cast("float", config.learning_rate), max(1, round(cast("float", config.warmup) * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


def _optimizer(model: torch.nn.Module, *, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW that pulls matrices and kernels towards 0, but not biases, norms and the temperature."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": weight_decay},  # noqa: PLR2004 (a matrix)
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},  # noqa: PLR2004 (a vector)
    ]
    return torch.optim.AdamW(groups, betas=_BETAS, eps=_EPSILON, fused=True)


def _encode_texts(model: Any, tokens: NDArray[np.int64], *, device: str) -> torch.Tensor:
    """Rows of texts (b, d). Where padding can be cut off the short half does not wait for the long one."""
    tower = causal_tower(model)
    if tower is None:
        return cast("torch.Tensor", model.encode_text(torch.from_numpy(tokens).to(device)))
    lengths = used_lengths(tower, tokens)
    order = np.argsort(lengths, kind="stable")
    parts = np.array_split(order, 2 if len(order) >= 2 * _EVEN_TEXTS else 1)
    rows = [encode_cut(tower, torch.from_numpy(tokens[part, : lengths[part].max()]).to(device)) for part in parts]
    return torch.cat(rows).index_select(0, torch.from_numpy(np.argsort(order)).to(device))

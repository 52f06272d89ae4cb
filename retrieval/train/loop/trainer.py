"""The steps of a training run, with their checkpoints, log and validation."""

import math
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import torch
from safetensors.torch import load_file

from retrieval.concurrency import available_cores
from retrieval.encoder.open_clip_models import Checkpoint, save_run
from retrieval.errors import EvaluationError, OtherRunError, TrainingError
from retrieval.train.checkpoints import load_more, load_state, save_state, save_weights
from retrieval.train.data.dataset import PairDataset
from retrieval.train.data.image_cache import ImageCache
from retrieval.train.data.loader import Batch, BatchLoader
from retrieval.train.data.sampler import BatchSampler
from retrieval.train.data.transforms import Augmentation, TrainTransform
from retrieval.train.defaults import ResolvedConfig
from retrieval.train.distributed import ProcessGroup
from retrieval.train.loop.callbacks import Watch
from retrieval.train.loop.events import Events
from retrieval.train.loop.gradcache import Gradients
from retrieval.train.loop.hard_negatives import Drill
from retrieval.train.loop.precision import Precision
from retrieval.train.model.averaging import Ema, Weights, wise_ft_alphas
from retrieval.train.model.lora import merged_state_dict
from retrieval.train.model.param_groups import create_optimizer, freeze, set_train_mode
from retrieval.train.model.towers import Towers
from retrieval.train.run_folder import RunFolder
from retrieval.train.validation.model_selection import Judge
from retrieval.train.validation.validator import Exam

_SMOOTHING: Final = 0.9  # of the speed that is shown


@dataclass(slots=True)
class Trainer:
    """A run under way."""

    folder: RunFolder
    config: ResolvedConfig
    checkpoint: Checkpoint
    image_cache: ImageCache
    dataset: PairDataset
    transform: TrainTransform
    exam: Exam
    held_out: Sequence[str] = ()  # the ids of the pairs that were split off for the exam
    process_group: ProcessGroup = field(default_factory=ProcessGroup)
    watch: Watch = field(default_factory=Watch)
    step: int = 0
    loss: float = math.nan
    before: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    alpha: float | None = None
    sampler: BatchSampler = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    towers: Towers = field(init=False)
    gradients: Gradients = field(init=False)
    drill: Drill = field(init=False)
    judge: Judge = field(init=False)
    ema: Ema | None = None
    events: Events | None = None
    _rows: list[dict[str, object]] = field(default_factory=list)
    _speed: float = 0.0
    _saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        counts = [len(captions) for captions in self.dataset.captions]
        self.sampler = BatchSampler(counts, self.config.batch_size, self.config.seed, self.dataset.classes)
        freeze(self.model, self.config)
        self.optimizer = create_optimizer(self.model, self.config)
        self.ema = Ema(self.model, decay=self.config.ema) if self.config.ema else None
        self.judge = Judge(self.model, self.exam, self.process_group, self.ema)
        preprocess = self.checkpoint.preprocess
        self.towers = Towers(self.model, device=self.device, mean=preprocess["mean"], std=preprocess["std"])
        self.gradients = Gradients(self.towers, self.config, process_group=self.process_group)
        self.drill = Drill(
            self.config,
            self.dataset,
            self.image_cache,
            self.transform,
            self.exam.encoder,
            self.towers,
            self.process_group,
        )
        self.process_group.check_batch_size(self.sampler.batch_sizes[-1])

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
        return self.config.epochs * self.sampler.steps_per_epoch

    def restore(self) -> None:
        """Go back to the last checkpoint.

        Raises:
            OtherRunError: it was made on other pairs.
            TrainingError: it cannot be read.
        """
        average = self.ema.weights if self.ema else None
        facts = load_state(self.folder.state, model=self.model, optimizer=self.optimizer, average=average)
        if facts["pairs"] != self._digests():
            raise OtherRunError(
                f"{self.folder.path} was begun with other pictures or texts; resume with those, or name another folder"
            )
        self.step, self.loss, self.best_step = facts["step"], facts["loss"], facts["best_step"]
        self.gradients.precision = Precision.restored(facts["precision"], self.device)
        self.drill.restore(load_more(self.folder.state))
        self.before, self.best, self.alpha = facts["before"], facts["best"], facts["alpha"]
        set_train_mode(self.model)

    def begin(self) -> None:
        """Write what the folder holds from the first step on, the starting model included."""
        if self.step == 0 and self.process_group.is_main and self.gradients.measures:
            self._measure()
        self.process_group.broadcast(self.model.state_dict().values())
        self.process_group.barrier()  # whoever leads may change the folder from here on
        if self.process_group.is_main:
            self.folder.begin(self.config, step=self.step)
            if self.held_out:
                self.folder.keep_held_out(self.held_out)
        if self.step == 0:
            self.before = self.best = self.judge.recalls(keep=self.folder.places)
            self.watch.graded(self.before)
            if self.config.wise_ft != "off" and self.process_group.is_main:
                save_weights(self.folder.start, merged_state_dict(self.model))
            self._keep_model()

    def _measure(self) -> None:
        """Give batch normalisation its statistics; the other processes get them with the rest of the model."""
        self.gradients.measure(self._loader(ProcessGroup()).load(0))
        if self.ema is not None:
            self.ema = self.judge.ema = Ema(self.model, decay=self.ema.decay)

    def go_on(self, stop: threading.Event) -> None:
        """Take the steps that are left.

        Raises:
            TrainingError: the loss is no longer finite, or a picture is gone.
            KeyboardInterrupt: `stop` was set; a checkpoint was made.
        """
        if not self._is_over():
            self._take_steps(stop)
        self._mix()
        self._save()

    def _is_over(self) -> bool:
        """Whether all steps were taken, or the last epochs brought nothing any more."""
        if self.alpha is not None:
            return True
        idle = self.step - self.best_step if self.exam.pictures else 0
        patient = self.config.patience is None or idle < self.config.patience * self.sampler.steps_per_epoch
        return self.step == self.steps or not patient

    def _take_steps(self, stop: threading.Event) -> None:
        loader = self._loader(self.process_group)
        self._keep_frozen(loader, stop)
        batches = self.drill.batches(loader, self.sampler, range(self.step, self.steps), threads=self._threads())
        with closing(batches):
            since = time.perf_counter()
            for batch in batches:
                self._learn(batch)
                self._note(batch, seconds=time.perf_counter() - since)
                self.watch.progress(self.step, self.steps, self.loss, self._speed)
                self._after_step(stop)
                if self._is_over():
                    break
                since = time.perf_counter()

    def _loader(self, process_group: ProcessGroup) -> BatchLoader:
        flip, jitter = self.config.flip, self.config.color_jitter
        return BatchLoader(
            self.dataset,
            self.image_cache,
            sampler=self.sampler,
            transform=None if self.towers.can_precompute("image") else self.transform,
            tokenizer=self.checkpoint.tokenizer,
            augmentation=Augmentation.from_captions(
                self.dataset.texts, self.dataset.positives, flip=flip, color_jitter=jitter
            ),
            word_dropout=0.0 if self.towers.can_precompute("text") else self.config.word_dropout,
            process_group=process_group,
        )

    def _keep_frozen(self, loader: BatchLoader, stop: threading.Event) -> None:
        """Compute what does not change once, instead of at every step; no step is lost when that is stopped."""

        def kept(done: int, total: int) -> None:
            self.watch.kept(done, total)
            if self.process_group.any(flag=stop.is_set()):
                raise KeyboardInterrupt

        if self.towers.can_precompute("image"):
            sources = [self.image_cache.sources[number] for number in self.dataset.images]
            told = partial(kept, total=len(sources))
            self.towers.precompute_images(sources, self.exam.encoder, threads=self.config.threads, progress=told)
        if self.towers.can_precompute("text"):
            texts = range(len(self.dataset.texts))
            self.towers.precompute("text", map(loader.tokenize_text, texts), progress=partial(kept, total=len(texts)))

    def _threads(self) -> int:
        """On a CPU the model needs the cores itself, unless pictures have to be decoded again."""
        nothing_to_decode = self.image_cache.is_complete or self.towers.can_precompute("image")
        return self.config.threads or (1 if nothing_to_decode and self.device == "cpu" else available_cores())

    def _learn(self, batch: Batch) -> None:
        """Take one step; what chance there is in it depends on the seed and the step alone."""
        loss, sound = self.gradients.clipped(batch, self.optimizer)
        if not sound:
            raise self._ruined(batch.step + 1)
        self._move(batch.step)
        self.step, self.loss = batch.step + 1, loss

    def _ruined(self, step: int) -> TrainingError:
        return TrainingError(
            f"the loss is no longer finite at step {step} of {self.steps}; {self.folder.path} keeps the best model so"
            f" far; train into another folder with a learning rate below {self.config.learning_rate:g}"
        )

    def _move(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr_scale"] * learning_rate(step, config=self.config, steps=self.steps)
        self.gradients.spend(self.optimizer)
        if self.ema is not None:
            self.ema.update(self.model, step=step + 1)

    def _note(self, batch: Batch, *, seconds: float) -> None:
        """Put a row into the log, which is written at the next checkpoint."""
        speed = batch.total / max(seconds, 1e-9)
        self._speed = _SMOOTHING * self._speed + (1 - _SMOOTHING) * speed if self._speed else speed
        self._rows.append(
            {
                "step": self.step,
                "epoch": batch.epoch + 1,
                "loss": self.loss,
                "learning_rate": learning_rate(self.step - 1, config=self.config, steps=self.steps),
                "scale": self.model.logit_scale.exp().item(),
                "pairs_per_second": round(speed, 1),
            }
        )

    def _after_step(self, stop: threading.Event) -> None:
        if self.step % self.sampler.steps_per_epoch == 0:
            self._after_epoch()
        due = time.monotonic() - self._saved_at >= self.config.checkpoint_seconds
        stopped = self.process_group.any(flag=stop.is_set())
        if (due and self.step < self.steps) or stopped:
            self._save()
        if stopped:
            raise KeyboardInterrupt

    def _after_epoch(self) -> None:
        """Validate, and keep the model if it is the best so far; without validation the newest counts as that."""
        with self.judge.averaged():
            try:
                recalls = self.judge.recalls()
            except EvaluationError as error:  # rows that are not finite
                raise self._ruined(self.step) from error
            self.watch.graded(recalls)
            self._rows[-1].update(recalls)
            if not recalls or recalls["mean_recall"] > self.best["mean_recall"]:
                self.best, self.best_step = recalls, self.step
                self._keep_model()

    def _mix(self) -> None:
        """Keep a mix of the start and the end, unless the start is better; once, at the end of a run."""
        asked = self.config.wise_ft
        if self.alpha is not None or asked == "off":
            return
        start = load_file(self.folder.start, device=self.device)
        try:
            mix, recalls = self.judge.best_mix(start, self._alphas(asked))
        except EvaluationError as error:
            raise self._ruined(self.step) from error
        if asked == "auto" and recalls and recalls["mean_recall"] < self.before["mean_recall"]:
            self.alpha, self.best, self.best_step = 0.0, self.before, 0
            self._keep_model(start)
        else:
            self.alpha, self.best, self.best_step = mix.alpha, recalls, self.step
            self._keep_model(mix.weights)

    def _alphas(self, asked: str | float) -> tuple[float, ...]:
        """The shares of the tuned weights to choose from; a careful one where nothing can be told of them."""
        if asked != "auto":
            return (float(asked),)
        found = wise_ft_alphas(self.config)
        return found if self.exam.pictures else found[1:2]

    def _keep_model(self, weights: Weights | None = None) -> None:
        if not self.process_group.is_main:
            return
        checkpoint = self.checkpoint
        save_run(
            self.model,
            self.folder.path,
            config=checkpoint.config,
            preprocess=checkpoint.preprocess,
            tokenizer=checkpoint.tokenizer,
            weights=merged_state_dict(self.model) if weights is None else weights,
        )

    def _save(self) -> None:
        """Make a checkpoint. The log comes first: rows after the checkpoint's step are dropped on resuming."""
        if not self.process_group.is_main:
            return
        self.folder.append(self._rows)
        if self.events is not None:
            self.events.write(self._rows)
        self._rows.clear()
        facts = {name: getattr(self, name) for name in ("step", "loss", "before", "best", "best_step", "alpha")}
        facts |= {"pairs": self._digests(), "precision": self.gradients.precision.state()}
        tensors = {"average": self.ema.weights if self.ema else None, "more": self.drill.tensors()}
        save_state(self.folder.state, model=self.model, optimizer=self.optimizer, facts=facts, **tensors)
        self._saved_at = time.monotonic()

    def _digests(self) -> list[str]:
        return [self.dataset.digest(self.image_cache), self.exam.digest()]


def learning_rate(step: int, *, config: ResolvedConfig, steps: int) -> float:
    """The learning rate of a step, counted from 0: a straight rise, then half a cosine down to 0 at the end."""
    peak, warm = config.learning_rate, max(1, round(config.warmup * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2

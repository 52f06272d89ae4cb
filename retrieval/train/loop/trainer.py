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
from retrieval.encoder.open_clip_encoder import OpenClipEncoder
from retrieval.encoder.open_clip_models import Checkpoint, save_run
from retrieval.errors import EvaluationError, OtherRunError, TrainingError
from retrieval.train.checkpoints import load_checkpoint, save_checkpoint, save_weights
from retrieval.train.data.dataset import PairDataset
from retrieval.train.data.image_cache import ImageCache
from retrieval.train.data.loader import Batch, BatchLoader
from retrieval.train.data.sampler import BatchSampler
from retrieval.train.data.transforms import Augmentation, TrainTransform
from retrieval.train.defaults import ResolvedConfig
from retrieval.train.distributed import ProcessGroup
from retrieval.train.loop.callbacks import Callbacks, TensorBoardWriter
from retrieval.train.loop.gradcache import GradCache
from retrieval.train.loop.hard_negatives import HardNegativeMiner
from retrieval.train.loop.precision import Precision
from retrieval.train.model.averaging import Ema, Weights, wise_ft_alphas
from retrieval.train.model.lora import merged_state_dict
from retrieval.train.model.param_groups import create_optimizer, freeze, set_train_mode
from retrieval.train.model.towers import Towers
from retrieval.train.run_folder import RunFolder
from retrieval.train.validation.validator import ValidationSet, Validator

_PROGRESS: Final = ("step", "loss", "before", "best", "best_step", "alpha")  # what a checkpoint keeps of the trainer
_SPEED_DECAY: Final = 0.9  # of the moving average of the speed that callbacks get


@dataclass(slots=True)
class Trainer:
    """A run in progress; `held_out` has the ids of the pairs that were split off, the rest is as in `TrainResult`."""

    folder: RunFolder
    config: ResolvedConfig
    checkpoint: Checkpoint
    image_cache: ImageCache
    dataset: PairDataset
    transform: TrainTransform
    validation_set: ValidationSet
    held_out: Sequence[str] = ()
    process_group: ProcessGroup = field(default_factory=ProcessGroup)
    callbacks: Callbacks = field(default_factory=Callbacks)
    step: int = 0
    loss: float = math.nan
    before: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    alpha: float | None = None
    sampler: BatchSampler = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    towers: Towers = field(init=False)
    grad_cache: GradCache = field(init=False)
    miner: HardNegativeMiner = field(init=False)
    validator: Validator = field(init=False)
    ema: Ema | None = None
    tensorboard: TensorBoardWriter | None = None
    _rows: list[dict[str, object]] = field(default_factory=list)
    _speed: float = 0.0
    _saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        config, model, preprocess = self.config, self.model, self.checkpoint.preprocess
        counts = [len(captions) for captions in self.dataset.captions]
        self.sampler = BatchSampler(counts, config.batch_size, config.seed, self.dataset.classes)
        freeze(model, config)
        self.optimizer = create_optimizer(model, config)
        self.ema = Ema(model, decay=config.ema) if config.ema else None
        self.validator = Validator(model, self.validation_set, self.process_group, self.ema)
        self.towers = Towers(model, device=self.device, mean=preprocess["mean"], std=preprocess["std"])
        self.grad_cache = GradCache(self.towers, config, process_group=self.process_group)
        self.miner = HardNegativeMiner(
            config=config,
            dataset=self.dataset,
            image_cache=self.image_cache,
            transform=self.transform,
            encoder=self.encoder,
            towers=self.towers,
            process_group=self.process_group,
        )
        self.process_group.check_batch_size(self.sampler.batch_sizes[-1])

    @property
    def model(self) -> Any:
        """The model that is trained."""
        return self.checkpoint.model

    @property
    def encoder(self) -> OpenClipEncoder:
        """The encoder of the validation set, which shares the model."""
        return self.validation_set.encoder

    @property
    def device(self) -> str:
        """Where the model is."""
        return self.encoder.device

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return self.config.epochs * self.sampler.steps_per_epoch

    def restore(self) -> None:
        """Go back to the last checkpoint; an OtherRunError where it was made on other pairs."""
        ema = self.ema.weights if self.ema else None
        saved, extra = load_checkpoint(self.folder.checkpoint, model=self.model, optimizer=self.optimizer, ema=ema)
        if saved["pairs"] != self._digests():
            raise OtherRunError(
                f"{self.folder.path} was begun with other images or texts. Resume with those, or choose another folder."
            )
        for name in _PROGRESS:
            setattr(self, name, saved[name])
        self.grad_cache.precision = Precision.from_state_dict(saved["precision"], self.device)
        self.miner.restore(extra)
        set_train_mode(self.model)

    def begin(self) -> None:
        """Write what the folder holds from the first step on, including the starting model."""
        if self.step == 0 and self.process_group.is_main and self.grad_cache.needs_bn_stats:
            self.grad_cache.initialize_bn_stats(self._make_loader(ProcessGroup()).load(0))
            if self.ema is not None:
                self.ema = self.validator.ema = Ema(self.model, decay=self.ema.decay)
        self.process_group.broadcast(self.model.state_dict().values())
        self.process_group.barrier()  # from here on the main process may change the folder
        if self.process_group.is_main:
            self.folder.begin(self.config, step=self.step)
            if self.held_out:
                self.folder.write_held_out(self.held_out)
        if self.step == 0:
            self.before = self.best = self.validator.evaluate(save_ranks_to=self.folder.starting_ranks)
            self.callbacks.on_validation(self.before)
            if self.config.wise_ft != "off" and self.process_group.is_main:
                save_weights(self.folder.starting_weights, merged_state_dict(self.model))
            self._save_model()

    def fit(self, stop: threading.Event) -> None:
        """Take the remaining steps; once `stop` is set, make a checkpoint and raise KeyboardInterrupt."""
        if not self._is_finished():
            self._train_epochs(stop)
        self._interpolate()
        self._save_checkpoint()

    def _is_finished(self) -> bool:
        """Whether all steps were taken, or patience has run out."""
        if self.alpha is not None:
            return True
        idle = self.step - self.best_step if self.validation_set.images else 0
        patient = self.config.patience is None or idle < self.config.patience * self.sampler.steps_per_epoch
        return self.step == self.steps or not patient

    def _train_epochs(self, stop: threading.Event) -> None:
        loader, steps = self._make_loader(self.process_group), range(self.step, self.steps)
        self._precompute_frozen(loader, stop)
        # On a CPU the model needs the cores itself, unless images have to be decoded again.
        nothing_to_decode = self.image_cache.is_complete or self.towers.can_precompute("image")
        threads = self.config.threads or (1 if nothing_to_decode and self.device == "cpu" else available_cores())
        with closing(self.miner.load_batches(loader, self.sampler, steps, threads=threads)) as batches:
            since = time.perf_counter()
            for batch in batches:
                self._train_step(batch)
                self._log_step(batch, seconds=time.perf_counter() - since)
                self.callbacks.on_step(self.step, self.steps, self.loss, self._speed)
                self._after_step(stop)
                if self._is_finished():
                    break
                since = time.perf_counter()

    def _make_loader(self, process_group: ProcessGroup) -> BatchLoader:
        texts, positives = self.dataset.texts, self.dataset.positives
        augmentation = Augmentation.from_captions(
            texts, positives, flip=self.config.flip, color_jitter=self.config.color_jitter
        )
        return BatchLoader(
            self.dataset,
            self.image_cache,
            sampler=self.sampler,
            transform=None if self.towers.can_precompute("image") else self.transform,
            tokenizer=self.checkpoint.tokenizer,
            augmentation=augmentation,
            word_dropout=0.0 if self.towers.can_precompute("text") else self.config.word_dropout,
            process_group=process_group,
        )

    def _precompute_frozen(self, loader: BatchLoader, stop: threading.Event) -> None:
        """Compute the outputs of frozen towers once rather than at every step. Stopping that loses no step."""

        def report(done: int, total: int) -> None:
            self.callbacks.on_precomputed(done, total)
            if self.process_group.any(flag=stop.is_set()):
                raise KeyboardInterrupt

        if self.towers.can_precompute("image"):
            sources, encoder = [self.image_cache.sources[number] for number in self.dataset.images], self.encoder
            progress = partial(report, total=len(sources))
            self.towers.precompute_images(sources, encoder, threads=self.config.threads, progress=progress)
        if self.towers.can_precompute("text"):
            texts = range(len(self.dataset.texts))
            self.towers.precompute("text", map(loader.tokenize_text, texts), progress=partial(report, total=len(texts)))

    def _train_step(self, batch: Batch) -> None:
        """Take one step; its randomness depends on the seed and the step alone."""
        loss, is_finite = self.grad_cache.accumulate_and_clip(batch, self.optimizer)
        if not is_finite:
            raise self._non_finite_error(batch.step + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr_scale"] * learning_rate(batch.step, config=self.config, steps=self.steps)
        self.grad_cache.optimizer_step(self.optimizer)
        self.step, self.loss = batch.step + 1, loss
        if self.ema is not None:
            self.ema.update(self.model, step=self.step)

    def _non_finite_error(self, step: int) -> TrainingError:
        return TrainingError(
            f"The loss is no longer finite at step {step} of {self.steps}. Train into another folder with a learning"
            f" rate below {self.config.learning_rate:g}; {self.folder.path} keeps the best model so far."
        )

    def _log_step(self, batch: Batch, *, seconds: float) -> None:
        """Add a row to the log, which is written at the next checkpoint."""
        speed = len(batch.positives) / max(seconds, 1e-9)
        self._speed = _SPEED_DECAY * self._speed + (1 - _SPEED_DECAY) * speed if self._speed else speed
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
            self._save_checkpoint()
        if stopped:
            raise KeyboardInterrupt

    def _after_epoch(self) -> None:
        """Validate, and save the model if it is the best so far; without validation pairs the newest is the best."""
        with self.validator.averaged_weights():
            try:
                recalls = self.validator.evaluate()
            except EvaluationError as error:  # embeddings that are not finite
                raise self._non_finite_error(self.step) from error
            self.callbacks.on_validation(recalls)
            self._rows[-1].update(recalls)
            if not recalls or recalls["mean_recall"] > self.best["mean_recall"]:
                self.best, self.best_step = recalls, self.step
                self._save_model()

    def _interpolate(self) -> None:
        """Save an interpolation of the starting and the final weights, unless the start is better; once, at the end."""
        wise_ft = self.config.wise_ft
        if self.alpha is not None or wise_ft == "off":
            return
        alphas = wise_ft_alphas(self.config) if wise_ft == "auto" else (float(wise_ft),)
        if wise_ft == "auto" and not self.validation_set.images:
            alphas = alphas[1:2]  # a small one, since there is nothing to choose by
        start = load_file(self.folder.starting_weights, device=self.device)
        try:
            chosen, recalls = self.validator.interpolate(start, alphas)
        except EvaluationError as error:
            raise self._non_finite_error(self.step) from error
        if wise_ft == "auto" and recalls and recalls["mean_recall"] < self.before["mean_recall"]:
            self.alpha, self.best, self.best_step = 0.0, self.before, 0
            self._save_model(start)
        else:
            self.alpha, self.best, self.best_step = chosen.alpha, recalls, self.step
            self._save_model(chosen.weights)

    def _save_model(self, weights: Weights | None = None) -> None:
        if self.process_group.is_main:
            parts = {name: getattr(self.checkpoint, name) for name in ("config", "preprocess", "tokenizer")}
            weights = merged_state_dict(self.model) if weights is None else weights
            save_run(self.model, self.folder.path, weights=weights, **parts)

    def _save_checkpoint(self) -> None:
        """Write the log, then a checkpoint: rows after the checkpoint's step are dropped when resuming."""
        if not self.process_group.is_main:
            return
        self.folder.append_log(self._rows)
        if self.tensorboard is not None:
            self.tensorboard.write(self._rows)
        self._rows.clear()
        progress = {name: getattr(self, name) for name in _PROGRESS}
        progress |= {"pairs": self._digests(), "precision": self.grad_cache.precision.state_dict()}
        tensors = {"ema": self.ema.weights if self.ema else None, "extra": self.miner.tensors()}
        save_checkpoint(
            self.folder.checkpoint, model=self.model, optimizer=self.optimizer, progress=progress, **tensors
        )
        self._saved_at = time.monotonic()

    def _digests(self) -> list[str]:
        return [self.dataset.digest(self.image_cache), self.validation_set.digest()]


def learning_rate(step: int, *, config: ResolvedConfig, steps: int) -> float:
    """The learning rate of a step, counted from 0: a linear warm-up, then half a cosine down to 0 at the end."""
    peak, warm = config.learning_rate, max(1, round(config.warmup * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2

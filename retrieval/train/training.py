"""Train a dual encoder on image-text pairs with a contrastive loss, so that it can be stopped and resumed anywhere."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from retrieval.encoder.open_clip_encoder import OpenClipEncoder
from retrieval.encoder.open_clip_models import Checkpoint, open_checkpoint
from retrieval.errors import EncoderError, TrainingError
from retrieval.pairs import Pairs, Skipped
from retrieval.train.config import TrainConfig
from retrieval.train.data.dataset import PairDataset, hold_out_pairs
from retrieval.train.data.image_cache import DiskCache, build_image_cache
from retrieval.train.data.transforms import TrainTransform
from retrieval.train.defaults import apply_defaults, apply_resolved, resolve
from retrieval.train.distributed import ProcessGroup, join_process_group, local_world_size
from retrieval.train.loop.callbacks import Callbacks, StepCallback, TensorBoardWriter, require_tensorboard
from retrieval.train.loop.trainer import Trainer
from retrieval.train.model.create import add_logit_bias, create_model
from retrieval.train.model.param_groups import find_head
from retrieval.train.report import write_report
from retrieval.train.result import TrainResult, evaluate_saved_model, make_result
from retrieval.train.run_folder import RunFolder
from retrieval.train.validation.validator import ValidationSet

_deterministic: Any = torch.utils.deterministic  # torch does not annotate it


def train(
    pairs: Pairs,
    run: Path | str,
    *,
    config: TrainConfig | None = None,
    validation: Pairs | None = None,
    resume: bool = False,
    progress: StepCallback | None = None,
    callbacks: Callbacks | None = None,
) -> TrainResult:
    """Train on `pairs` into the folder `run`, which then holds the best model, report.html and what resuming needs.

    From random weights, the saved model is the one with the highest mean recall on the validation pairs (R@1, R@5 and
    R@10, both ways), of the start and the models after each epoch. From trained weights it is an interpolation of the
    last model and the start, or the start where that does better: see `TrainConfig.wise_ft`. Without validation pairs
    it is the last model, or an interpolation near the start. A run on the CPU that was killed at any moment and resumed
    on the same machine ends in the same weights, bit for bit, as one that was not; on a GPU the two differ by rounding.

    Args:
        pairs: What to train on. Images that cannot be read, and those without a caption, are skipped and named.
        run: A new or empty folder; or with `resume`, one that an earlier call left.
        config: Defaults to `TrainConfig()`; with `resume` to the one that the run was begun with.
        validation: Pairs to validate on; by default a fraction of `pairs`, held out by item where there are enough.
        resume: Continue from the last checkpoint in `run`; from the start where there is none yet.
        progress: Called after each step with (step, steps, loss, pairs per second).
        callbacks: Further functions to call, while images are read and after each validation.

    Raises:
        TrainingError: The folder holds something else or a run with other settings or pairs; there is nothing to train
            on, or nothing in `validation` to validate on; or the loss is no longer finite. The last checkpoint and the
            best model stay.
        EncoderError: There is no such model.
        KeyboardInterrupt: On Ctrl-C or SIGTERM, after the current step and a checkpoint. A second one does not wait.
    """
    started, folder = time.perf_counter(), RunFolder(Path(run))
    callbacks = callbacks or Callbacks()
    callbacks = callbacks if progress is None else replace(callbacks, on_step=progress)
    resumes = resume and folder.config.is_file()
    config = apply_defaults(config or (folder.read_config() if resumes else TrainConfig()))
    if config.tensorboard:
        require_tensorboard()
    with join_process_group(config.device) as process_group, ExitStack() as stack:
        folder.check(config, resume=resume)
        if process_group.is_main:
            stack.enter_context(folder.lock())
        gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        stack.enter_context(torch.random.fork_rng(devices=gpus))  # leaves the caller's random state as it was
        folder.check(config, resume=resume)  # again: another process may have begun it before it was locked
        if resume and folder.config.is_file():
            config = apply_resolved(config, folder.read_config())
        has_checkpoint = resume and folder.checkpoint.is_file()
        # A run has the whole of its model: where that came from may be out of reach by now.
        checkpoint = open_checkpoint(str(folder.path)) if has_checkpoint else create_model(config)
        if config.loss == "sigmoid":
            checkpoint = add_logit_bias(checkpoint, from_random=config.from_random)
        cache_folder = Path(config.cache_folder or folder.training)
        disk = DiskCache(cache_folder, config.disk_cache_bytes, processes=local_world_size())
        trainer = _make_trainer(
            pairs,
            folder,
            config=config,
            checkpoint=checkpoint,
            validation=validation,
            disk=stack.enter_context(closing(disk)),
            process_group=process_group,
            callbacks=callbacks,
        )
        if has_checkpoint:
            trainer.restore()
        trainer.begin()
        if config.tensorboard and process_group.is_main:
            trainer.tensorboard = stack.enter_context(closing(TensorBoardWriter(folder.tensorboard, step=trainer.step)))
        with _stop_event() as stop, _deterministic_algorithms(trainer.device):
            trainer.fit(stop)
        evaluations = evaluate_saved_model(trainer) if process_group.is_main else None
        skipped = pairs.skipped if validation is None else (*pairs.skipped, *validation.skipped)
        result = make_result(trainer, evaluations, skipped=skipped, seconds=time.perf_counter() - started)
        if process_group.is_main:
            write_report(trainer, result, evaluations)
    return result


def _make_trainer(
    pairs: Pairs,
    folder: RunFolder,
    *,
    config: TrainConfig,
    checkpoint: Checkpoint,
    validation: Pairs | None,
    disk: DiskCache,
    process_group: ProcessGroup,
    callbacks: Callbacks,
) -> Trainer:
    """Read the images, split the pairs, and resolve the config."""
    try:
        encoder = OpenClipEncoder(checkpoint, device=config.device)
    except EncoderError as error:
        raise TrainingError(str(error)) from error
    transform = TrainTransform.from_preprocess(checkpoint.preprocess, min_scale=cast("float", config.crop))
    # Where training itself never shows an image, decoded ones are not worth keeping.
    heads_only = config.tune == "heads" and find_head(checkpoint.model.visual) is not None
    caches = config.tune != "text" and not heads_only
    image_cache = build_image_cache(
        pairs.pairs,
        transform,
        cache_bytes=config.cache_bytes // local_world_size() if caches else 0,
        disk=disk if caches else None,
        threads=config.threads,
        progress=callbacks.on_images_read,
    )
    held_out = np.zeros(len(pairs), np.bool_)
    if validation is None:
        held_out = hold_out_pairs(pairs.pairs, image_cache, fraction=config.validation_share, seed=config.seed)
    held_out_pairs = [pair for pair, out in zip(pairs, held_out, strict=True) if out]
    dataset = PairDataset.from_pairs(
        pairs.pairs,
        np.where(held_out, -1, image_cache.image_of_pair),
        duplicate_groups=image_cache.duplicate_groups,
        balance=config.balance,
        weight=config.weight_attribute,
    )
    if len(dataset.images) < 2:  # noqa: PLR2004 (one alone has no negatives)
        raise TrainingError(
            f"{pairs.source} has {len(dataset.images)} readable images with a caption, but training needs at least two."
            f"{_name_first_skipped((*pairs.skipped, *image_cache.skipped))}"
        )
    validation_set = ValidationSet.from_pairs(
        held_out_pairs if validation is None else validation.pairs,
        encoder,
        threads=config.threads,
        progress=callbacks.on_images_read,
    )
    if validation is not None and not validation_set.images:
        raise TrainingError(
            f"{validation.source} has no readable images with a caption to validate on. Name other pairs, or none to"
            f" hold a fraction out.{_name_first_skipped((*validation.skipped, *validation_set.skipped))}"
        )
    weights = sum(weight.numel() for weight in checkpoint.model.parameters())
    return Trainer(
        folder=folder,
        config=resolve(config, weights=weights, images=len(dataset.images)),
        checkpoint=checkpoint,
        image_cache=image_cache,
        dataset=dataset,
        transform=transform,
        held_out=[pair.id for pair in held_out_pairs],
        process_group=process_group,
        validation_set=validation_set,
        callbacks=callbacks,
    )


def _name_first_skipped(skipped: Sequence[Skipped]) -> str:
    return f" The first skipped one, {skipped[0].name}, {skipped[0].reason}." if skipped else ""


@contextmanager
def _deterministic_algorithms(device: str) -> Iterator[None]:
    """On a CPU, use only algorithms that give the same bits each time. On a GPU some steps have none."""
    before, fill = torch.are_deterministic_algorithms_enabled(), _deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(before or device == "cpu")
    _deterministic.fill_uninitialized_memory = False  # costs time, and only helps to find bugs
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        _deterministic.fill_uninitialized_memory = fill


@contextmanager
def _stop_event() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second interrupts at once. Only the main thread gets them."""
    stop = threading.Event()

    def request_stop(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {one: signal.signal(one, request_stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)

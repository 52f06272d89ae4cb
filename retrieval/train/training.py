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
from retrieval.train.data.image_cache import DiskCache, ImageCache, build_image_cache
from retrieval.train.data.transforms import TrainTransform
from retrieval.train.defaults import resolve, with_defaults, with_resolved
from retrieval.train.distributed import ProcessGroup, join_process_group, local_world_size
from retrieval.train.loop.callbacks import Progress, Watch
from retrieval.train.loop.events import Events, check_events
from retrieval.train.loop.trainer import Trainer
from retrieval.train.model.create import add_logit_bias, create_model
from retrieval.train.model.param_groups import find_head
from retrieval.train.report import write_report
from retrieval.train.result import Exams, TrainResult, result_of
from retrieval.train.run_folder import RunFolder
from retrieval.train.run_lock import run_lock
from retrieval.train.validation.validator import Exam

_deterministic: Any = torch.utils.deterministic  # torch does not annotate it


def train(
    pairs: Pairs,
    run: Path | str,
    *,
    config: TrainConfig | None = None,
    validation: Pairs | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> TrainResult:
    """Train on `pairs` into the folder `run`, which then holds the best model, report.html and what resuming needs.

    From random weights, of the models after each epoch and the one at the start that with the highest mean recall on
    the validation pairs is kept (R@1, R@5 and R@10, both ways). From trained weights it is a mix of the last model and
    the start, or the start where that does better: `TrainConfig.wise_ft` says which. Without validation pairs the last
    model is kept, or a careful mix. A run on the CPU that was killed at any moment and resumed on the same machine ends
    in the same weights, bit for bit, as one that was not; on a GPU the two differ by rounding.

    Args:
        pairs: what to learn from. Pictures that cannot be read, and those without a caption, are left out and named.
        run: a new or empty folder; or with `resume`, one that an earlier call left.
        config: defaults to `TrainConfig()`; with `resume` to the one that the run was begun with.
        validation: pairs to validate on; defaults to a share of `pairs`, held out by item where there are enough.
        resume: go on from the last checkpoint in `run`; from the start where there is none yet.
        progress: called after each step with (step, steps, loss, pairs per second).
        watch: further calls, while pictures are opened and after each validation.

    Raises:
        TrainingError: the folder holds something else or a run of other settings or pairs; there is nothing to learn
            from, or in `validation` nothing to validate on; or the loss is no longer finite. The last checkpoint and
            the best model stay.
        EncoderError: there is no such model.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step in hand and a checkpoint. A second one does not wait.
    """
    started, folder = time.perf_counter(), RunFolder(Path(run))
    watch = watch or Watch()
    watch = watch if progress is None else replace(watch, progress=progress)
    resumes = resume and folder.config.is_file()
    config = with_defaults(config or (folder.begun() if resumes else TrainConfig()))
    cache = Path(config.cache_folder or folder.config.parent)
    if config.tensorboard:
        check_events()
    with join_process_group(config.device) as process_group, ExitStack() as during:
        folder.check(config, resume=resume)
        if process_group.is_main:
            during.enter_context(run_lock(folder.path))
        disk = during.enter_context(closing(DiskCache(cache, config.disk_cache_bytes, processes=local_world_size())))
        during.enter_context(_own_chance())
        folder.check(config, resume=resume)  # once more: another process may have begun it before it was locked
        if resume and folder.config.is_file():
            config = with_resolved(config, folder.begun())
        begun = resume and folder.state.is_file()
        # A run has the whole of its model: where that came from may be gone or out of reach by now.
        checkpoint = open_checkpoint(str(folder.path)) if begun else create_model(config)
        if config.loss == "sigmoid":
            checkpoint = add_logit_bias(checkpoint, from_random=config.from_random)
        trainer = _prepared(
            pairs,
            folder,
            config=config,
            checkpoint=checkpoint,
            validation=validation,
            disk=disk,
            process_group=process_group,
            watch=watch,
        )
        if begun:
            trainer.restore()
        trainer.begin()
        if config.tensorboard and process_group.is_main:
            trainer.events = during.enter_context(closing(Events(folder.events, step=trainer.step)))
        with _stop_request() as stop, _repeatable(trainer.device):
            trainer.go_on(stop)
        exams = Exams.of(trainer) if process_group.is_main else None
        refused = pairs.skipped if validation is None else (*pairs.skipped, *validation.skipped)
        result = result_of(trainer, exams, refused=refused, seconds=time.perf_counter() - started)
        if process_group.is_main:
            write_report(trainer, result, exams)
    return result


def _prepared(
    pairs: Pairs,
    folder: RunFolder,
    *,
    config: TrainConfig,
    checkpoint: Checkpoint,
    validation: Pairs | None,
    disk: DiskCache,
    process_group: ProcessGroup,
    watch: Watch,
) -> Trainer:
    """Everything that a run needs, before its first step."""
    try:
        encoder = OpenClipEncoder(checkpoint, device=config.device)
    except EncoderError as error:
        raise TrainingError(str(error)) from error
    transform = TrainTransform.from_preprocess(checkpoint.preprocess, min_scale=cast("float", config.crop))
    cache_bytes, kept = (
        (0, None) if _shows_nothing(config, checkpoint) else (config.cache_bytes // local_world_size(), disk)
    )
    image_cache = build_image_cache(
        pairs.pairs, transform, cache_bytes=cache_bytes, disk=kept, threads=config.threads, progress=watch.opened
    )
    held = np.zeros(len(pairs), np.bool_)
    if validation is None:
        held = hold_out_pairs(pairs.pairs, image_cache, fraction=config.validation_share, seed=config.seed)
        validation_pairs = [pair for pair, out in zip(pairs, held, strict=True) if out]
    else:
        validation_pairs = list(validation)
    learned = np.where(held, -1, image_cache.image_of_pair)
    dataset = PairDataset.from_pairs(
        pairs.pairs,
        learned,
        duplicate_groups=image_cache.duplicate_groups,
        balance=config.balance,
        weight=config.weight_attribute,
    )
    _check_enough(dataset, pairs, image_cache)
    exam = Exam.of(validation_pairs, encoder, threads=config.threads, opened=watch.opened)
    if validation is not None:
        _check_exam(exam, validation)
    weights = sum(weight.numel() for weight in checkpoint.model.parameters())
    resolved = resolve(config, weights=weights, images=len(dataset.images))
    return Trainer(
        folder=folder,
        config=resolved,
        checkpoint=checkpoint,
        image_cache=image_cache,
        dataset=dataset,
        transform=transform,
        held_out=[pair.id for pair, out in zip(pairs, held, strict=True) if out],
        process_group=process_group,
        exam=exam,
        watch=watch,
    )


def _shows_nothing(config: TrainConfig, checkpoint: Checkpoint) -> bool:
    """Whether each picture is looked at twice in all, once to see it and once to encode it: none is worth keeping."""
    return config.tune == "text" or (config.tune == "heads" and find_head(checkpoint.model.visual) is not None)


def _check_enough(dataset: PairDataset, pairs: Pairs, image_cache: ImageCache) -> None:
    """Two pictures at least: one alone has nothing to be told apart from."""
    if len(dataset.images) < 2:  # noqa: PLR2004 (see above)
        raise TrainingError(
            f"{pairs.source} has {len(dataset.images)} readable pictures with a caption, and training needs two"
            f" at least{_first((*pairs.skipped, *image_cache.skipped))}"
        )


def _check_exam(exam: Exam, validation: Pairs) -> None:
    """Who hands in validation pairs would not have none of them validate."""
    if not exam.pictures:
        raise TrainingError(
            f"{validation.source} has no readable pictures with a caption to validate on; name other pairs, or none to"
            f" hold a share out{_first((*validation.skipped, *exam.skipped))}"
        )


def _first(skipped: Sequence[Skipped]) -> str:
    return f"; the first left out, {skipped[0].name}, {skipped[0].reason}" if skipped else ""


@contextmanager
def _own_chance() -> Iterator[None]:
    """Leave the caller's random numbers as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def _repeatable(device: str) -> Iterator[None]:
    """On a CPU, take only algorithms that give the same bits each time. On a GPU some steps have none."""
    before, safeguard = torch.are_deterministic_algorithms_enabled(), _deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(before or device == "cpu")
    _deterministic.fill_uninitialized_memory = False  # costs time, and only helps to find bugs
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        _deterministic.fill_uninitialized_memory = safeguard


@contextmanager
def _stop_request() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second one interrupts at once. Only the main thread hears."""
    stop = threading.Event()

    def request(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {one: signal.signal(one, request) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)

"""`retrieval train`, `adopt`, `evaluate` and `demo`: train encoders, adopt them in catalogs, and evaluate them."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from retrieval.cli.shared import (
    DEVICES,
    ENGINE,
    FOLDER,
    PATH,
    STARTER_NOTICE,
    SettingsCommand,
    interruptible,
    notice,
    notice_skipped,
    open_read_only,
    progress_bar,
    use_current_names,
)
from retrieval.errors import TrainingError
from retrieval.settings import check_names

if TYPE_CHECKING:
    from retrieval.pairs import Pairs
    from retrieval.train import Callbacks


def _parse_settings(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    """Names and their values, which are JSON where they can be read as JSON, and text otherwise."""
    settings = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{word!r} is not NAME=VALUE.")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text
    return settings


@click.command(cls=SettingsCommand, settings="retrieval.train.config:TrainConfig", before="others")
@click.argument("pairs", type=PATH)
@click.argument("run", type=PATH)
@click.option("--images", type=FOLDER, help="Folder that holds the images which PAIRS names.")
@click.option(
    "--validation", type=PATH, metavar="PAIRS", help="Pairs to validate on; by default a tenth is held out by item."
)
@click.option("--validation-images", type=FOLDER, help="Folder that holds their images; by default that of --images.")
@click.option(
    "--set",
    "others",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_parse_settings,
    help="Any other setting of TrainConfig, such as weight_decay=0.2 or crop=1.",
)
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint in RUN, with its settings.")
def train(
    pairs: Path,
    run: Path,
    *,
    images: Path | None,
    validation: Path | None,
    validation_images: Path | None,
    others: dict[str, Any],
    resume: bool,
    **settings: Any,
) -> None:
    """Train a dual encoder on PAIRS, into the folder RUN."""
    with interruptible("To continue, run it again with --resume."), _training_bar() as callbacks:
        from retrieval.encoder import load_encoder
        from retrieval.pairs import read_pairs
        from retrieval.train import train as train_encoder
        from retrieval.train.config import TrainConfig
        from retrieval.train.run_folder import RunFolder

        source_of = click.get_current_context().get_parameter_source
        named = {name: value for name, value in settings.items() if source_of(name) is not ParameterSource.DEFAULT}
        named = use_current_names(named | others, TrainConfig)
        folder = RunFolder(run)
        continues = resume and folder.config.is_file()
        try:
            check_names(named, TrainConfig, error=TrainingError)
            config = replace(folder.read_config() if continues else TrainConfig(), **named)
        except TrainingError as error:
            raise click.UsageError(str(error)) from error
        source = read_pairs(pairs, images=images)
        held_out = None if validation is None else read_pairs(validation, images=validation_images or images)
        if resume and not continues and _is_main_process():
            notice(f"{run} holds no run to resume, so a new one starts.")
        if "model" not in named and not continues and _is_main_process():
            notice(STARTER_NOTICE + " --model small trains from scratch.")
        result = train_encoder(source, run, config=config, validation=held_out, resume=resume, callbacks=callbacks)
        if _is_main_process():
            load_encoder(run, device="cpu", export=True)
    if _is_main_process():
        notice_skipped(result.skipped)
        notice(f"Wrote {run / 'report.html'}.")
        click.echo(result.summary())


@click.command()
@click.argument("catalog", type=PATH)
@click.argument("run")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@ENGINE
def adopt(catalog: Path, run: str, *, device: str, engine: str | None) -> None:
    """Switch CATALOG to RUN, trained with --tune text, without embedding an image again."""
    from retrieval.catalog import Catalog
    from retrieval.encoder import load_encoder

    with Catalog.open(catalog, device=device, engine=engine) as opened:
        encoder = load_encoder(run, device=device, engine=engine, export=True)
        with interruptible("The catalog is unchanged."), progress_bar("captions") as progress:
            adoption = opened.adopt(encoder, progress=progress)
    click.echo(adoption.summary())


@click.command()
@click.argument("pairs", type=PATH)
@click.option(
    "--model", metavar="NAME", help="Encoder to evaluate: starter (default), a run folder, name/tag, or hf-hub:NAME."
)
@click.option("--catalog", type=PATH, help="Use this catalog's encoder, and compare its index with exact search.")
@click.option("--images", type=FOLDER, help="Folder that holds the images which PAIRS names.")
@click.option("--held-out", is_flag=True, help="Only the pairs that the run named by --model held out of its training.")
@click.option("--resamples", type=click.IntRange(min=0), default=1000, show_default=True, help="Bootstrap resamples.")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@ENGINE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
def evaluate(
    pairs: Path,
    *,
    model: str | None,
    catalog: Path | None,
    images: Path | None,
    held_out: bool,
    resamples: int,
    device: str,
    engine: str | None,
    as_json: bool,
) -> None:
    """Evaluate recall@K on PAIRS, text to image and image to text."""
    from retrieval.encoder import STARTER, load_encoder
    from retrieval.evaluate import evaluate as evaluate_encoder
    from retrieval.pairs import read_pairs

    if model is not None and catalog is not None:
        raise click.UsageError("Name one of --model and --catalog, not both.")
    if held_out and model is None:
        raise click.UsageError("--held-out needs a run. Name it by --model.")
    source = read_pairs(pairs, images=images)
    if model is None and catalog is None:
        notice(STARTER_NOTICE)
    if model is not None:
        source = _select_held_out(source, model, required=held_out)
    context = nullcontext() if catalog is None else open_read_only(catalog, device=device, engine=engine)
    with context as opened, progress_bar("images and texts") as progress:
        encoder = load_encoder(model or STARTER, device=device, engine=engine) if opened is None else opened.encoder
        indexes = None if opened is None else opened.served
        report = evaluate_encoder(encoder, source, resamples=resamples, indexes=indexes, progress=progress)
    notice_skipped(report.skipped)
    click.echo(json.dumps(report.as_json(), ensure_ascii=False) if as_json else report.table())


def _select_held_out(pairs: "Pairs", model: str, *, required: bool) -> "Pairs":
    """The pairs that a run held out of its training, where that is required; else all, with a notice."""
    from retrieval.train.run_folder import RunFolder

    ids = RunFolder(Path(model)).read_held_out()
    held_out = tuple(pair for pair in pairs if pair.id in ids)
    if required and not held_out:
        reason = "it held out none of these" if ids else "it held out nothing, or is not a run"
        raise click.UsageError(f"--held-out needs a run that was trained on these pairs, but of {model}: {reason}.")
    if held_out and not required:
        notice(
            f"{model} held {len(held_out)} of these {len(pairs)} pairs out of its training. Use --held-out to evaluate"
            " on them alone."
        )
    return replace(pairs, pairs=held_out) if required else pairs


@click.command()
@click.argument("folder", type=PATH, default="demo")
def demo(folder: Path) -> None:
    """Draw a sample shop, train on it, index it, search it and evaluate it, all in FOLDER."""
    from retrieval.demo import run_demo

    run_demo(folder, echo=click.echo)


def _is_main_process() -> bool:
    """Whether this process prints: the first of those that `torchrun` started, or one that is alone."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _training_bar() -> "Iterator[Callbacks]":
    """Callbacks that move a bar on stderr: of images read, perhaps of inputs of frozen towers, then of steps."""
    from tqdm import tqdm

    from retrieval.train.loop.callbacks import Callbacks

    make_bar = partial(tqdm, file=sys.stderr, disable=None if _is_main_process() else True, leave=False)
    bar, shown, recall = make_bar(unit=" images"), " images", ""

    def move(unit: str, done: int, total: int, *, postfix: str = "") -> None:
        nonlocal bar, shown
        if shown != unit:
            bar.close()
            bar, shown = make_bar(unit=unit), unit
        bar.set_postfix_str(postfix, refresh=False)
        bar.total = total
        bar.update(done - bar.n)

    def show_step(step: int, total: int, loss: float, rate: float) -> None:  # noqa: PLR0917 -- a callback
        move(" steps", step, total, postfix=f"loss {loss:.3f}, {rate:.0f} pairs/s{recall}")

    def show_recall(recalls: Mapping[str, float]) -> None:
        nonlocal recall
        if recalls:
            recall = f", text→image R@1 {100 * recalls['text_to_image_recall@1']:.1f}"

    try:
        yield Callbacks(show_step, partial(move, " images"), partial(move, " encoded"), show_recall)
    finally:
        bar.close()

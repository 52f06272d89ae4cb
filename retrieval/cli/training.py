"""`retrieval train`, `adopt`, `evaluate` and `demo`: encoders made, taken over and measured."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
from click.core import ParameterSource

from retrieval.cli.shared import (
    DEVICES,
    FOLDER,
    PATH,
    STARTER_NOTICE,
    bar,
    interruptible,
    notice,
    notice_skipped,
    reading,
)
from retrieval.errors import TrainingError
from retrieval.settings import check_names, flag_of, settings_of, settings_options, with_current_names
from retrieval.train.config import TrainConfig

if TYPE_CHECKING:
    from retrieval.pairs import Pairs


def _settings(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    return dict(_setting(word) for word in words)


def _setting(word: str) -> tuple[str, Any]:
    """A name and its value: what JSON can read as JSON says, everything else as the text that it is."""
    name, equals, text = word.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"{word!r} is not NAME=VALUE")
    try:
        return name, json.loads(text)
    except json.JSONDecodeError:
        return name, text


@click.command()
@click.argument("pairs", type=PATH)
@click.argument("run", type=PATH)
@click.option("--images", type=FOLDER, help="Folder that holds the images which PAIRS names.")
@click.option(
    "--validation", type=PATH, metavar="PAIRS", help="Pairs to validate on; by default a tenth is held out by item."
)
@click.option("--validation-images", type=FOLDER, help="Folder that holds their images; by default that of --images.")
@settings_options(TrainConfig)
@click.option(
    "--set",
    "others",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_settings,
    help="Any other setting of TrainConfig: weight_decay=0.2, say, or crop=1.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in RUN, as it was set.")
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
    with interruptible("To go on, run it again with --resume."), TrainingBar() as bar:
        from retrieval.pairs import read_pairs
        from retrieval.train import Watch
        from retrieval.train import train as train_encoder
        from retrieval.train.run_folder import RunFolder

        named = _with_notices({name: value for name, value in settings.items() if _is_named(name)} | others)
        folder = RunFolder(run)
        goes_on = resume and folder.config.is_file()
        begun = folder.begun() if goes_on else TrainConfig()
        try:
            check_names(named, TrainConfig, error=TrainingError)
            config = replace(begun, **named)
        except TrainingError as error:
            raise click.UsageError(str(error)) from error
        source = read_pairs(pairs, images=images)
        held_out = None if validation is None else read_pairs(validation, images=validation_images or images)
        if resume and not goes_on and _is_main_process():
            notice(f"{run} holds no run to go on with: one is begun")
        if "model" not in named and not goes_on and _is_main_process():
            notice(STARTER_NOTICE + "; --model small learns from scratch")
        watch = Watch(progress=bar.progress, opened=bar.opened, kept=bar.kept, graded=bar.graded)
        result = train_encoder(source, run, config=config, validation=held_out, resume=resume, watch=watch)
    if _is_main_process():
        notice_skipped(result.skipped)
        notice(f"wrote {run / 'report.html'}")
        click.echo(result.summary())


@click.command()
@click.argument("catalog", type=PATH)
@click.argument("run")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
def adopt(catalog: Path, run: str, *, device: str) -> None:
    """Switch CATALOG over to RUN, trained with --tune text, without embedding a picture again."""
    from retrieval.catalog import Catalog
    from retrieval.encoder import load_encoder

    with Catalog.open(catalog, device=device) as opened:
        encoder = load_encoder(run, device=device)
        with interruptible("The catalog is as it was."), bar("captions") as progress:
            adoption = opened.adopt(encoder, progress=progress)
    click.echo(adoption.summary())


@click.command()
@click.argument("pairs", type=PATH)
@click.option(
    "--model", metavar="NAME", help="Encoder to measure: starter (default), a run folder, name/tag, or hf-hub:NAME."
)
@click.option("--catalog", type=PATH, help="Use this catalog's encoder, and measure its index beside exact search.")
@click.option("--images", type=FOLDER, help="Folder that holds the images which PAIRS names.")
@click.option("--held-out", is_flag=True, help="Only the pairs that the run named by --model did not learn from.")
@click.option("--resamples", type=click.IntRange(min=0), default=1000, show_default=True, help="Bootstrap resamples.")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
def evaluate(
    pairs: Path,
    *,
    model: str | None,
    catalog: Path | None,
    images: Path | None,
    held_out: bool,
    resamples: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure recall@K on PAIRS, text to image and image to text."""
    from retrieval.evaluate import evaluate as measure
    from retrieval.pairs import read_pairs

    if model is not None and catalog is not None:
        raise click.UsageError("Name one of --model and --catalog, not both.")
    if held_out and model is None:
        raise click.UsageError("--held-out goes with a run: name it by --model.")
    source = read_pairs(pairs, images=images)
    if model is None and catalog is None:
        notice(STARTER_NOTICE)
    if model is not None:
        source = _unlearned(source, model, alone=held_out)
    with _measured(model, catalog, device) as (encoder, indexes), bar("pictures and texts") as progress:
        report = measure(encoder, source, resamples=resamples, indexes=indexes, progress=progress)
    notice_skipped(report.skipped)
    click.echo(json.dumps(report.as_json(), ensure_ascii=False) if as_json else report.table())


def _unlearned(pairs: "Pairs", model: str, *, alone: bool) -> "Pairs":
    """What a run held out of its training, if that is asked for; else all, with a word where some was learned."""
    from retrieval.train.run_folder import RunFolder

    kept = RunFolder(Path(model)).held_out_ids()
    found = tuple(pair for pair in pairs if pair.id in kept)
    if alone and not found:
        reason = "it held out none of these" if kept else "it holds out nothing, or is no run"
        raise click.UsageError(f"--held-out goes with a run that these pairs were learned in; of {model}: {reason}.")
    if alone:
        return replace(pairs, pairs=found)
    if found:
        notice(
            f"{model} held {len(found)} of these {len(pairs)} pairs out of its training; --held-out measures them alone"
        )
    return pairs


@click.command()
@click.argument("folder", type=PATH, default="demo")
def demo(folder: Path) -> None:
    """Draw a sample shop, train on it, index it, search it and measure it, all in FOLDER."""
    from retrieval.demo import run_demo

    run_demo(folder, say=click.echo)


def _with_notices(named: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by their present names, with a notice for each that was renamed."""
    for name, one in settings_of(TrainConfig).items():
        if one.old_name in named:
            notice(f"The setting {one.old_name} is now called {name}: use {flag_of(name) if one.option else name}.")
    return with_current_names(named, TrainConfig)


def _is_main_process() -> bool:
    """Whether this process prints: the first of those that `torchrun` started, or one that is alone."""
    return os.environ.get("RANK", "0") == "0"


def _is_named(name: str) -> bool:
    """Whether an option stands on the command line; what does not is as the run was begun."""
    return click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT


class TrainingBar:
    """A progress bar on stderr from the first second on: of pictures opened, perhaps of inputs encoded, then steps."""

    def __init__(self) -> None:
        self._bar, self._unit, self._recall = self._of(" pictures"), " pictures", ""

    @staticmethod
    def _of(unit: str) -> Any:
        from tqdm import tqdm

        return tqdm(unit=unit, file=sys.stderr, disable=None if _is_main_process() else True, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def opened(self, done: int, total: int) -> None:
        """So many of the pictures are opened."""
        self._move(" pictures", done, total)

    def kept(self, done: int, total: int) -> None:
        """So many inputs of a frozen tower are encoded."""
        self._move(" encoded", done, total)

    def graded(self, recalls: Mapping[str, float]) -> None:
        """The validation pairs were ranked, where there are any."""
        if recalls:
            self._recall = f", text→image R@1 {100 * recalls['text_to_image_recall@1']:.1f}"

    def progress(self, step: int, total: int, loss: float, rate: float) -> None:  # noqa: PLR0917 -- as `train` calls it
        """A step was taken."""
        self._move(" steps", step, total, told=f"loss {loss:.3f}, {rate:.0f} pairs/s{self._recall}")

    def _move(self, unit: str, done: int, total: int, *, told: str = "") -> None:
        if self._unit != unit:
            self._bar.close()
            self._bar, self._unit = self._of(unit), unit
        self._bar.set_postfix_str(told, refresh=False)
        self._bar.total = total
        self._bar.update(done - self._bar.n)


@contextmanager
def _measured(model: str | None, catalog: Path | None, device: str) -> Iterator[tuple[Any, Any]]:
    """The encoder to measure, and the search of the catalog that serves it."""
    from retrieval.encoder import STARTER, load_encoder

    if catalog is None:
        yield load_encoder(model or STARTER, device=device), None
        return
    with reading(catalog, device=device) as opened:
        yield opened.encoder, opened.served

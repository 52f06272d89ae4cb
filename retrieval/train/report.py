"""RUN/report.html: did training help, how did it go, and what does the model get right and wrong, on one page."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import MissingPackageError
from retrieval.files import write_atomically
from retrieval.html import Example, Gallery, Panel, Picture, ReportPage, Table, training_report
from retrieval.metrics import KS
from retrieval.metrics.intervals import Estimate
from retrieval.plots import step_plot
from retrieval.train.data.dataset import MIN_HELD_OUT
from retrieval.train.validation.comparison import DIRECTIONS, Comparison

if TYPE_CHECKING:
    from retrieval.train.loop.trainer import Trainer
    from retrieval.train.result import Evaluations, TrainResult

logger = logging.getLogger("retrieval.train")
Ids = NDArray[np.int64]

_EXAMPLES: Final = 6
_POINTS: Final = 400  # of a curve: more cannot be seen
_OPTIMISTIC: Final = (
    "The saved model was chosen by its recall on these very pairs, among the start, the model after each epoch and,"
    " when fine-tuning, interpolations of both. That makes its figures, and the differences, a little too good; pairs"
    " that played no part in the choice would tell exactly."
)
_UNKNOWN: Final = (
    "Nothing was held out to validate on, so it is unknown whether training helped. Name pairs with --validation, or"
    f" use more images: a tenth, but at least {MIN_HELD_OUT}, is then held out."
)
_READING: Final = (
    "Sorted by how many times nearer to the top, or farther from it, the best right answer came; ranks are among all"
    " validation images, or all their texts."
)


def write_report(trainer: "Trainer", result: "TrainResult", evaluations: "Evaluations | None") -> None:
    """Write the page into the run's folder; a kill leaves the old page or the new."""
    settings = asdict(trainer.config)
    if not isinstance(trainer.config.model, str):
        settings["model"] = "a config of its own, in training/config.json"
    panels, notes = _try_to_plot(trainer)
    page = ReportPage(
        title=f"Training of {result.run.resolve().name}",
        conclusion=result.conclusion,
        notes=[_OPTIMISTIC if result.comparisons else _UNKNOWN, *result.warnings, *notes],
        recalls=_make_recall_table(result.comparisons) if result.comparisons else None,
        panels=panels,
        galleries=[] if evaluations is None else _make_galleries(trainer, evaluations),
        reading=_READING,
        facts=_list_facts(trainer, result),
        settings=[(name, "" if value is None else str(value)) for name, value in settings.items()],
        skipped=[(one.name, one.reason) for one in result.skipped],
    )
    text = training_report(page)
    write_atomically(trainer.folder.report, lambda path: path.write_text(text, encoding="utf-8"))


def _try_to_plot(trainer: "Trainer") -> tuple[list[Panel], list[str]]:
    """Return the plots, or none and the reason: a training of hours must not fail for want of a plot."""
    try:
        return _make_panels(trainer.folder.read_log(), trainer.before), []
    except MissingPackageError as error:
        logger.warning("%s has no plots. %s", trainer.folder.report, error)
        return [], [f"This page has no plots. {error}"]


def _make_recall_table(comparisons: Mapping[str, Comparison]) -> Table:
    ones = {f"{name} R@{k}": comparisons[f"{way}_recall@{k}"] for way, name in DIRECTIONS.items() for k in KS}
    rows = [
        (name, _format_cell(one.before, ".1f"), _format_cell(one.after, ".1f"), _format_cell(one.difference, "+.1f"))
        for name, one in ones.items()
    ]
    return Table(header=("recall in %, with 95 % intervals", "before", "after", "difference"), rows=tuple(rows))


def _format_cell(one: Estimate, form: str) -> str:
    """A figure in percent with its interval, where it has one."""
    value, low, high = (format(100 * bound, form) for bound in (one.value, one.low, one.high))
    return value if math.isnan(one.low) else f"{value} ({low} to {high})"


def _make_panels(rows: Sequence[Mapping[str, str]], before: Mapping[str, float]) -> list[Panel]:
    steps = np.array([int(row["step"]) for row in rows])
    if not len(steps):
        return []
    curves = {
        name: _thin_out(steps, np.array([float(row[name]) for row in rows])) for name in ("loss", "learning_rate")
    }
    panels = [
        Panel("Loss", step_plot({"loss": curves["loss"]}, label="loss")),
        Panel("Learning rate", step_plot({"learning rate": curves["learning_rate"]}, label="learning rate")),
    ]
    validated = [row for row in rows if row["mean_recall"]]
    if validated:
        recalls = {
            f"{name} R@{k}": {0: before[f"{way}_recall@{k}"]}
            | {int(row["step"]): float(row[f"{way}_recall@{k}"]) for row in validated}
            for way, name in DIRECTIONS.items()
            for k in (1, 10)
        }
        panels.append(Panel("Recall on the validation pairs", step_plot(recalls, label="recall", least=0.0, most=1.0)))
    return panels


def _thin_out(steps: Ids, values: NDArray[np.float64]) -> dict[int, float]:
    """At most `_POINTS` means of neighbors, by the last step of each."""
    parts = np.array_split(np.arange(len(steps)), min(_POINTS, len(steps)))
    return {int(steps[part[-1]]): float(values[part].mean()) for part in parts}


def _make_galleries(trainer: "Trainer", evaluations: "Evaluations") -> list[Gallery]:
    galleries = []
    for way, name in DIRECTIONS.items():
        before, after = (getattr(ranks, way).first_rank() for ranks in (evaluations.before, evaluations.after))
        gain = np.log(before) - np.log(after)
        best, worst = np.argsort(-gain, kind="stable"), np.argsort(gain, kind="stable")
        chosen = {
            "Gained most": best[gain[best] > 0],
            "Lost most": worst[gain[worst] < 0],
            "Worst after training": np.argsort(-after, kind="stable")[: int((after > 1).sum())],
        }
        galleries += [
            Gallery(f"{heading}, {name}", way, _make_examples(trainer, evaluations, way, queries=queries))
            for heading, queries in chosen.items()
            if len(queries)
        ]
    return galleries


def _make_examples(trainer: "Trainer", evaluations: "Evaluations", way: str, *, queries: Ids) -> list[Example]:
    """The first few of these queries that are about different things."""
    collection = trainer.validation_set.collection
    asked = (collection.item_texts if way == "text_to_image" else collection.item_images).ids
    _, first = np.unique(asked[queries], return_index=True)
    return [_make_example(trainer, evaluations, way, query=int(queries[index])) for index in sorted(first)[:_EXAMPLES]]


def _make_example(trainer: "Trainer", evaluations: "Evaluations", way: str, *, query: int) -> Example:
    collection, sources = trainer.validation_set.collection, trainer.validation_set.sources
    right = collection.relevant_images()
    if way == "text_to_image":
        asked, answers = int(collection.item_texts.ids[query]), right
        scores = evaluations.images @ evaluations.texts[asked]
    else:
        asked, answers = int(collection.item_images.ids[query]), right.transpose()
        scores = evaluations.texts @ evaluations.images[asked]
    own = answers.ids[answers.offsets[asked] : answers.offsets[asked + 1]]
    found, top = int(own[np.argmax(scores[own])]), int(np.argmax(scores))
    text, picture = (asked, found) if way == "text_to_image" else (found, asked)
    wrong: Picture | str | None = None
    if top not in own:
        wrong = sources[top] if way == "text_to_image" else collection.texts[top]
    before, after = (
        float(getattr(ranks, way).first_rank()[query]) for ranks in (evaluations.before, evaluations.after)
    )
    return Example(collection.texts[text], sources[picture], before, after, wrong)


def _list_facts(trainer: "Trainer", result: "TrainResult") -> list[tuple[str, str]]:
    dataset, validation_set = trainer.dataset, trainer.validation_set
    groups = trainer.image_cache.duplicate_groups[np.array(dataset.images, np.int64)]
    near_duplicates = len(groups) - len(np.unique(groups))
    mix = f", {result.alpha:.0%} of the way from the start" if result.alpha else ""
    saved = f"{result.best_step or result.steps:,}{mix}"
    return [
        ("images trained on", f"{len(groups):,}"),
        ("their texts", f"{len(dataset.texts):,}"),
        ("near-duplicates among them", f"{near_duplicates:,} (never negatives of each other)"),
        ("images validated on", f"{len(validation_set.images):,}"),
        ("their items", f"{validation_set.collection.items:,}"),
        ("their distinct texts", f"{len(validation_set.collection.texts):,}"),
        ("shared with training", str(result.leakage)),
        ("skipped", f"{len(result.skipped):,}"),
        ("steps", f"{result.steps:,}"),
        ("saved", "the start" if result.held_out and result.best_step == 0 else f"the model after step {saved}"),
    ]

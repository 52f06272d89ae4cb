"""RUN/report.html: did training help, how did it go, and what does the model get right and wrong, as one page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from retrieval.files import write_atomically
from retrieval.html import Panel, Picture, ReportPage, Table, training_report
from retrieval.metrics import KS
from retrieval.metrics.intervals import Estimate
from retrieval.plots import step_plot
from retrieval.train.data.dataset import MIN_HELD_OUT
from retrieval.train.validation.comparison import WAYS, Change

if TYPE_CHECKING:
    from retrieval.train.loop.trainer import Trainer
    from retrieval.train.result import Exams, TrainResult

Ids = NDArray[np.int64]

_EXAMPLES: Final = 6
_POINTS: Final = 400  # of a curve: more cannot be seen
_OPTIMISTIC: Final = (
    "The kept model was chosen by how it does on these very pairs: from the start, one after each epoch and, when"
    " fine-tuning, mixes of both. That makes its figures, and so the differences, a little too good; pairs that played"
    " no part in the choice would tell exactly."
)
_UNKNOWN: Final = "Nothing was held out to validate on, so whether training helped cannot be told. Name pairs with"
_READING: Final = (
    "By how many times nearer to the top, or farther from it, the best right answer came; ranks are among all"
    " validation pictures, or all their texts."
)


@dataclass(frozen=True, slots=True)
class Example:
    """A query of the exam, with the right answer that came first, and what came before it.

    Attributes:
        text: what was asked, or the right answer.
        picture: the right answer, or what was asked.
        before: the right answer's rank at the start.
        after: its rank by the kept model.
        instead: what the kept model puts first, where that is wrong: a picture, or a text.
    """

    text: str
    picture: Picture
    before: float
    after: float
    instead: Picture | str | None


@dataclass(frozen=True, slots=True)
class Gallery:
    """Examples under a heading."""

    heading: str
    way: str
    examples: Sequence[Example]


def write_report(trainer: "Trainer", result: "TrainResult", exams: "Exams | None") -> None:
    """Write the page into the run's folder, whole or not at all."""
    page = ReportPage(
        title=f"Training of {result.run.resolve().name}",
        verdict=result.verdict,
        notes=_notes(result),
        recalls=_recall_table(result.changes) if result.changes else None,
        panels=_panels(trainer.folder.logged(), trainer.before),
        galleries=[] if exams is None else _galleries(trainer, exams),
        reading=_READING,
        facts=_facts(trainer, result),
        settings=_settings(trainer),
        skipped=[(one.name, one.reason) for one in result.skipped],
    )
    text = training_report(page)
    write_atomically(trainer.folder.report, lambda path: path.write_text(text, encoding="utf-8"))


def _notes(result: "TrainResult") -> list[str]:
    leaked = [f"Validation shares {result.leakage} with training: its figures are too good."] if result.leakage else []
    if not result.changes:
        return [
            f"{_UNKNOWN} --validation, or have more pictures: a tenth, {MIN_HELD_OUT} at least, is held out then.",
            *leaked,
        ]
    return [_OPTIMISTIC, *leaked]


def _recall_table(changed: Mapping[str, Change]) -> Table:
    rows = []
    for way, name in WAYS.items():
        for k in KS:
            one = changed[f"{way}_recall@{k}"]
            cells = (_cell(one.before, ".1f"), _cell(one.after, ".1f"), _cell(one.difference, "+.1f"))
            rows.append((f"{name} R@{k}", *cells))
    return Table(header=("recall in %, with 95 % intervals", "before", "after", "difference"), rows=tuple(rows))


def _cell(one: Estimate, form: str) -> str:
    """A figure in percent with its interval, where it has one."""
    value, low, high = (format(100 * bound, form) for bound in (one.value, one.low, one.high))
    return value if math.isnan(one.low) else f"{value} ({low} to {high})"


def _panels(rows: Sequence[Mapping[str, str]], before: Mapping[str, float]) -> list[Panel]:
    steps = np.array([int(row["step"]) for row in rows])
    if not len(steps):
        return []
    curves = {name: _thinned(steps, np.array([float(row[name]) for row in rows])) for name in ("loss", "learning_rate")}
    panels = [
        Panel("Loss", step_plot({"loss": curves["loss"]}, label="loss")),
        Panel("Learning rate", step_plot({"learning rate": curves["learning_rate"]}, label="learning rate")),
    ]
    graded = [row for row in rows if row["mean_recall"]]
    if graded:
        recalls = {
            f"{name} R@{k}": {0: before[f"{way}_recall@{k}"]}
            | {int(row["step"]): float(row[f"{way}_recall@{k}"]) for row in graded}
            for way, name in WAYS.items()
            for k in (1, 10)
        }
        panels.append(Panel("Recall on the validation pairs", step_plot(recalls, label="recall", least=0.0, most=1.0)))
    return panels


def _thinned(steps: Ids, values: NDArray[np.float64]) -> dict[int, float]:
    """At most `_POINTS` means of neighbours, by the last step of each."""
    parts = np.array_split(np.arange(len(steps)), min(_POINTS, len(steps)))
    return {int(steps[part[-1]]): float(values[part].mean()) for part in parts}


def _galleries(trainer: "Trainer", exams: "Exams") -> list[Gallery]:
    galleries = []
    for way, name in WAYS.items():
        before, after = (getattr(places, way).first_rank() for places in (exams.before, exams.after))
        factor = np.log(before) - np.log(after)
        best, worst = np.argsort(-factor, kind="stable"), np.argsort(factor, kind="stable")
        chosen = {
            "Gained most": best[factor[best] > 0],
            "Lost most": worst[factor[worst] < 0],
            "Worst after training": np.argsort(-after, kind="stable")[: int((after > 1).sum())],
        }
        galleries += [
            Gallery(f"{heading}, {name}", way, _examples(trainer, exams, way, queries=queries))
            for heading, queries in chosen.items()
            if len(queries)
        ]
    return galleries


def _examples(trainer: "Trainer", exams: "Exams", way: str, *, queries: Ids) -> list[Example]:
    """The first few of these queries that show different things."""
    collection = trainer.exam.collection
    asked = (collection.item_texts if way == "text_to_image" else collection.item_images).ids
    _, first = np.unique(asked[queries], return_index=True)
    return [_example(trainer, exams, way, int(queries[place])) for place in sorted(first)[:_EXAMPLES]]


def _example(trainer: "Trainer", exams: "Exams", way: str, query: int) -> Example:  # noqa: PLR0917 (all its own)
    collection, sources = trainer.exam.collection, trainer.exam.sources
    right = collection.relevant_images()
    if way == "text_to_image":
        asked, answers = int(collection.item_texts.ids[query]), right
        scores = exams.pictures @ exams.texts[asked]
    else:
        asked, answers = int(collection.item_images.ids[query]), right.transpose()
        scores = exams.texts @ exams.pictures[asked]
    own = answers.ids[answers.offsets[asked] : answers.offsets[asked + 1]]
    found, top = int(own[np.argmax(scores[own])]), int(np.argmax(scores))
    text, picture = (asked, found) if way == "text_to_image" else (found, asked)
    wrong: Picture | str | None = None
    if top not in own:
        wrong = sources[top] if way == "text_to_image" else collection.texts[top]
    before, after = (float(getattr(places, way).first_rank()[query]) for places in (exams.before, exams.after))
    return Example(collection.texts[text], sources[picture], before, after, wrong)


def _facts(trainer: "Trainer", result: "TrainResult") -> list[tuple[str, str]]:
    image_cache, dataset, exam = trainer.image_cache, trainer.dataset, trainer.exam
    learned = np.array(dataset.images, np.int64)
    twins = len(learned) - len(np.unique(image_cache.duplicate_groups[learned]))
    return [
        ("pictures learned from", f"{len(learned):,}"),
        ("their texts", f"{len(dataset.texts):,}"),
        ("near-duplicates among them", f"{twins:,} (never taken for wrong answers of each other)"),
        ("pictures that validate", f"{len(exam.pictures):,}"),
        ("their items", f"{exam.collection.items:,}"),
        ("their texts, distinct", f"{len(exam.collection.texts):,}"),
        ("shared with training", str(result.leakage)),
        ("skipped", f"{len(result.skipped):,}"),
        ("steps", f"{result.steps:,}"),
        ("kept", _kept(result)),
    ]


def _kept(result: "TrainResult") -> str:
    if result.held_out and result.best_step == 0:
        return "the start"
    mix = f", {result.alpha:.0%} of the way from the start" if result.alpha else ""
    return f"the model after step {result.best_step or result.steps:,}{mix}"


def _settings(trainer: "Trainer") -> list[tuple[str, str]]:
    shown = asdict(trainer.config)
    if not isinstance(trainer.config.model, str):
        shown["model"] = "a config of its own, in training/config.json"
    return [(name, "" if value is None else str(value)) for name, value in shown.items()]

"""The whole line on a drawn shop: first searches, fine-tuning, what that gained, a catalog and a page."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retrieval.catalog import Catalog, is_catalog
from retrieval.demo.sample_shop import draw_shop, generate_products, split_by_combination
from retrieval.encoder import STARTER, load_encoder
from retrieval.errors import OtherRunError, RetrievalError
from retrieval.evaluate import evaluate
from retrieval.evaluate.measures import DIRECTIONS
from retrieval.filters.expressions import parse_expression
from retrieval.html import Section, Table, contact_sheet
from retrieval.metrics import KS
from retrieval.metrics.intervals import paired_difference
from retrieval.pairs import read_pairs
from retrieval.plots import recall_plot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retrieval.encoder import Encoder
    from retrieval.evaluate.report import Report
    from retrieval.pairs import Pair, Pairs
    from retrieval.train.config import TrainConfig
    from retrieval.types import Hit

    Say = Callable[[str], None]

_INTRO: Final = (
    "A shop of invented products: thirty kinds of things in twelve colors and eight patterns. The starter model that "
    "comes with the package was fine-tuned on some of them. What is asked here, and counted below, are combinations of "
    "kind, color and pattern that it was never trained on; the answers come from the whole shop."
)
_RECALL: Final = (
    "The share of queries with at least one right answer among the first K, ranked among those products alone."
)
_SHOWN: Final = ("price", "size", "stock")  # what the captions do not say
_MARKER: Final = ".retrieval-demo"  # in a folder that the demo made: nowhere else does it delete anything
_TOLD: Final = 5  # hits of each query that are told; the page shows twice as many


@dataclass(frozen=True, slots=True)
class _Question:
    """A query of the demo, and what there is to see in its answers."""

    heading: str
    text: str | None = None
    image: Path | None = None
    filters: tuple[str, ...] = ()

    def command(self, catalog: Path) -> str:
        """How one asks it on the command line."""
        words = ["retrieval", "search", str(catalog), *([self.text] if self.text else [])]
        words += ["--image", str(self.image)] if self.image else []
        return shlex.join([*words, *(word for one in self.filters for word in ("--where", one))])


_FIRST: Final = (
    _Question("", text="a red bicycle"),
    _Question("", text="teapot"),
    _Question("", text="something to keep dry in the rain"),
)


def run_demo(
    folder: Path, *, say: Say, count: int = 1500, held_out: int = 300, config: TrainConfig | None = None
) -> dict[str, Any]:
    """What its last line says as JSON: recall@10 both ways, how many products were held out, the seconds it took.

    Draws the shop into `folder/shop`, and searches the held-out products, in `folder/first`, with the model as it is.
    Then fine-tunes that into `folder/run` on all the others, builds `folder/catalog` of the whole shop and writes
    `folder/demo.html`. What is there already is used again.

    Args:
        folder: new, empty, or an earlier demo's.
        say: is handed the story, a few lines at a time.
        count: how many products there are.
        held_out: how many of them are kept out of training, each of a combination of kind, color and pattern of its
            own.
        config: of the training.

    Raises:
        RetrievalError: the folder holds something that is not the demo's.
    """
    started = time.perf_counter()
    _claim(folder)
    shop = read_pairs(_drawn(folder / "shop", count=count, say=say))
    training, unseen = (replace(shop, pairs=tuple(part)) for part in split_by_combination(shop.pairs, count=held_out))
    before = _first_searches(unseen, folder, say=say)
    encoder = _trained(training, folder / "run", config=config, say=say)
    report = _measured(encoder, unseen, before=before, say=say)
    with _built(shop, folder / "catalog", encoder=encoder, say=say) as catalog:
        answers = [
            _answer(catalog, question, folder=folder / "catalog", say=say) for question in _questions(unseen.pairs)
        ]
    page = folder / "demo.html"
    page.write_text(
        contact_sheet("A small shop, searched", [*answers, _recall(report)], intro=_INTRO), encoding="utf-8"
    )
    summary = _summary(report, held_out=len(unseen), seconds=time.perf_counter() - started)
    say(f"\nThe same with pictures: {page}\n\n{_next_steps()}\n\n{json.dumps(summary)}")
    return summary


def _claim(folder: Path) -> None:
    """Mark a new or an empty folder as the demo's own, which may delete there what an earlier release's left."""
    if (folder / _MARKER).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if others:
        raise RetrievalError(
            f"{others[0]} is not known to be the demo's: delete it if it is, or name a new or an empty folder"
        )
    (folder / _MARKER).touch()


def _drawn(folder: Path, *, count: int, say: Say) -> Path:
    """Path of its products.csv; drawn unless the same products stand there."""
    table = folder / "products.csv"
    products = generate_products(count=count)
    drawn = table.exists() and _titles(table) == [product.title for product in products]
    if drawn and all((folder / product.image).exists() for product in products):
        say(f"The shop of {count} products stands in {folder}.")
        return table
    say(f"Drawing a shop of {count} products into {folder} ...")
    return draw_shop(folder, count=count)


def _titles(table: Path) -> list[str | None]:
    with table.open(encoding="utf-8", newline="") as file:
        return [row.get("title") for row in csv.DictReader(file)]


def _trained(training: Pairs, folder: Path, *, config: TrainConfig | None, say: Say) -> Encoder:
    from retrieval.train import TrainConfig, train

    # The heads learn in a minute what the towers would learn in ten. Nothing has to be kept of what they knew before.
    recipe = TrainConfig(
        model=STARTER, tune="heads", epochs=40, learning_rate=2e-3, wise_ft="off", validation_share=0.0
    )
    config = config or recipe
    say(f"\nFine-tuning its heads on the {len(training)} other products into {folder} ...")
    try:
        result = train(training, folder, config=config, resume=True, progress=_told(say))
    except OtherRunError:  # that of another release's demo
        shutil.rmtree(folder)
        result = train(training, folder, config=config, resume=True, progress=_told(say))
    say(result.summary())
    return load_encoder(folder)


def _told(say: Say) -> Callable[[int, int, float, float], None]:
    """Progress of training, told at every tenth of it."""

    def progress(step: int, steps: int, loss: float, rate: float) -> None:  # noqa: PLR0917 (as `train` calls it)
        if step * 10 // steps > (step - 1) * 10 // steps:
            say(f"  step {step} of {steps}, loss {loss:.2f}, {rate:.0f} pairs/s")

    return progress


def _built(shop: Pairs, folder: Path, *, encoder: Encoder, say: Say) -> Catalog:
    """The catalog of all products; one that an earlier run of the demo built with other weights is made anew."""
    if is_catalog(folder) and not _is_of(encoder, folder):
        shutil.rmtree(folder)
    catalog = Catalog.open(folder, encoder=encoder)
    report = catalog.build(shop)
    say(f"\nCatalog {folder}: added {report.added}, unchanged {report.unchanged}.")
    return catalog


def _is_of(encoder: Encoder, folder: Path) -> bool:
    with Catalog.open(folder, read_only=True) as catalog:
        facts = catalog.info()
    recorded = (facts["image_fingerprint"], facts["text_fingerprint"])
    return recorded == (encoder.image_fingerprint, encoder.text_fingerprint)


def _first_searches(unseen: Pairs, folder: Path, *, say: Say) -> Report:
    """What a few searches find with the starter as it comes, and its recall."""
    encoder = load_encoder(STARTER)
    with _built(unseen, folder / "first", encoder=encoder, say=say) as catalog:
        for question in _FIRST:
            _answer(catalog, question, folder=folder / "first", say=say)
    return evaluate(encoder, unseen)


def _measured(encoder: Encoder, unseen: Pairs, *, before: Report, say: Say) -> Report:
    report = evaluate(encoder, unseen)
    say(f"\nRecall on the {len(unseen)} products of combinations never trained on:\n\n{report.table()}")
    say("\nWhat fine-tuning gained on them:\n" + "\n".join(_gains(before, report)))
    return report


def _gains(before: Report, after: Report) -> Iterator[str]:
    """A line for each way: R@1 before and after, and the difference with its interval, over the same queries."""
    for way, name in DIRECTIONS.items():
        one, other = (getattr(report, way).ranks.recall(1) for report in (before, after))
        gain = paired_difference(one, other, items=getattr(after, way).items)
        yield (
            f"{name} R@1 {one.mean():.1%} → {other.mean():.1%}, {100 * gain.value:+.1f} points "
            f"(95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        )


def _questions(unseen: Sequence[Pair]) -> list[_Question]:
    """Words, a picture, a picture with words, words with a filter; about products that were never trained on."""
    mug, dress, teapot, shirt = (_first(unseen, kind) for kind in ("mug", "dress", "teapot", "T-shirt"))
    other = "blue" if shirt.attributes["color"] != "blue" else "red"
    return [
        _Question("Words find pictures", text=mug.captions[0]),
        _Question("Longer words find pictures", text=dress.captions[-1]),
        _Question("A picture finds captions", image=teapot.image.path),
        _Question("A picture and words find pictures", image=shirt.image.path, text=f"in {other}"),
        _Question("Words and a filter", text="red with dots", filters=("category=furniture", "price<450", "stock>0")),
    ]


def _first(pairs: Sequence[Pair], kind: str) -> Pair:
    return next((pair for pair in pairs if pair.attributes["kind"] == kind), pairs[0])


def _answer(catalog: Catalog, question: _Question, *, folder: Path, say: Say) -> Section:
    where = {"$and": [parse_expression(one) for one in question.filters]} if question.filters else None
    hits = catalog.search(question.text, image=question.image, where=where, k=2 * _TOLD)
    lines = "\n".join(_line(hit) for hit in hits[:_TOLD]) or "nothing found"
    say(f"\n$ {question.command(folder)}\n{lines}")
    return Section(
        heading=question.heading,
        text=question.text,
        image=question.image,
        filters=question.filters,
        hits=[replace(hit, attributes={name: hit.attributes[name] for name in _SHOWN}) for hit in hits],
    )


def _line(hit: Hit) -> str:
    return f"{hit.score:.4f}\t{hit.id}\t{hit.caption}"


def _recall(report: Report) -> Section:
    curves = report.recall_curve(range(1, 51))
    return Section(
        heading=f"Recall on {report.items} products that were never trained on",
        note=_RECALL,
        svg=recall_plot({name: curves[way] for way, name in DIRECTIONS.items()}, chance=curves["text_to_image_random"]),
        table=_recall_table(report),
    )


def _recall_table(report: Report) -> Table:
    rows = [(name, report.metrics, way) for way, name in DIRECTIONS.items()]
    rows += [(f"{name}, by chance", report.random_baseline, way) for way, name in DIRECTIONS.items()]
    cells = [(name, *(f"{figures[f'{way}_recall@{k}']:.1%}" for k in KS)) for name, figures, way in rows]
    return Table(header=("recall", *(f"R@{k}" for k in KS)), rows=tuple(cells))


def _summary(report: Report, *, held_out: int, seconds: float) -> dict[str, Any]:
    recall = {way: round(report.metrics[f"{way}_recall@10"], 4) for way in DIRECTIONS}
    return {"recall@10": recall, "held_out": held_out, "seconds": round(seconds, 1)}


def _next_steps() -> str:
    command = _command()
    return (
        "Next, on your own pictures (--model ViT-B-32-256/datacomp_s34b_b86k finds more; it is downloaded once):\n"
        f"  {command} build ~/Pictures pictures.catalog\n"
        f'  {command} search pictures.catalog "a dog on the beach" --html dogs.html\n'
        f"  {command} train my-captioned-pictures my-run"
    )


def _command() -> str:
    """How the reader starts `retrieval`: by its path where the environment is not active."""
    if shutil.which("retrieval"):
        return "retrieval"
    path = Path(sys.executable).with_name("retrieval")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

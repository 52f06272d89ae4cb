"""A demonstration on a drawn shop: first searches, fine-tuning and what it gained, a catalog and a page."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retrieval.catalog import Catalog, is_catalog
from retrieval.demo.sample_shop import draw_shop, generate_products, split_by_combination
from retrieval.encoder import STARTER, load_encoder
from retrieval.errors import MissingPackageError, OtherRunError, RetrievalError
from retrieval.evaluate import evaluate
from retrieval.evaluate.measures import DIRECTIONS
from retrieval.filters.expressions import parse_expression
from retrieval.html import Section, Table, contact_sheet
from retrieval.metrics import KS
from retrieval.metrics.intervals import paired_difference
from retrieval.pairs import read_pairs
from retrieval.plots import recall_plot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from retrieval.encoder import Encoder
    from retrieval.evaluate.report import Report
    from retrieval.pairs import Pair, Pairs
    from retrieval.train.config import TrainConfig

    Echo = Callable[[str], None]

_INTRO: Final = (
    "A shop of invented products: thirty kinds in twelve colors and eight patterns. The starter model that comes with "
    "the package was fine-tuned on some of them. The queries here, and the recall below, are of combinations of kind, "
    "color and pattern that it was never trained on; the hits come from the whole shop."
)
_RECALL_NOTE: Final = (
    "The fraction of queries with a relevant answer among the first K, ranked among those products alone."
)
_ATTRIBUTES: Final = ("price", "size", "stock")  # those that the captions do not mention
_MARKER: Final = ".retrieval-demo"  # in a folder that the demo made: it deletes nothing anywhere else
_PRINTED_HITS: Final = 5  # the page shows twice as many


@dataclass(frozen=True, slots=True)
class _Query:
    """A query of the demo; with a heading it is shown on the page."""

    heading: str = ""
    text: str | None = None
    image: Path | None = None
    filters: tuple[str, ...] = ()

    def command(self, catalog: Path) -> str:
        """Return the query as a command."""
        words = ["retrieval", "search", str(catalog), *([self.text] if self.text else [])]
        words += ["--image", str(self.image)] if self.image else []
        return shlex.join([*words, *(word for one in self.filters for word in ("--where", one))])


_FIRST_QUERIES: Final = [_Query(text=text) for text in ("a red bicycle", "teapot", "something to keep dry in the rain")]


def run_demo(
    folder: Path, *, echo: Echo, count: int = 1500, held_out: int = 300, config: TrainConfig | None = None
) -> dict[str, Any]:
    """Run the demo; return recall@10 of both directions, the number of held-out products and the seconds it took.

    Draws the shop into `folder/shop`, and searches the held-out products, in `folder/first`, with the starter. Then
    fine-tunes it into `folder/run` on all the others, builds `folder/catalog` of the whole shop and writes
    `folder/demo.html`. What exists already is used again.

    Args:
        folder: New, empty, or of an earlier demo.
        echo: Called with the output, a few lines at a time; the last line is what is returned, as JSON.
        count: The number of products.
        held_out: How many of them are held out of training, each with a combination of kind, color and pattern of its
            own.
        config: Training settings.

    Raises:
        RetrievalError: The folder contains something that is not the demo's.
    """
    started = time.perf_counter()
    _check_packages()
    _claim_folder(folder)
    shop = read_pairs(_draw_if_needed(folder / "shop", count=count, echo=echo))
    training, unseen = (replace(shop, pairs=tuple(part)) for part in split_by_combination(shop.pairs, count=held_out))
    starter = load_encoder(STARTER)
    with _build_catalog(unseen, folder / "first", encoder=starter, echo=echo) as catalog:
        for query in _FIRST_QUERIES:
            _search(catalog, query, folder=folder / "first", echo=echo)
    before = evaluate(starter, unseen)
    encoder = _train(training, folder / "run", config=config, echo=echo)
    report = evaluate(encoder, unseen)
    echo(f"\nRecall on the {len(unseen)} products of combinations never trained on:\n\n{report.table()}")
    echo("\nWhat fine-tuning gained on them:\n" + "\n".join(_format_gains(before, report)))
    with _build_catalog(shop, folder / "catalog", encoder=encoder, echo=echo) as catalog:
        sections = [
            _search(catalog, query, folder=folder / "catalog", echo=echo) for query in _choose_queries(unseen.pairs)
        ]
    page = folder / "demo.html"
    text = contact_sheet("A small shop, searched", [*sections, _recall_section(report)], intro=_INTRO)
    page.write_text(text, encoding="utf-8")
    recalls = {way: round(report.metrics[f"{way}_recall@10"], 4) for way in DIRECTIONS}
    summary = {"recall@10": recalls, "held_out": len(unseen), "seconds": round(time.perf_counter() - started, 1)}
    echo(f"\nThe same with pictures: {page}\n\n{_next_steps()}\n\n{json.dumps(summary)}")
    return summary


def _check_packages() -> None:
    """Fail for want of a package now, rather than after the first searches."""
    from retrieval.train import train  # noqa: F401 - importing it is the check


def _claim_folder(folder: Path) -> None:
    """Mark a new or an empty folder as the demo's own, in which it may delete what an earlier release left."""
    if (folder / _MARKER).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if others:
        raise RetrievalError(
            f"{others[0]} is not known to be the demo's. Delete it if it is, or name a new or an empty folder."
        )
    (folder / _MARKER).touch()


def _draw_if_needed(folder: Path, *, count: int, echo: Echo) -> Path:
    """Return the path of the shop's products.csv; the shop is drawn unless it is there with the same products."""
    table = folder / "products.csv"
    products = generate_products(count=count)
    titles: list[str | None] = []
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            titles = [row.get("title") for row in csv.DictReader(file)]
    is_drawn = titles == [product.title for product in products]
    if is_drawn and all((folder / product.image).exists() for product in products):
        echo(f"The shop of {count} products is in {folder}.")
        return table
    echo(f"Drawing a shop of {count} products into {folder} ...")
    return draw_shop(folder, count=count)


def _train(training: Pairs, folder: Path, *, config: TrainConfig | None, echo: Echo) -> Encoder:
    from retrieval.train import TrainConfig, train

    # The heads learn in a minute what the towers would learn in ten, and need not keep what they knew before.
    recipe = TrainConfig(
        model=STARTER, tune="heads", epochs=40, learning_rate=2e-3, wise_ft="off", validation_share=0.0
    )
    echo(f"\nFine-tuning its heads on the {len(training)} other products into {folder} ...")

    def progress(step: int, steps: int, loss: float, rate: float) -> None:  # noqa: PLR0917 (as `train` calls it)
        if step * 10 // steps > (step - 1) * 10 // steps:
            echo(f"  step {step} of {steps}, loss {loss:.2f}, {rate:.0f} pairs/s")

    try:
        result = train(training, folder, config=config or recipe, resume=True, progress=progress)
    except OtherRunError:  # of another release's demo
        shutil.rmtree(folder)
        result = train(training, folder, config=config or recipe, resume=True, progress=progress)
    echo(result.summary())
    return load_encoder(folder, export=True)


def _build_catalog(shop: Pairs, folder: Path, *, encoder: Encoder, echo: Echo) -> Catalog:
    """Build the catalog; one that an earlier demo built with other weights is deleted first."""
    if is_catalog(folder):
        with Catalog.open(folder, read_only=True) as catalog:
            info = catalog.info()
        if any(info[name] != getattr(encoder, name) for name in ("image_fingerprint", "text_fingerprint")):
            shutil.rmtree(folder)
    catalog = Catalog.open(folder, encoder=encoder)
    report = catalog.build(shop)
    echo(f"\nCatalog {folder}: added {report.added}, unchanged {report.unchanged}.")
    return catalog


def _format_gains(before: Report, after: Report) -> Iterator[str]:
    """Yield a line for each direction: R@1 before and after, and the paired difference with its interval."""
    for way, name in DIRECTIONS.items():
        one, other = (getattr(report, way).ranks.recall(1) for report in (before, after))
        gain = paired_difference(one, other, items=getattr(after, way).items)
        yield (
            f"{name} R@1 {one.mean():.1%} → {other.mean():.1%}, {100 * gain.value:+.1f} points "
            f"(95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        )


def _choose_queries(unseen: Sequence[Pair]) -> list[_Query]:
    """Return queries for products never trained on: text, a picture, a picture with text, text with a filter."""
    first = {pair.attributes["kind"]: pair for pair in reversed(unseen)}
    mug, dress, teapot, shirt = (first.get(kind, unseen[0]) for kind in ("mug", "dress", "teapot", "T-shirt"))
    other = "blue" if shirt.attributes["color"] != "blue" else "red"
    return [
        _Query("Words find pictures", text=mug.captions[0]),
        _Query("Longer words find pictures", text=dress.captions[-1]),
        _Query("A picture finds captions", image=teapot.image.path),
        _Query("A picture and words find pictures", image=shirt.image.path, text=f"in {other}"),
        _Query("Words and a filter", text="red with dots", filters=("category=furniture", "price<450", "stock>0")),
    ]


def _search(catalog: Catalog, query: _Query, *, folder: Path, echo: Echo) -> Section:
    where = {"$and": [parse_expression(one) for one in query.filters]} if query.filters else None
    hits = catalog.search(query.text, image=query.image, where=where, k=2 * _PRINTED_HITS)
    lines = [f"{hit.score:.4f}\t{hit.id}\t{hit.caption}" for hit in hits[:_PRINTED_HITS]] or ["nothing found"]
    echo("\n".join([f"\n$ {query.command(folder)}", *lines]))
    return Section(
        heading=query.heading,
        text=query.text,
        image=query.image,
        filters=query.filters,
        hits=[replace(hit, attributes={name: hit.attributes[name] for name in _ATTRIBUTES}) for hit in hits],
    )


def _recall_section(report: Report) -> Section:
    curves = report.recall_curve(range(1, 51))
    rows = [(name, report.metrics, way) for way, name in DIRECTIONS.items()]
    rows += [(f"{name}, random order", report.random_baseline, way) for way, name in DIRECTIONS.items()]
    cells = tuple((name, *(f"{values[f'{way}_recall@{k}']:.1%}" for k in KS)) for name, values, way in rows)
    lines = {name: curves[way] for way, name in DIRECTIONS.items()}
    return Section(
        heading=f"Recall on {report.items} products that were never trained on",
        note=_RECALL_NOTE,
        svg=_try_to_plot(lines, curves["text_to_image_random"]),
        table=Table(header=("recall", *(f"R@{k}" for k in KS)), rows=cells),
    )


def _try_to_plot(curves: Mapping[str, Mapping[int, float]], random_baseline: Mapping[int, float]) -> str:
    """Return the plot as SVG; where its package is missing, nothing: the table beside it has the figures."""
    with suppress(MissingPackageError):
        return recall_plot(curves, random_baseline=random_baseline)
    return ""


def _next_steps() -> str:
    command = "retrieval"
    if not shutil.which(command):  # the environment is not active
        path = Path(sys.executable).with_name(command)
        command = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return (
        "Next, on your own pictures (--model ViT-B-32-256/datacomp_s34b_b86k finds more; it is downloaded once):\n"
        f"  {command} build ~/Pictures pictures.catalog\n"
        f'  {command} search pictures.catalog "a dog on the beach" --html dogs.html\n'
        f"  {command} train my-captioned-pictures my-run"
    )

"""Does fine-tuning help, and what does it cost elsewhere? A model tuned on one's own pairs, graded there and on photos.

    python benchmarks/fine_tune.py --data ../shared/data --model starter

Of the clothes of `luma` and of the dishes of `dishes_zh`, one at a time, four fifths are learned from: all pictures of
a product, or of a dish, are on one side. Graded are the others, and the photos of `coco_open`, which have nothing to do
with either, before and after: with the defaults, and with the text tower alone. That run is then adopted by a catalog
that the model had built, and the pictures that are embedded for it are counted.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import write_results

from retrieval.catalog import Catalog
from retrieval.encoder import load_encoder
from retrieval.metrics.intervals import Estimate, paired_difference
from retrieval.pairs import Pair, Pairs, read_pairs
from retrieval.train import TrainConfig, train
from retrieval.train.exam import Exam, Marks
from retrieval.train.run import RECALLS

SHARE = 0.8
SEED = 0
SHOWN = ("text_to_image_recall@1", "image_to_text_recall@1", "text_to_image_recall@10", "image_to_text_recall@10")
COLUMNS = ["pairs", "tuned", *(name.replace("_to_", "→").replace("_recall", " R") for name in SHOWN), "coco_open R@10"]


@dataclass(frozen=True)
class Split:
    """Pairs to learn from and pairs to grade, with nothing in common."""

    name: str
    learned: Pairs
    graded: Pairs


def main() -> None:
    """Tune on each set both ways, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds luma, dishes_zh and coco_open")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--epochs", type=int, help="of both tunings; the trainer's own number where not given")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    arguments = parser.parse_args()
    settings = {"epochs": arguments.epochs, "device": arguments.device}
    photos = read_pairs(arguments.data / "coco_open" / "captions.json", images=arguments.data / "coco_open" / "images")
    splits = [
        split("luma", read_pairs(arguments.data / "luma" / "products.csv"), lambda pair: pair.id.partition("-")[0]),
        split("dishes_zh", read_pairs(arguments.data / "dishes_zh"), lambda pair: str(pair.attributes["title"])),
    ]
    results: dict[str, Any] = {}
    rows: list[list[str]] = []
    for one in splits:
        for tune in ("both", "text"):
            found = tuned(one, photos, arguments.model, tune=tune, settings=settings)
            results.setdefault(one.name, {})[tune] = found
            rows.append([f"{one.name} ({found['learned']} / {found['graded']})", tune, *shown(found)])
            print(*rows[-1], sep=" | ", flush=True)
    print("wrote", write_results("fine_tune", {"table": {"columns": COLUMNS, "rows": rows}, **results}))


def split(name: str, pairs: Pairs, product: Callable[[Pair], str]) -> Split:
    """Four fifths of the products, drawn by a seed, and the rest."""
    products = sorted({product(pair) for pair in pairs})
    drawn = np.random.default_rng(SEED).permutation(products)[: round(SHARE * len(products))].tolist()
    learned = frozenset(drawn)
    sides = [tuple(pair for pair in pairs if (product(pair) in learned) is side) for side in (True, False)]
    return Split(name, *(replace(pairs, pairs=side) for side in sides))


def tuned(one: Split, photos: Pairs, model: str, *, tune: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Tune the model, and grade it before and after on the pairs that were kept and on the photos."""
    with tempfile.TemporaryDirectory() as folder:
        run, start = Path(folder) / "run", time.perf_counter()
        config = TrainConfig(model=model, tune=tune, **{k: v for k, v in settings.items() if v is not None})
        result = train(one.learned, run, config=config)
        seconds = time.perf_counter() - start
        device = settings["device"]
        graded = [[marks(name, pairs, device) for name in (model, str(run))] for pairs in (one.graded, photos)]
        adopted = adoption(one.graded, model, run, folder=Path(folder), device=device) if tune == "text" else {}
    own, elsewhere = (compared(*both) for both in graded)
    return {
        "learned": result.pictures,
        "validated": result.held_out,
        "graded": len({pair.image.name for pair in one.graded}),
        "steps": result.steps,
        "alpha": result.alpha,
        "seconds": round(seconds, 1),
        "own": own,
        "coco_open": elsewhere,
        **adopted,
    }


def marks(model: str, pairs: Pairs, device: str) -> Marks:
    """How a model does on pairs."""
    encoder: Any = load_encoder(model, device=device)
    exam = Exam.of(pairs.pairs, encoder, threads=None)
    places: Any = exam.places()
    return exam.marked(places)


def compared(before: Marks, after: Marks) -> dict[str, Any]:
    """Each recall before and after, with the paired difference and its interval, resampled by item."""
    values = before.recalls(), after.recalls()
    return {
        name: {"before": values[0][name], "after": values[1][name], "difference": interval(difference)}
        for name, difference in zip(RECALLS, differences(before, after), strict=True)
    }


def differences(before: Marks, after: Marks) -> list[Estimate]:
    """The paired difference of each recall, in the order of `RECALLS`."""
    return [
        paired_difference(old[:, column], new[:, column], items=items)
        for (old, items), (new, _) in zip(before.ways, after.ways, strict=True)
        for column in range(old.shape[1])
    ]


def interval(found: Estimate) -> list[float]:
    """Value, low, high."""
    return [found.value, found.low, found.high]


def adoption(pairs: Pairs, model: str, run: Path, *, folder: Path, device: str) -> dict[str, Any]:
    """Build a catalog with the model, let it adopt the run, and count the pictures that are embedded for that."""
    with Catalog.open(folder / "catalog", encoder=load_encoder(model, device=device)) as catalog:
        catalog.build(pairs)
        encoder: Any = load_encoder(run, device=device)
        encode, embedded = encoder.encode_prepared, []
        encoder.encode_prepared = lambda prepared: embedded.append(len(prepared)) or encode(prepared)
        start = time.perf_counter()
        done = catalog.adopt(encoder)
        unchanged = catalog.build(pairs).unchanged
        seconds = time.perf_counter() - start
    return {
        "adopted": {
            "pictures_kept": done.pictures,
            "pictures_embedded": sum(embedded),
            "captions_embedded": done.captions,
            "items_unchanged": unchanged,
            "seconds": round(seconds, 2),
        }
    }


def shown(found: dict[str, Any]) -> list[str]:
    """The cells of a row, in points."""
    cells = [
        "{} → {} ({} to {})".format(
            *(f"{100 * value:.1f}" for value in (one["before"], one["after"])),
            *(f"{100 * value:+.1f}" for value in one["difference"][1:]),
        )
        for one in (found["own"][name] for name in SHOWN)
    ]
    elsewhere = [found["coco_open"][f"{way}_recall@10"] for way in ("text_to_image", "image_to_text")]
    return [*cells, "; ".join(f"{100 * one['before']:.1f} → {100 * one['after']:.1f}" for one in elsewhere)]


if __name__ == "__main__":
    main()

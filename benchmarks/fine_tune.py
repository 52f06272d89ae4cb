"""Does fine-tuning help, and what does it cost elsewhere? A model tuned on one's own pairs, graded there and on photos.

    python benchmarks/fine_tune.py --data ../shared/data --model starter

Of the clothes of `luma` and of the dishes of `dishes_zh`, one at a time, four fifths are learned from: all pictures of
a product, or of a dish, are on one side. Graded are the others, before and after: with the defaults, and with the text
tower alone. That is done for one fifth after the other, each time from the model as it was, until 280 pictures at least
have been graded, each once: intervals over fewer would tell little. Then the fifths are drawn anew, because R@1 hangs
on which few dozens of pictures happen to be ranked together: of the dishes, before any tuning, it is 7 to 11 % by the
draw. The photos of `coco_open`, which have nothing to do with either, are graded each time, and count with their mean.
The run of the text tower is adopted by a catalog that the model had built, and the pictures embedded then are counted.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import read_results, write_results

from retrieval.catalog import Catalog
from retrieval.encoder import load_encoder
from retrieval.metrics.intervals import Estimate, paired_difference
from retrieval.pairs import Pair, Pairs, read_pairs
from retrieval.train import TrainConfig, train
from retrieval.train.run_folder import RECALL_NAMES
from retrieval.train.validation.comparison import QueryRecalls
from retrieval.train.validation.validator import ValidationSet

FIFTHS = 5
ENOUGH = 280
DRAWS = 2
TUNED = {"auto": "both towers", "text": "text tower"}
SHOWN = ("text_to_image_recall@1", "image_to_text_recall@1", "text_to_image_recall@10", "image_to_text_recall@10")
COLUMNS = ["pairs", "tuned", *(name.replace("_to_", "→").replace("_recall", " R") for name in SHOWN), "coco_open R@10"]


@dataclass(frozen=True)
class Split:
    """Pairs to learn from and pairs to grade, with nothing in common."""

    learned: Pairs
    graded: Pairs


def main() -> None:
    """Tune on each set both ways, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds luma, dishes_zh and coco_open")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--epochs", type=int, help="of both tunings; the trainer's own number where not given")
    parser.add_argument("--tune", action="append", choices=TUNED, help="what to tune; all of these where not given")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows that measure the same and were written already"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    arguments = parser.parse_args()
    settings = {"epochs": arguments.epochs, "device": arguments.device}
    photos = read_pairs(arguments.data / "coco_open" / "captions.json", images=arguments.data / "coco_open" / "images")
    clothes, dishes = read_pairs(arguments.data / "luma" / "products.csv"), read_pairs(arguments.data / "dishes_zh")
    products: list[tuple[str, Pairs, Callable[[Pair], str]]] = [
        ("luma", clothes, lambda pair: pair.id.partition("-")[0]),
        ("dishes_zh", dishes, lambda pair: str(pair.attributes["title"])),
    ]
    asked = {"model": arguments.model, "epochs": arguments.epochs, "draws": DRAWS}
    results = rows_of(asked) if arguments.resume else {}
    for name, pairs, product in products:
        splits = [split for draw in range(DRAWS) for split in fifths(pairs, product, seed=draw)]
        for tune in arguments.tune or TUNED:
            if tune not in results.setdefault(name, {}):
                found = tuned(splits, photos, arguments.model, tune=tune, settings=settings)
                results[name][tune] = {"asked": asked, **found}
                print(*row(name, tune, results[name][tune]), sep=" | ", flush=True)
                save(results)
    print("wrote", save(results))


def rows_of(asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows that were written already and measure the same: a table is never of two models or settings."""
    written = {name: tunes for name, tunes in read_results("fine_tune").items() if name != "table"}
    return {
        name: {tune: found for tune, found in tunes.items() if found.get("asked") == asked}
        for name, tunes in written.items()
    }


def save(results: dict[str, Any]) -> Path:
    """Write what is known so far, and the README's table of it."""
    rows = [row(name, tune, results[name][tune]) for name in results for tune in TUNED if tune in results[name]]
    return write_results("fine_tune", {"table": {"columns": COLUMNS, "rows": rows}, **results})


def row(name: str, tune: str, found: dict[str, Any]) -> list[str]:
    """A row of the table."""
    return [f"{name} ({found['learned'][0]} / {found['graded']})", TUNED[tune], *shown(found)]


def fifths(pairs: Pairs, product: Callable[[Pair], str], *, seed: int) -> list[Split]:
    """As many fifths of the products, drawn by a seed, as have enough pictures together; each with the other four."""
    products = sorted({product(pair) for pair in pairs})
    drawn = np.random.default_rng(seed).permutation(products)
    splits: list[Split] = []
    for fifth in np.array_split(drawn, FIFTHS):
        kept = frozenset(fifth.tolist())
        sides = [tuple(pair for pair in pairs if (product(pair) in kept) is side) for side in (False, True)]
        splits.append(Split(*(replace(pairs, pairs=side) for side in sides)))
        if sum(pictures(split.graded) for split in splits) >= ENOUGH:
            break
    return splits


def pictures(pairs: Pairs) -> int:
    """How many there are."""
    return len({pair.image.name for pair in pairs})


def tuned(splits: Sequence[Split], photos: Pairs, model: str, *, tune: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Tune the model on each split, and grade it before and after on the pairs that were kept and on the photos."""
    told: list[dict[str, Any]] = []
    own: tuple[list[QueryRecalls], list[QueryRecalls]] = ([], [])  # before and after
    elsewhere: tuple[list[QueryRecalls], list[QueryRecalls]] = ([], [])
    for number, split in enumerate(splits):
        with tempfile.TemporaryDirectory() as folder:
            run, start = Path(folder) / "run", time.perf_counter()
            config = TrainConfig(model=model, tune=tune, **{k: v for k, v in settings.items() if v is not None})
            result = train(split.learned, run, config=config)
            facts = {"learned": result.images, "validated": result.held_out, "steps": result.steps}
            told.append(facts | {"alpha": result.alpha, "seconds": round(time.perf_counter() - start, 1)})
            for place, name in enumerate((model, str(run))):
                own[place].append(evaluate_recalls(name, split.graded, settings["device"]))
                elsewhere[place].append(evaluate_recalls(name, photos, settings["device"]))
            if tune == "text":
                told[-1] |= adoption(split.graded, model, run, folder=Path(folder), device=settings["device"])
        print(f"{tune}, {number + 1} of {len(splits)}: {told[-1]}", flush=True)
    return {
        **{name: [one[name] for one in told] for name in told[0]},
        "graded": len({pair.image.name for split in splits for pair in split.graded}),
        "own": compared(*(pooled(parts, [split.graded for split in splits]) for parts in own)),
        "coco_open": compared(*map(averaged, elsewhere)),
    }


def pooled(parts: Sequence[QueryRecalls], graded: Sequence[Pairs]) -> QueryRecalls:
    """The recalls of several sets of pairs as those of one, in which an item has the same number everywhere."""
    number_of: dict[str, int] = {}
    numbers = [
        np.array([number_of.setdefault(name, len(number_of)) for name in dict.fromkeys(pair.id for pair in pairs)])
        for pairs in graded
    ]
    ways = [
        (
            np.concatenate([part.by_direction[way][0] for part in parts]),
            np.concatenate([own[part.by_direction[way][1]] for part, own in zip(parts, numbers, strict=True)]),
        )
        for way in range(2)
    ]
    return QueryRecalls(tuple(ways))


def averaged(parts: Sequence[QueryRecalls]) -> QueryRecalls:
    """The mean recalls of several models on the same queries."""
    ways = [
        (np.mean([part.by_direction[way][0] for part in parts], axis=0), parts[0].by_direction[way][1])
        for way in range(2)
    ]
    return QueryRecalls(tuple(ways))


def evaluate_recalls(model: str, pairs: Pairs, device: str) -> QueryRecalls:
    """How a model does on pairs."""
    encoder: Any = load_encoder(model, device=device)
    validation_set = ValidationSet.from_pairs(pairs.pairs, encoder, threads=None)
    ranks: Any = validation_set.rank_answers()
    return validation_set.query_recalls(ranks)


def compared(before: QueryRecalls, after: QueryRecalls) -> dict[str, Any]:
    """Each recall before and after, with the paired difference and its interval, resampled by item."""
    values = before.means(), after.means()
    return {
        name: {"before": values[0][name], "after": values[1][name], "difference": interval(difference)}
        for name, difference in zip(RECALL_NAMES, differences(before, after), strict=True)
    }


def differences(before: QueryRecalls, after: QueryRecalls) -> list[Estimate]:
    """The paired difference of each recall, in the order of `RECALL_NAMES`."""
    return [
        paired_difference(old[:, column], new[:, column], items=items)
        for (old, items), (new, _) in zip(before.by_direction, after.by_direction, strict=True)
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
        encode, embedded = encoder.encode_prepared, 0

        def counted(prepared: Sequence[Any]) -> Any:
            nonlocal embedded
            embedded += len(prepared)
            return encode(prepared)

        encoder.encode_prepared = counted
        start = time.perf_counter()
        done = catalog.adopt(encoder)
        unchanged = catalog.build(pairs).unchanged
        seconds = time.perf_counter() - start
    return {
        "adopted": {
            "pictures_kept": done.pictures,
            "pictures_embedded": embedded,
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

"""Does leaving out other right texts of a batch help? Against plain InfoNCE, at equal steps from the same start.

    python benchmarks/positives.py --data ../shared/data/clothing ../shared/data/openclipart [--model small]

Each set is split by item; every way trains on the same part with the same batches, and is asked about the rest. A
set that is not there is left out. Intervals are of the paired difference to plain InfoNCE, by item.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import write_results

from retrieval.encoder import load_encoder
from retrieval.evaluate import evaluate
from retrieval.metrics.intervals import paired_difference
from retrieval.pairs import Pairs, read_pairs
from retrieval.train import TrainConfig, train

if TYPE_CHECKING:
    from retrieval.metrics import Floats

WAYS = {"own": "plain InfoNCE", "mask": "left out", "share": "target shared"}


def main() -> None:
    """Train each way on each set, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--tune", default="both", help="what is trained: both, image, text or heads")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--items", type=int, help="of each set at most")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of the items")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    config = TrainConfig(
        model=given.model,
        tune=given.tune,
        epochs=given.epochs,
        batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        seed=given.seed,
        device=given.device,
        validation_share=0.0,  # the last model counts, not the one that these pairs like best
        wise_ft="off",
        checkpoint_seconds=10_000,
    )
    results = []
    for path in given.data:
        if not path.exists():
            print(f"{path} is not there: left out")
            continue
        learned, asked = parted(read_pairs(path), given.held_out, seed=given.seed, most=given.items)
        for row in compared(path.name, learned, asked, config=config, ks=given.k):
            results.append(row)
            print(row, flush=True)
    settings = {"epochs": given.epochs, "batch_size": given.batch_size, "model": given.model, "tune": given.tune}
    print(write_results("positives", {**settings, "ways": results, "table": format_table(results)}))


def format_table(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the README's table."""
    columns = [
        "set",
        "pictures",
        "steps",
        "other right texts",
        "direction",
        "k",
        "recall@k, %",
        "against plain, points",
    ]
    rows = []
    for row in results:
        change = "{difference:+.1f} (95 % {low:+.1f} to {high:+.1f})"
        points = {name: 100 * row[name] for name in ("difference", "low", "high") if name in row}
        shape = [row["set"], row["pictures"], row["steps"], WAYS[row["way"]], row["direction"], row["k"]]
        rows.append([*shape, f"{100 * row['recall']:.1f}", change.format(**points) if points else None])
    return {"columns": columns, "rows": rows}


def parted(pairs: Pairs, share: float, *, seed: int, most: int | None) -> tuple[Pairs, Pairs]:
    """Return what is learned from and what is asked, no item in both; pairs without a caption are left out."""
    said = [pair for pair in pairs if any(caption.strip() for caption in pair.captions)]
    items = list(dict.fromkeys(pair.id for pair in said))
    order = np.random.default_rng(seed).permutation(len(items))[: most or len(items)]
    asked = {items[place] for place in order[: round(share * len(order))]}
    learned = {items[place] for place in order} - asked
    first, second = (replace(pairs, pairs=tuple(pair for pair in said if pair.id in part)) for part in (learned, asked))
    return first, second


def compared(
    name: str, learned: Pairs, asked: Pairs, *, config: TrainConfig, ks: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Train every way; yield recall of each, both directions, with its difference to plain InfoNCE."""
    plain: dict[tuple[str, int], Floats] = {}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            result = train(learned, Path(folder) / "run", config=replace(config, positives=way))
            report = evaluate(load_encoder(Path(folder) / "run", device=config.device), asked, resamples=0)
        directions = {"text→image": report.text_to_image, "image→text": report.image_to_text}
        for (direction, found), k in product(directions.items(), ks):
            recalls = found.ranks.recall(k)
            before = plain.setdefault((direction, k), recalls)
            change = paired_difference(before, recalls, items=found.items)
            told = {"difference": change.value, "low": change.low, "high": change.high} if way != "own" else {}
            shape = {"set": name, "pictures": result.images, "steps": result.steps, "queries": len(recalls)}
            yield {**shape, "way": way, "direction": direction, "k": k, "recall": float(recalls.mean()), **told}


if __name__ == "__main__":
    main()

"""How well does the small encoder learn the sample shop from scratch, and how long does it take?

    python benchmarks/from_scratch.py

Draws the shop, trains "small" on all products but 1,000 whose combination of kind, color and pattern training never
shows, and ranks those among themselves. The seconds are those of training alone.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from common import write_results

from retrieval.demo.sample_shop import draw_shop, split_by_combination
from retrieval.encoder import load_encoder
from retrieval.evaluate import evaluate
from retrieval.evaluate.report import Report
from retrieval.metrics import KS
from retrieval.pairs import read_pairs
from retrieval.train import TrainConfig, train


def main() -> None:
    """Draw, train, evaluate and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=7000)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shop = read_pairs(draw_shop(Path(folder) / "shop", count=arguments.products))
        sides = split_by_combination(shop.pairs, count=arguments.held_out)
        training, unseen = (replace(shop, pairs=tuple(side)) for side in sides)
        config = TrainConfig(
            model="small", epochs=arguments.epochs, batch_size=128, learning_rate=2e-3, crop=0.8, validation_share=0.0
        )
        start = time.perf_counter()
        result = train(training, Path(folder) / "run", config=config)
        seconds = time.perf_counter() - start
        report = evaluate(load_encoder(result.run), unseen)
    rows = [
        [way, *(_cell(report, f"{key}_recall@{k}") for k in KS), f"{seconds:.0f}"]
        for way, key in (("text→image", "text_to_image"), ("image→text", "image_to_text"))
    ]
    print(*rows, sep="\n")
    table = {"columns": [f"{len(unseen):,} unseen products", *(f"R@{k}" for k in KS), "s of training"], "rows": rows}
    facts = {"learned_from": len(training), "steps": result.steps, "training_seconds": round(seconds, 1)}
    print("wrote", write_results("from_scratch", {"table": table, **facts}))


def _cell(report: Report, figure: str) -> str:
    interval = report.intervals[figure]
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


if __name__ == "__main__":
    main()

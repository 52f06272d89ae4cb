"""Recall of models on any image-text pairs, both ways, with intervals and chance.

    python benchmarks/recall.py --model demo/run ../shared/data/luma/products.csv ../shared/data/grocery

One table each is printed; all reports go to results/recall.json, or to results/NAME.json with --name.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from common import write_results

from retrieval.encoder import load_encoder
from retrieval.evaluate import evaluate
from retrieval.pairs import read_pairs


def main() -> None:
    """Evaluate every model on every set of pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", type=Path, help="whatever `retrieval build` reads")
    parser.add_argument("--model", action="append", required=True, help="a run, an open_clip name/tag; may be repeated")
    parser.add_argument("--images", type=Path, help="folder of the pictures, where that is not beside the file")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--name", default="recall", help="of the file of results")
    arguments = parser.parse_args()
    reports = []
    for model in arguments.model:
        encoder = load_encoder(model, device=arguments.device)
        for source in arguments.pairs:
            pairs = read_pairs(source, images=arguments.images)
            start = time.perf_counter()
            report = evaluate(encoder, pairs, resamples=arguments.resamples, progress=_show)
            print(report.table(), end="\n\n", flush=True)
            reports.append(
                _record(report.as_json(), model, source) | {"seconds": round(time.perf_counter() - start, 1)}
            )
    print("wrote", write_results(arguments.name, reports))


def _record(shown: dict[str, Any], model: str, source: Path) -> dict[str, Any]:
    """The report under the names of the command line, which mean something on another machine; skipped ones counted."""
    return shown | {"encoder": model, "pairs": str(source), "skipped": len(shown["skipped"])}


def _show(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{done:,} of {total:,} pictures and texts", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

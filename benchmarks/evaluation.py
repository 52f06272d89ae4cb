"""How long recall@1/5/10 of 25,000 texts and 5,000 images takes, and how much memory, against CLIP_benchmark's way.

CLIP_benchmark's way, from the definition of its `recall_at_k`: the whole matrix of scores, then for each batch of 64
queries the top K as a one-hot tensor, times the positive pairs, for each K and both ways anew.

Each measurement is a fresh process, in turns; memory is what its peak resident size gained over the embeddings.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from common import write_results

TEXTS, IMAGES, DIMENSION, SEED = 25_000, 5_000, 512, 0
KS = (1, 5, 10)
BATCH = 64


def embeddings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, five texts near each, and the image of each text; made in place, so that the peak is what is kept."""
    random = np.random.default_rng(SEED)
    images = _unit(random.standard_normal((IMAGES, DIMENSION), dtype=np.float32))
    image_of_text = np.arange(TEXTS) * IMAGES // TEXTS
    texts = random.standard_normal((TEXTS, DIMENSION), dtype=np.float32)
    for text, image in enumerate(image_of_text):
        texts[text] += 3 * images[image]
    return images, _unit(texts), image_of_text


def ours(images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray) -> list[float]:
    """The six recalls as the harness computes them, ties by expectation."""
    from retrieval.metrics import Relevance, rank

    relevance = Relevance.from_pairs(np.arange(len(texts)), image_of_text, queries=len(texts), targets=len(images))
    ways = rank(texts, images, relevance), rank(images, texts, relevance.transpose())
    return [float(ranks.recall(k).mean()) for ranks in ways for k in KS]


def theirs(images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray) -> list[float]:
    """The six recalls in CLIP_benchmark's way."""
    import torch

    def at_k(scores: torch.Tensor, positive: torch.Tensor, k: int) -> torch.Tensor:
        found = torch.nn.functional.one_hot(torch.topk(scores, k, dim=1)[1], num_classes=scores.shape[1])
        return (found * positive[:, None, :]).sum(dim=(1, 2)) / positive.sum(dim=1)

    def recall(scores: torch.Tensor, positive: torch.Tensor, k: int) -> float:
        starts = range(0, len(scores), BATCH)
        parts = [at_k(scores[start : start + BATCH], positive[start : start + BATCH], k) for start in starts]
        return float((torch.cat(parts) > 0).float().mean())

    scores = torch.from_numpy(texts) @ torch.from_numpy(images).T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(texts)), torch.from_numpy(image_of_text)] = True
    ways = ((scores, positive), (scores.T, positive.T))
    return [recall(*way, k) for way in ways for k in KS]


def everything(images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray) -> list[float]:
    """The whole report: every metric, with intervals from 1,000 resamples."""
    from retrieval.evaluate.measures import Direction, bootstrap
    from retrieval.metrics import Relevance, rank

    right = Relevance.from_pairs(np.arange(len(texts)), image_of_text, queries=len(texts), targets=len(images))
    found = Direction(rank(texts, images, right), np.asarray(image_of_text))
    back = Direction(rank(images, texts, right.transpose()), np.arange(len(images)))
    figures = bootstrap(found, back, items=len(images), resamples=1000, seed=0)
    return [figures[f"{way}_recall@{k}"].value for way in ("text_to_image", "image_to_text") for k in KS]


WAYS: dict[str, Callable[..., list[float]]] = {
    "ours": ours,
    "clip_benchmark": theirs,
    "ours_with_intervals": everything,
}


def measure(way: str) -> dict[str, object]:
    """Seconds and peak memory of one way, in this process; its libraries are loaded by a tiny run before."""
    small = np.eye(12, dtype=np.float32)
    WAYS[way](small, small, np.arange(12))
    inputs = embeddings()
    before = _peak()
    start = time.perf_counter()
    recalls = WAYS[way](*inputs)
    return {"seconds": time.perf_counter() - start, "megabytes": (_peak() - before) / 1e6, "recalls": recalls}


def main() -> None:
    """Measure every way in turns and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=WAYS, help="one way, in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    runs: dict[str, list[dict[str, object]]] = {way: [] for way in WAYS}
    for turn in range(arguments.rounds):
        for way in list(WAYS)[turn % len(WAYS) :] + list(WAYS)[: turn % len(WAYS)]:
            runs[way].append(_in_fresh_process(way))
            print(turn + 1, way, runs[way][-1], flush=True)
    results = summary(runs)
    print(json.dumps(results, indent=2))
    print("wrote", write_results("evaluation", results))


def summary(runs: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    """Medians of each way, and how the others compare to ours: seconds within each round, memory by medians."""
    seconds = {way: [float(str(run["seconds"])) for run in those] for way, those in runs.items()}
    megabytes = {way: median(float(str(run["megabytes"])) for run in those) for way, those in runs.items()}
    titles = {"clip_benchmark": "CLIP_benchmark's way", "ours_with_intervals": "ours, all metrics and intervals"}
    return {
        "table": {
            "columns": ["way", "seconds", "MB above the embeddings"],
            "rows": [[titles.get(way, way), round(median(seconds[way]), 1), round(megabytes[way])] for way in runs],
        },
        "texts": TEXTS,
        "images": IMAGES,
        "dimension": DIMENSION,
        "seconds": {way: round(median(those), 3) for way, those in seconds.items()},
        "seconds_of_each_round": {way: [round(one, 3) for one in those] for way, those in seconds.items()},
        "megabytes_above_embeddings": {way: round(size, 1) for way, size in megabytes.items()},
        "times_faster": round(
            median(a / b for a, b in zip(seconds["clip_benchmark"], seconds["ours"], strict=True)), 1
        ),
        "share_of_memory": round(megabytes["ours"] / megabytes["clip_benchmark"], 4),
        "recalls": {way: those[0]["recalls"] for way, those in runs.items()},
    }


def _in_fresh_process(way: str) -> dict[str, object]:
    command = [sys.executable, __file__, "--measure", way]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, object] = json.loads(finished.stdout)
    return measured


def _peak() -> int:
    """Peak resident bytes of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _unit(rows: np.ndarray) -> np.ndarray:
    rows /= np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return rows


if __name__ == "__main__":
    main()

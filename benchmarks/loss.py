"""What do the losses cost in time and memory, plain and in chunks, beside open_clip's own ClipLoss and SigLipLoss?

    python benchmarks/loss.py [--sizes 2048 4096 8192 16384] [--dimension 512] [--rounds 5]

Each step is loss and gradient of a batch of unit rows. Times are taken in turn, in one process; memory is the peak
above the embeddings of a process that takes one step only. A plain form whose matrices would not fit is left out.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import interleaved, median_ratio, write_results
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.nn import functional

from retrieval.train import losses
from retrieval.train.losses import Positives

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import plain_losses

LOSSES = ("contrastive", "sigmoid", "triplet")
WAYS = ("chunked", "plain", "open_clip")
MATRICES = 8  # of all scores, that the plain forms hold at once, about


def main() -> None:
    """Measure, print and write the results; or one step's memory, when asked so by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096, 8192, 16384])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=3, metavar=("LOSS", "WAY", "SIZE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        loss, way, size = given.one
        print(json.dumps(peak_bytes(loss, way, size=int(size), dimension=given.dimension)))
        return
    results = []
    for size in given.sizes:
        for loss in LOSSES:
            results.append(measured(loss, size=size, dimension=given.dimension, rounds=given.rounds))
            print(results[-1], flush=True)
    shape = {"dimension": given.dimension, "threads": torch.get_num_threads()}
    print(write_results("loss", {**shape, "steps": results, "table": format_table(results)}))


def format_table(results: list[dict[str, Any]]) -> dict[str, object]:
    """Return the README's table."""
    names = {
        "loss": "loss",
        "size": "batch",
        "chunked_mb": "MB in chunks",
        "plain_mb": "MB plain",
        "open_clip_mb": "MB open_clip",
        "chunked_s": "s in chunks",
        "plain_s": "s plain",
        "open_clip_s": "s open_clip",
        "of_plain": "time in chunks, of plain",
    }
    return {"columns": list(names.values()), "rows": [[row.get(name) for name in names] for row in results]}


def measured(loss: str, *, size: int, dimension: int, rounds: int) -> dict[str, Any]:
    """Return the median seconds and the peak of each way that fits."""
    ways = [way for way in WAYS if fits(way, size) and not (way == "open_clip" and loss == "triplet")]
    rows = unit_rows(size, dimension)
    times = interleaved({way: step_of(loss, way, rows) for way in ways}, rounds=rounds)
    found: dict[str, Any] = {"loss": loss, "size": size}
    for way in ways:
        found[f"{way}_s"] = round(statistics.median(times[way]), 3)
        found[f"{way}_mb"] = round(peak_of_its_own(loss, way, size=size, dimension=dimension) / 1e6)
    for way in ways[1:]:
        found["of_plain" if way == "plain" else f"of_{way}"] = round(median_ratio(times["chunked"], times[way]), 2)
    return found


def fits(way: str, size: int) -> bool:
    """Return whether a step's matrices stay below half of the memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return way == "chunked" or MATRICES * 4 * size**2 < memory / 2


def unit_rows(size: int, dimension: int) -> list[Tensor]:
    """Return rows of images and of texts."""
    generator = torch.Generator().manual_seed(0)
    return [
        functional.normalize(torch.randn(size, dimension, generator=generator), dim=1).requires_grad_()
        for _ in range(2)
    ]


def step_of(loss: str, way: str, rows: list[Tensor]) -> Callable[[], None]:
    """Return a step: loss and gradients of rows, temperature and bias. Every third text is that of two pictures."""
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (20.0, -10.0))
    texts = [number - number % 3 // 2 for number in range(len(rows[0]))]
    positives = Positives.from_texts(texts, [[text] for text in texts])
    theirs = {"contrastive": ClipLoss(), "sigmoid": SigLipLoss(rank=0, world_size=1)}
    settings: dict[str, Any] = {"contrastive": {"scale": scale}, "sigmoid": {"scale": scale, "bias": bias}}
    settings["triplet"] = {"margin": 0.2}

    def step() -> None:
        if way == "open_clip":
            value = theirs[loss](*rows, scale, *([bias] if loss == "sigmoid" else []))
        else:
            ours = getattr(losses if way == "chunked" else plain_losses, loss)
            value = ours(*rows, positives=positives, **settings[loss])
        value.backward()
        for tensor in (*rows, scale, bias):
            tensor.grad = None

    return step


def peak_bytes(loss: str, way: str, *, size: int, dimension: int) -> int:
    """Return the peak of one step above what the process has with its embeddings."""
    step_of(loss, way, unit_rows(64, dimension))()  # what torch loads on first use is no cost of a step
    step = step_of(loss, way, unit_rows(size, dimension))
    before = resident_bytes("VmRSS")
    step()
    return resident_bytes("VmHWM") - before


def resident_bytes(which: str) -> int:
    """Return the memory that this process holds now, or its peak; getrusage's would be the starting process's."""
    told = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(rf"{which}:\s+(\d+) kB", told)[1])  # type: ignore[index]  # Linux always says it


def peak_of_its_own(loss: str, way: str, *, size: int, dimension: int) -> int:
    """Return the same, of a process of its own."""
    command = [sys.executable, __file__, "--dimension", str(dimension), "--one", loss, way, str(size)]
    return int(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


if __name__ == "__main__":
    main()

"""How fast does each engine encode, torch and ONNX Runtime, and do they return the same rows?

Both encode the same pictures and texts in turn, in one process, with one thread and with two: a full run of prepared
pictures, one picture from its pixels, and one text. Ratios are medians over the rounds, of times and of processor times
(above 1: ONNX Runtime is faster; where other processes take the cores, processor time is the fairer one). Both count in
float32, and torch in the half precision that it takes for full batches of large image towers where the processor has
instructions for it ("torch half"); rows are compared in float32. Weights of an architecture are random: they do not
change the work.

    python benchmarks/engines.py [--models starter ViT-B-32 RN50] [--threads 1 2] [--rounds 7]
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import torch
from common import interleaved, median_ratio, write_results
from open_clip.transform import PreprocessCfg
from PIL import Image

from retrieval.encoder.architectures import build_model
from retrieval.encoder.onnx.encoder import OnnxEncoder
from retrieval.encoder.onnx.export import export_model
from retrieval.encoder.open_clip_encoder import OpenClipEncoder, open_checkpoint, save_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from retrieval.encoder import Encoder

MODELS = ("starter", "ViT-B-32", "RN50", "MobileCLIP-S1", "ViT-B-32-SigLIP2-256")
TARGETS = {("pictures", 1): 2.0, ("pictures", 2): 1.6, ("picture", 2): 2.5, ("text", 2): 3.0}  # of the starter
TEXT = "a red ceramic mug with a wooden handle"


def main() -> None:
    """Measure every model with every number of threads, print a line for each, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if "OMP_WAIT_POLICY" not in os.environ:  # as the command line starts; OpenMP reads it once, when torch loads
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})  # noqa: S606 - itself
    runs = []
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            name = model if model == "starter" else random_model(model, Path(folder))
            for threads in options.threads:
                measured = measure(name, threads=threads, pictures=options.pictures, rounds=options.rounds)
                runs.append({"model": model, "threads": threads, **measured})
                print(runs[-1], flush=True)
                write_results("engines", {"runs": runs, "table": table(runs), "targets of the starter": targets()})


def random_model(architecture: str, folder: Path) -> str:
    """Write a model of that architecture with random weights into the folder, and return its name."""
    config = open_clip.get_model_config(architecture)
    torch.manual_seed(0)
    preprocess = asdict(PreprocessCfg(size=config["vision_cfg"]["image_size"]))
    save_run(build_model(config), folder, config=config, preprocess=preprocess)
    return str(folder)


def measure(name: str, *, threads: int, pictures: int, rounds: int) -> dict[str, Any]:
    """Time both engines with so many threads and compare their rows."""
    torch.set_num_threads(threads)
    checkpoint = open_checkpoint(name)
    engines: dict[str, Encoder] = {
        "torch": OpenClipEncoder(checkpoint, device="cpu"),
        "onnx": OnnxEncoder(name, export_model(name, checkpoint), threads=threads),
    }
    images = [noise_image(seed) for seed in range(pictures)]
    prepared = [engines["onnx"].prepare(image) for image in images]
    result: dict[str, Any] = {"torch_half": torch_half(engines["torch"])}
    work: dict[str, tuple[int, Callable[[Encoder], object]]] = {
        "pictures": (pictures, lambda encoder: encoder.encode_prepared(prepared)),
        "picture": (1, lambda encoder: encoder.encode_images(images[:1])),
        "text": (1, lambda encoder: encoder.encode_texts([TEXT])),
    }
    for kind, (count, encode) in work.items():
        repeated = rounds if count > 1 else 5 * rounds
        processor: dict[str, list[float]] = {engine: [] for engine in engines}
        calls = {engine: partial(clocked, partial(encode, engines[engine]), processor[engine]) for engine in engines}
        seconds = interleaved(calls, repeated)
        result[kind] = {
            **{f"{engine}_ms": round(statistics.median(taken) / count * 1000, 2) for engine, taken in seconds.items()},
            "ratio": round(median_ratio(seconds["torch"], seconds["onnx"]), 2),
            "processor_ratio": round(median_ratio(processor["torch"][1:], processor["onnx"][1:]), 2),
        }
    rows = {engine: encoder.encode_images(images[: encoder.batch_size - 1][:7]) for engine, encoder in engines.items()}
    texts = {engine: encoder.encode_texts([TEXT, "two dogs", ""]) for engine, encoder in engines.items()}
    return {**result, "least_cosine_images": least_cosine(rows), "least_cosine_texts": least_cosine(texts)}


def clocked(function: "Callable[[], object]", seconds: list[float]) -> None:
    """Call a function and note the processor time that all threads took."""
    start = time.process_time()
    function()
    seconds.append(time.process_time() - start)


def torch_half(encoder: Any) -> bool:
    """Whether torch encodes full batches of images in half precision."""
    return encoder._full_batch_dtype() != torch.float32  # noqa: SLF001 - what it decides is not shown elsewhere


def noise_image(seed: int) -> Image.Image:
    """Return a picture of 320 x 240 pixels: coarse noise, so that its pixels are not all alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)


def least_cosine(rows: dict[str, Any]) -> float:
    """Return the least cosine between the rows that the engines return for the same input."""
    return round(float(np.einsum("nd,nd->n", rows["torch"], rows["onnx"], dtype=np.float64).min()), 9)


def table(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ratios as the README's table."""
    kinds = ("pictures", "picture", "text")
    names = ("pictures", "one picture", "one text")
    columns = ["model", "threads", *names, *(f"{name}, processor" for name in names), "torch half", "least cosine"]
    rows = [
        [
            run["model"],
            run["threads"],
            *(run[kind]["ratio"] for kind in kinds),
            *(run[kind]["processor_ratio"] for kind in kinds),
            "yes" if run["torch_half"] else "no",
            f"{min(run['least_cosine_images'], run['least_cosine_texts']):.7f}",
        ]
        for run in runs
    ]
    return {"columns": columns, "rows": rows}


def targets() -> dict[str, float]:
    """Return the least ratios of the starter by kind and threads."""
    return {f"{kind}, {threads} threads": ratio for (kind, threads), ratio in TARGETS.items()}


if __name__ == "__main__":
    main()

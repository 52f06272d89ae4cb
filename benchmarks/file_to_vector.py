"""How fast do files become vectors, against each stage alone: decoding with all threads, and encoding?

On a CPU the stages share the cores, so the ceiling is one after the other: 1 / (1/decode + 1/encode) pictures a second.
On a GPU they do not, and the ceiling is the slower stage. The pictures are drawn, and the weights of an architecture
are random: neither changes the work. Every figure is of whole runs in turn; shares are of stages within one round.
OpenMP's threads sleep while they wait (OMP_WAIT_POLICY=PASSIVE), as the command line lets them: spinning, they take the
cores from the decoding threads.

    python benchmarks/file_to_vector.py [--models starter ViT-B-32] [--engines onnx torch] [--device auto]
"""

import argparse
import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import interleaved, write_results
from engines import random_model
from PIL import Image

from retrieval.concurrency import prefetch_map
from retrieval.encoder import Encoder, load_encoder
from retrieval.encoder.embedding import embed_images
from retrieval.images import ImageSource, open_image

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = ("starter", "ViT-B-32")
ENGINES = ("onnx", "torch")
TARGET = 0.9


def main() -> None:
    """Measure every model on every kind of picture, print a line for each, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--engines", nargs="+", default=ENGINES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if "OMP_WAIT_POLICY" not in os.environ:  # OpenMP reads it once, when torch loads
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})  # noqa: S606 - itself
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "JPEG (640 × 480)": draw(Path(folder), "jpeg", size=(640, 480), count=16),
            "small PNG (256 × 256)": draw(Path(folder), "png", size=(256, 256), count=16),
            "12-megapixel JPEG (4000 × 3000)": draw(Path(folder), "jpg", size=(4000, 3000), count=8),
        }
        results = []
        for model in options.models:
            name = model if model == "starter" else random_model(model, Path(folder) / model)
            for engine in options.engines:
                encoder = load_encoder(name, device=options.device, engine=engine, export=True)
                for kind, sources in kinds.items():
                    repeated = [sources[number % len(sources)] for number in range(options.pictures)]
                    measured = measure(encoder, repeated, rounds=options.rounds)
                    results.append({"model": model, "engine": engine, "pictures": kind, **measured})
                    print(results[-1])
    write_results("file_to_vector", {"runs": results, "table": table(results)})


def table(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the results as the README's table of pictures a second."""
    stages = [f"{stage}_per_second" for stage in ("decode", "encode", "both")]
    shown = ["model", "engine", "pictures", "device", *stages, "share_of_ceiling"]
    columns = [
        "model",
        "engine",
        "pictures",
        "device",
        "decode /s",
        "encode /s",
        "both /s",
        "share of the ceiling (target ≥ 0.9)",
    ]
    return {"columns": columns, "rows": [[run[key] for key in shown] for run in results]}


def draw(folder: Path, ending: str, *, size: tuple[int, int], count: int) -> list[ImageSource]:
    """Draw pictures with the detail of photographs: coarse and fine noise, as a camera and a JPEG encoder leave it."""
    sources = []
    for number in range(count):
        generator = np.random.default_rng(number)
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        grain = Image.fromarray(generator.integers(96, 160, (size[1] // 4, size[0] // 4, 3), np.uint8)).resize(size)
        path = folder / f"{number}.{ending}"
        Image.blend(coarse, grain, 0.3).save(path, quality=90)
        sources.append(ImageSource(path=path, name=path.name))
    return sources


def measure(encoder: Encoder, sources: list[ImageSource], *, rounds: int) -> dict[str, Any]:
    """Time decoding alone, encoding alone and both, in turn; return pictures a second and the share of the ceiling."""
    prepared = list(decoded(encoder, sources))
    stages: dict[str, Callable[[], object]] = {
        "decode": lambda: list(decoded(encoder, sources)),
        "encode": lambda: encoder.encode_prepared(prepared),
        "both": lambda: list(embed_images(encoder, sources)),
    }
    seconds = interleaved(stages, rounds)
    ceilings = [
        ceiling(*pair, device=encoder.device) for pair in zip(seconds["decode"], seconds["encode"], strict=True)
    ]
    shares = [least / taken for least, taken in zip(ceilings, seconds["both"], strict=True)]
    rates = {
        f"{stage}_per_second": round(len(sources) / statistics.median(taken), 1) for stage, taken in seconds.items()
    }
    share = {"share_of_ceiling": round(statistics.median(shares), 3), "shares": [round(share, 3) for share in shares]}
    return {"device": encoder.device, "batch": encoder.batch_size, **rates, **share, "target": TARGET}


def decoded(encoder: Encoder, sources: list[ImageSource]) -> Any:
    """Read, decode and prepare the pictures on all threads, as far ahead as the pipeline does."""
    return prefetch_map(partial(prepare, encoder), sources, depth=2 * encoder.batch_size)


def prepare(encoder: Encoder, source: ImageSource) -> Any:
    """Read, decode and prepare one picture."""
    return encoder.prepare(open_image(source.read(), size=encoder.image_size))


def ceiling(decode: float, encode: float, *, device: str) -> float:
    """Return the least seconds that both stages can take: they share a CPU's cores, and not a GPU's."""
    return max(decode, encode) if device == "cuda" else decode + encode


if __name__ == "__main__":
    main()

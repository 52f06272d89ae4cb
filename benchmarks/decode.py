"""How much faster is open_image than plain Pillow, and how much do the pixels that a model sees differ?

Plain Pillow decodes every pixel, turns the picture upright and converts it to RGB; both then go through the
preprocessing of a model of that size (bicubic to the shortest side, the middle of it). Times are of one thread over the
same pictures in turn; the target on 12-megapixel JPEGs is three times. The difference is that of the model's input, as
PSNR in decibels (40 dB is a standard deviation of 2.55 levels of 255; null says that there is none).

    python benchmarks/decode.py [--rounds 7]
"""

import argparse
import io
import math
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np
from common import interleaved, median_ratio, write_results
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from retrieval.encoder.preprocessing import Preprocessing
from retrieval.images import open_image

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (224, 256)
TARGET = 3.0
KINDS: tuple[tuple[str, tuple[int, int], dict[str, Any], int], ...] = (
    ("12-megapixel JPEG (4000 × 3000)", (4000, 3000), {"format": "JPEG", "quality": 90}, 4),
    ("12-megapixel JPEG, progressive", (4000, 3000), {"format": "JPEG", "quality": 90, "progressive": True}, 2),
    ("1-megapixel JPEG (1200 × 900)", (1200, 900), {"format": "JPEG", "quality": 90}, 16),
    ("small JPEG (500 × 375)", (500, 375), {"format": "JPEG", "quality": 90}, 32),
    ("12-megapixel PNG", (4000, 3000), {"format": "PNG", "compress_level": 1}, 2),
    ("small PNG (256 × 256)", (256, 256), {"format": "PNG"}, 64),
)


def main() -> None:
    """Measure every kind at every size, print a line for each, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    runs = []
    for kind, shape, saving, count in KINDS:
        files = [encoded(drawn(shape, seed=seed), saving) for seed in range(count)]
        for size in SIZES:
            runs.append({"pictures": kind, "size": size, **measure(files, size, rounds=options.rounds)})
            print(runs[-1])
    write_results("decode", {"runs": runs, "table": table(runs)})


def measure(files: list[bytes], size: int, *, rounds: int) -> dict[str, float | None]:
    """Milliseconds a picture of either way, how many times faster ours is, and the difference of their pixels."""
    prepare = Preprocessing(size=(size, size), mean=(0.5,) * 3, std=(0.5,) * 3).prepare
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: [prepare(plain(data)) for data in files],
        "ours": lambda: [prepare(open_image(data, size=size)) for data in files],
    }
    seconds = interleaved(ways, rounds)
    least = min(psnr(prepare(plain(data)), prepare(open_image(data, size=size))) for data in files[:8])
    return {
        "megabytes": round(statistics.mean(map(len, files)) / 1e6, 3),
        "plain_ms": round(statistics.median(seconds["plain"]) / len(files) * 1000, 2),
        "ours_ms": round(statistics.median(seconds["ours"]) / len(files) * 1000, 2),
        "times_faster": round(median_ratio(seconds["plain"], seconds["ours"]), 2),
        "psnr_db": round(least, 1) if math.isfinite(least) else None,
    }


def table(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The results as the README's table."""
    shown = ["pictures", "size", "plain_ms", "ours_ms", "times_faster", "psnr_db"]
    columns = ["pictures", "model size", "Pillow ms", "ours ms", "times faster", "least PSNR, dB"]
    rows = [[run[key] for key in shown] for run in runs]
    return {"columns": columns, "rows": [["same pixels" if cell is None else cell for cell in row] for row in rows]}


def plain(data: bytes) -> Image.Image:
    """What one writes without further thought: every pixel, upright, RGB."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two pictures of one size, in decibels."""
    error = float(np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def encoded(image: Image.Image, saving: dict[str, Any]) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    image.save(file, **saving)
    return file.getvalue()


def drawn(shape: tuple[int, int], *, seed: int) -> Image.Image:
    """A picture made up like a photograph: smooth light, texture at every scale, sharp edges and a sensor's noise."""
    generator = np.random.default_rng(seed)
    values = np.full((shape[1], shape[0], 3), 128, np.float32)
    for cells, strength in ((8, 60), (32, 40), (128, 25), (512, 14), (1500, 8)):
        values += _texture(generator, shape, cells=min(cells, shape[0])) * strength
    values += generator.standard_normal((shape[1], shape[0], 1)).astype(np.float32) * 4
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, radius = (int(generator.integers(0, side)) for side in (*shape, shape[0] // 8))
        colour = tuple(map(int, generator.integers(0, 255, 3)))
        canvas.ellipse(
            (x - radius, y - radius // 2, x + radius, y + radius // 2), outline=colour, width=shape[0] // 400 + 1
        )
    return image


def _texture(generator: np.random.Generator, shape: tuple[int, int], *, cells: int) -> NDArray[np.float32]:
    """Smooth noise of so many cells across, of unit deviation in each channel."""
    coarse = generator.standard_normal((max(2, cells * shape[1] // shape[0]), cells, 3)).astype(np.float32)
    channels = [Image.fromarray(coarse[..., channel]).resize(shape, Image.Resampling.BICUBIC) for channel in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


if __name__ == "__main__":
    main()

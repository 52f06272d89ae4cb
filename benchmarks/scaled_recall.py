"""Does scaled JPEG decoding change what is found? Recall of a model on 12-megapixel JPEGs, decoded scaled and whole.

    python benchmarks/scaled_recall.py demo/run demo/shop/products.csv

The pictures of PAIRS are blown up to 4000 x 3000 JPEGs first: what a camera makes of them, and what a scaled decoder
is for.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import write_results
from PIL import Image

from index.vectors import Rows
from retrieval.encoder import Encoder, load_encoder
from retrieval.evaluate import evaluate
from retrieval.images import ImageSource, open_image
from retrieval.pairs import Pairs, read_pairs

SIZE = (4000, 3000)
WHOLE = 1 << 30  # a least side that no picture has: nothing is decoded scaled


class Whole:
    """An encoder that asks for pictures decoded whole."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.image_size = WHOLE

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)


def main() -> None:
    """Evaluate both ways on the same files, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--pictures", type=int, default=150)
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        pairs = blown_up(read_pairs(arguments.pairs), arguments.pictures, Path(folder))
        ways: dict[str, Any] = {"scaled": encoder, "whole": Whole(encoder)}
        metrics = {name: evaluate(way, pairs, resamples=0).as_json()["metrics"] for name, way in ways.items()}
        cosines = same_pictures(ways, pairs)
    names = [f"{side}_retrieval_recall@{k}" for side in ("image", "text") for k in (1, 5, 10)]
    table = {
        "columns": ["decoded", *names],
        "rows": [[way, *(f"{metrics[way][name]:.3f}" for name in names)] for way in ways],
    }
    for row in table["rows"]:
        print(*row)
    least = round(float(cosines.min()), 5)
    print("least cosine of the two vectors of a picture:", least)
    print(write_results("scaled_recall", {"table": table, "pictures": len(pairs), "least_cosine": least}))


def blown_up(pairs: Pairs, count: int, folder: Path) -> Pairs:
    """Return the first pairs with their pictures as large JPEGs in the folder."""
    made = []
    for number, pair in enumerate(pairs.pairs[:count]):
        path = folder / f"{number}.jpg"
        open_image(pair.image).resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
        made.append(replace(pair, image=ImageSource(path, path.name)))
    return replace(pairs, pairs=tuple(made))


def same_pictures(ways: dict[str, Any], pairs: Pairs) -> Rows:
    """Return the cosine between the two vectors of each of the first pictures, (n,)."""
    sources = [pair.image for pair in pairs.pairs[:32]]
    scaled, whole = (
        way.encode_images([open_image(source, size=way.image_size) for source in sources]) for way in ways.values()
    )
    return np.einsum("nd,nd->n", scaled, whole)


if __name__ == "__main__":
    main()

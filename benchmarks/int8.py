"""What an image tower in 8-bit integers gains in processor time, and what it finds differently.

    python benchmarks/int8.py PAIRS MODEL...

PAIRS is a source of pictures with texts, MODEL what `load_encoder` takes, with a current export. For each model a
catalog is set to int8 as `retrieval build --precision int8 --force` does, which measures what searches agree in with
float32. Then the same 32 pictures are encoded by both towers in turn. Of random weights only the times mean something.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import write_results

from retrieval.catalog import Catalog
from retrieval.catalog.encoder import CatalogEncoder
from retrieval.encoder import load_encoder
from retrieval.encoder.onnx.tower_record import REDUCED_FILE
from retrieval.images.pipeline import read_images
from retrieval.pairs import Pairs, read_pairs
from retrieval.records.database import Database

PICTURES = 32
ROUNDS = 7


def main() -> None:
    """Measure every model and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("models", nargs="+")
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.pairs)
    measured = {Path(model).name: measure(model, pairs) for model in arguments.models}
    print(write_results("int8", {"source": arguments.pairs.name, "pictures": PICTURES, "models": measured}))


def measure(model: str, pairs: Pairs) -> dict[str, Any]:
    """Return agreement, sizes and the ratios of processor time of one model."""
    encoder = load_encoder(model, device="cpu", engine="onnx")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "catalog")
        start = time.process_time()
        with Catalog.open(folder, encoder=encoder) as catalog:
            agreement = catalog.set_precision(pairs, "int8", force=True)
        seconds = time.process_time() - start
        with closing(Database(folder, read_only=True)) as database:
            reduced = CatalogEncoder(database, encoder, device="cpu").load("image")
        sources = [rows[0].image for rows in islice(pairs.by_item().values(), 200, 200 + PICTURES)]
        with closing(read_images(sources, encoder.prepare, size=encoder.image_size)) as images:
            prepared = [image.prepared for image in images if image.prepared is not None]
        cosines = (encoder.encode_prepared(prepared) * reduced.encode_prepared(prepared)).sum(axis=1)
        ratios = [
            processor_seconds(lambda: encoder.encode_prepared(prepared))
            / processor_seconds(lambda: reduced.encode_prepared(prepared))
            for _ in range(ROUNDS)
        ]
        result = {
            "megabytes": round((folder / REDUCED_FILE).stat().st_size / 1e6, 1),
            "processor_seconds_to_reduce_and_measure": round(seconds, 1),
            "processor_time_ratio": round(statistics.median(ratios), 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
            "least_cosine": round(float(np.min(cosines)), 5),
            "agreement": None if agreement is None else asdict(agreement),
        }
    print(model, result, flush=True)
    return result


def processor_seconds(function: Callable[[], object]) -> float:
    """Return the processor time that a function takes in all threads, once."""
    start = time.process_time()
    function()
    return time.process_time() - start


if __name__ == "__main__":
    main()

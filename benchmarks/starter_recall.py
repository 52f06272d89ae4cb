"""What the starter model finds: on sets it never saw, on parts kept out of its training, in other languages, how fast.

    python benchmarks/starter_recall.py --data ../shared/data

Writes results/starter_recall.json and results/starter_languages.json.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import write_results
from numpy.typing import NDArray

from retrieval.encoder import Encoder, load_encoder
from retrieval.evaluate import evaluate
from retrieval.evaluate.report import Report
from retrieval.images import open_image
from retrieval.pairs import Pair, Pairs, read_pairs

sys.path.insert(0, str(Path(__file__).parent / "starter"))
from pictures import held_out

LANGUAGES = {  # of tuxpaint's translations
    "zh_CN": "Chinese (simplified)",
    "zh_TW": "Chinese (traditional)",
    "ja": "Japanese",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "ru": "Russian",
    "nl": "Dutch",
    "pl": "Polish",
    "sv": "Swedish",
    "tr": "Turkish",
    "ar": "Arabic",
    "hi": "Hindi",
    "ko": "Korean",
}
_LEAST = 100  # captions that a language needs to be measured


class Remembering:
    """An encoder that encodes no picture twice: every language asks for the same ones."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._rows: dict[bytes, NDArray[np.float32]] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self._encoder, name)

    def encode_prepared(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Rows of what `prepare` returned."""
        new = {picture.tobytes(): picture for picture in prepared if picture.tobytes() not in self._rows}
        self._rows.update(zip(new, self._encoder.encode_prepared(list(new.values())), strict=True))
        return np.stack([self._rows[picture.tobytes()] for picture in prepared])


def main() -> None:
    """Measure the starter, or another model, on all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--model", default="starter")
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model, device="cpu")
    rows = [_row(name, evaluate(encoder, pairs)) for name, pairs in _sets(arguments.data)]
    speed = _speed(encoder, arguments.data)
    columns = ["set", "pictures", "text→image R@1", "R@5", "R@10", "image→text R@1", "R@5", "R@10"]
    print("wrote", write_results("starter_recall", {"table": {"columns": columns, "rows": rows}, "speed": speed}))
    table = {
        "columns": ["language", "captions", "text→image R@10", "in English"],
        "rows": _in_languages(Remembering(encoder), arguments.data),
    }
    print("wrote", write_results("starter_languages", {"table": table}))
    print(json.dumps(speed))


def _sets(data: Path) -> Iterator[tuple[str, Pairs]]:
    yield (
        "coco_open: photos, long captions",
        read_pairs(data / "coco_open" / "captions.json", images=data / "coco_open" / "images"),
    )
    yield "luma: product names and descriptions", read_pairs(data / "luma" / "products.csv")
    yield "dishes_zh: Chinese dishes", read_pairs(data / "dishes_zh")
    yield "illustrations: long texts", read_pairs(data / "illustrations")
    yield "tuxpaint, held-out part", _held_out(data, "tuxpaint")
    yield "openclipart, held-out part", _held_out(data, "openclipart")


def _held_out(data: Path, name: str) -> Pairs:
    pairs, held = read_pairs(data / name), held_out(data, name)
    return replace(pairs, pairs=tuple(pair for pair in pairs if pair.image.name in held))


def _row(name: str, report: Report) -> list[object]:
    cells = [_cell(report, f"{way}_recall@{k}") for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)]
    print(name, *cells, flush=True)
    return [name, report.images, *cells]


def _cell(report: Report, figure: str) -> str:
    interval = report.intervals[figure]
    return f"{100 * report.metrics[figure]:.0f} ({100 * interval.low:.0f}–{100 * interval.high:.0f})"


def _in_languages(encoder: Any, data: Path) -> list[list[object]]:
    """Each language's captions among all the held-out pictures, and the same pictures' English ones."""
    pairs = _held_out(data, "tuxpaint")
    told = (json.loads(line) for line in (data / "tuxpaint_i18n.jsonl").read_text(encoding="utf-8").splitlines())
    texts = {entry["file_name"]: entry["captions_i18n"] for entry in told}
    rows: list[list[object]] = []
    for code, language in LANGUAGES.items():
        spoken = {pair.image.name: texts.get(pair.image.name, {}).get(code) for pair in pairs}
        count = sum(text is not None for text in spoken.values())
        if count < _LEAST:
            continue
        said = [_said(pair, spoken[pair.image.name]) for pair in pairs]
        english = [_said(pair, pair.captions[0] if spoken[pair.image.name] else None) for pair in pairs]
        figures = [evaluate(encoder, replace(pairs, pairs=tuple(some))) for some in (said, english)]
        rows.append([language, count, *(_cell(report, "text_to_image_recall@10") for report in figures)])
        print(*rows[-1], flush=True)
    return rows


def _said(pair: Pair, caption: str | None) -> Pair:
    return replace(pair, captions=() if caption is None else (caption,))


def _speed(encoder: Encoder, data: Path) -> dict[str, float]:
    """Pictures a second in batches of 32, decoded and resized before; milliseconds a text query, one at a time."""
    paths = sorted((data / "coco_open" / "images").iterdir())[:32]
    pictures = [encoder.prepare(open_image(path.read_bytes(), size=encoder.image_size)) for path in paths]
    texts = ["a dog on the beach", "red shoes", "two people ride bicycles down a street", "一只猫"]
    encoder.encode_prepared(pictures), encoder.encode_texts(texts)
    picture_seconds = [_seconds(lambda: encoder.encode_prepared(pictures)) for _ in range(15)]
    text_seconds = [_seconds(lambda text=text: encoder.encode_texts([text])) for text in texts * 25]
    return {
        "pictures_per_second": round(len(pictures) / statistics.median(picture_seconds), 1),
        "milliseconds_per_text": round(1000 * statistics.median(text_seconds), 2),
    }


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""Make version_0_1_0.zip: what version 0.1.0 left on disk, for tests/test_version_0_1_0.py.

    python tests/data/make_version_0_1_0.py FOLDER    with version 0.1.0 (commit c8f179f) first on PYTHONPATH

FOLDER comes to hold `photos` (60 squares with captions and attributes), `model` (the encoder), `catalog` (built from
photos, with an HNSW index and one deleted item), `run` (a training that was killed in its second epoch of three) and
`expected.json` (what version 0.1.0 answered). Embeddings of tokens that no text has are zeros, so that the archive is
small.
"""

import contextlib
import csv
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image

from retrieval import Catalog, load_encoder, read_pairs
from retrieval.encoder.open_clip_encoder import save_run
from retrieval.train import TrainConfig, train

COLORS = ("red", "lime", "blue", "yellow", "magenta", "black")
PHOTOS = 60
QUERIES = ("a red square", "blue, number 8", "yellow")
WHERE = {"price": {"$lt": 40}, "color": {"$in": ["red", "blue"]}}
MODEL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
CONFIG = TrainConfig(
    model="model",
    epochs=3,
    batch_size=8,
    learning_rate=3e-3,
    tune="both",
    average=0.5,
    keep_statistics=True,
    ema=0.5,
    word_dropout=0.1,
    hard_negatives=0.5,
    validation_share=0.4,
    device="cpu",
    checkpoint_seconds=0,
)


class KilledError(Exception):
    """Stands for a kill."""


def write_photos(folder: Path) -> None:
    """Draw squares, each with two captions and attributes."""
    folder.mkdir()
    lines = []
    for number in range(PHOTOS):
        color = COLORS[number % len(COLORS)]
        pattern = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)  # else all are near-duplicates
        image = Image.fromarray(pattern).resize((24, 24))
        image.paste(color, (8, 8, 16, 16))
        image.save(folder / f"{number}.png")
        row = {"file_name": f"{number}.png", "captions": captions_of(number), "price": 10 * number, "color": color}
        lines.append(row)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def captions_of(number: int) -> list[str]:
    """Return the captions of a photo."""
    color = COLORS[number % len(COLORS)]
    return [f"a {color} square, the {number}th", f"{color}, number {number}"]


def write_model(folder: Path) -> None:
    """Write a tiny model with random weights; tokens that no text has are zeros."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**MODEL).eval()
    texts = [text for number in range(PHOTOS) for text in captions_of(number)]
    known = torch.unique(open_clip.get_tokenizer("ViT-B-32")([*texts, *QUERIES]))
    rows = torch.zeros_like(model.token_embedding.weight)
    rows[known] = model.token_embedding.weight[known].detach()
    model.token_embedding.weight.data = rows
    save_run(model, folder, config=MODEL, preprocess=vars(PreprocessCfg(size=16)))


def expected(catalog: Path) -> dict[str, Any]:
    """Return the answers of version 0.1.0: ids and scores of the images and captions that a few queries find."""
    with Catalog.open(catalog, read_only=True) as opened:
        return {
            "info": {name: opened.info()[name] for name in ("items", "images", "captions", "deleted", "dimension")},
            "images": {text: _answer(opened.search(text, k=4)) for text in QUERIES},
            "captions": _answer(opened.search(image="photos/2.png", k=4)),
            "cheap": _answer(
                opened.search("red", k=4, where={"price": {"$lt": 40}, "color": {"$in": ["red", "blue"]}})
            ),
            "words": _answer(opened.search("number 7", mode="words", k=4)),
        }


def _answer(hits: Any) -> list[tuple[str, float]]:
    return [(hit.id, round(hit.score, 6)) for hit in hits]


def main() -> None:
    """Make the folder and the archive beside it."""
    target = Path(sys.argv[1])
    target.mkdir()
    os.chdir(target)
    torch.set_num_threads(1)
    write_photos(Path("photos"))
    write_model(Path("model"))
    pairs = read_pairs("photos")
    with Catalog.open("catalog", encoder=load_encoder("model", device="cpu")) as catalog:
        catalog.build(pairs, index="hnsw")
        catalog.delete(["5.png"])
    steps = []

    def progress(step: int, *_: Any) -> None:
        steps.append(step)
        if step == 8:
            raise KilledError

    with contextlib.suppress(KilledError):
        train(pairs, "run", config=CONFIG, progress=progress)
    shutil.copytree("run", "../undisturbed")
    train(pairs, "../undisturbed", config=CONFIG, resume=True)
    answers = expected(Path("catalog"))
    with Path("../undisturbed/training/log.csv").open(newline="") as log:
        answers["losses"] = [round(float(row["loss"]), 5) for row in csv.DictReader(log)]
    rows = load_encoder("../undisturbed", device="cpu").encode_texts(list(QUERIES))
    answers["rows"] = [[round(value, 5) for value in row] for row in rows.tolist()]
    Path("expected.json").write_text(json.dumps(answers) + "\n")
    with zipfile.ZipFile(f"../{target.name}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(Path().rglob("*")):
            if path.is_file():
                archive.write(path)


if __name__ == "__main__":
    main()

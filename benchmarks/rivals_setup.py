"""Make what `rivals.py` compares on: photos of one size, and one model of random weights in every program's form.

    python benchmarks/rivals_setup.py WORK --data FOLDER [--pictures 1000]

`WORK/photos` gets JPEGs of 640 × 480 pixels, crops of the photos in FOLDER. `WORK/model` gets a ViT-B-32-256 of
open_clip as `retrieval train` saves a run, and `WORK/rclip` the same weights as rclip's own `scripts/convert_model.py`
exports them, in the layout of rclip's data folder. Needs the extra [train].
"""

import argparse
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import open_clip
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image

from retrieval.encoder.open_clip_models import save_run

ARCHITECTURE = "ViT-B-32-256"
TAG = "datacomp_s34b_b86k"  # rclip's folder is named for it; the weights here are random
LEGAL_FILES = ("LICENSE", "OPENAI-CLIP-MIT.txt", "README.md", "THIRD_PARTY_NOTICES.md")  # rclip looks for their names
PHOTO = (640, 480)
LEAST_SIDE = 240


def main() -> None:
    """Write the photos and both forms of the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=1000)
    options = parser.parse_args()
    write_photos(options.data, options.work / "photos", count=options.pictures)
    model, config = random_model()
    preprocess = asdict(PreprocessCfg(size=config["vision_cfg"]["image_size"]))
    save_run(model, options.work / "model", config=config, preprocess=preprocess)
    export_for_rclip(model, options.work / "rclip", size=config["vision_cfg"]["image_size"])


def write_photos(data: Path, folder: Path, *, count: int) -> None:
    """Write `count` different JPEGs: crops of the photos under `data`, each at 640 × 480 or 480 × 640 pixels."""
    photos = sorted(path for path in data.rglob("*.jpg") if min(Image.open(path).size) >= LEAST_SIDE)
    draw = random.Random(0)
    draw.shuffle(photos)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        with Image.open(photos[number % len(photos)]) as photo:
            size = PHOTO if photo.width >= photo.height else PHOTO[::-1]
            picture = photo.convert("RGB").resize(
                size, Image.Resampling.LANCZOS, box=random_box(photo.size, size, draw)
            )
        picture.save(folder / f"{number:05}.jpg", quality=90)


def random_box(photo: tuple[int, int], size: tuple[int, int], draw: random.Random) -> tuple[float, float, float, float]:
    """Return a crop of the shape of `size`, of 80 to 100 % of what fits into the photo."""
    scale = draw.uniform(0.8, 1.0) * min(photo[0] / size[0], photo[1] / size[1])
    width, height = scale * size[0], scale * size[1]
    left, top = draw.uniform(0, photo[0] - width), draw.uniform(0, photo[1] - height)
    return left, top, left + width, top + height


def random_model() -> tuple[open_clip.CLIP, dict]:
    """Return a CLIP model with seeded random weights, and its config."""
    config = open_clip.get_model_config(ARCHITECTURE)
    torch.manual_seed(0)
    return open_clip.CLIP(**config).eval(), config


def export_for_rclip(model: open_clip.CLIP, folder: Path, *, size: int) -> None:
    """Write rclip's data folder: both towers as its `scripts/convert_model.py` exports them, and the BPE vocabulary."""
    models = folder / f"{ARCHITECTURE}-{TAG}"
    models.mkdir(parents=True, exist_ok=True)
    torch.backends.mha.set_fastpath_enabled(False)
    export(model.visual, torch.zeros(1, 3, size, size), models / "visual.onnx")
    export(TextTower(model), torch.zeros(1, model.context_length, dtype=torch.long), models / "textual.onnx")
    (folder / "tokenizer").mkdir(exist_ok=True)
    shutil.copy2(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz", folder / "tokenizer")
    for name in LEGAL_FILES:
        (folder / name).write_text("For a benchmark; the weights are random.\n", encoding="utf-8")


class TextTower(torch.nn.Module):
    """The text side of a CLIP model, as a module."""

    def __init__(self, model: open_clip.CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the vectors of (n, context length) tokens, (n, dimension)."""
        return self.model.encode_text(tokens)


def export(tower: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    """Export a tower by TorchScript with a dynamic batch, one input "input" and one output "output"."""
    torch.onnx.export(
        tower,
        (example,),
        str(path),
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        opset_version=18,
        dynamo=False,
    )


if __name__ == "__main__":
    main()

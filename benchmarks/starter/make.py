"""Make the starter model anew, from packages and the captioned pictures in --data, into retrieval/starter.

    python benchmarks/starter/make.py WORK --data ../shared/data

WORK keeps what each stage made; a stage whose file is there is not run again. On two cores: 25 minutes for the
teachers' vectors, --minutes for the text tower, 3 for the heads. README.md beside this file tells how it works.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final, cast

import align
import numpy as np
import open_clip
import packages
import pictures
import text_tower
import torch
from align import Classes, Pictures
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from teachers import ARCHITECTURE, SentenceTeacher, as_array, class_rows, class_texts, image_teacher
from texts import Lesson, all_lessons

from retrieval.encoder.open_clip_models import save_run
from retrieval.images import open_image

SIDE: Final = 224
PREPROCESS: Final = {
    "size": [SIDE, SIDE],
    "mode": "RGB",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 255,
}
CONFIG: Final = {
    "embed_dim": align.DIMENSION,
    "vision_cfg": {
        "timm_model_name": ARCHITECTURE,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "mlp",
        "timm_proj_bias": True,
        "image_size": SIDE,
    },
    "text_cfg": {**text_tower.CONFIG, "proj_bias": True},
}
TARGET: Final = Path(__file__).parents[2] / "retrieval" / "starter"


def main() -> None:
    """Run the stages that are left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the captioned pictures")
    parser.add_argument("--minutes", type=float, default=75, help="of training for the text tower")
    parser.add_argument("--steps", type=int, default=400, help="of training for the heads")
    parser.add_argument("--limit", type=int, help="of lessons and pictures of a set, to try the script out")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    make(arguments.work, arguments.data, options=arguments)


def make(work: Path, data: Path, *, options: argparse.Namespace) -> None:
    """All stages, each kept in `work`."""
    packages.fetch(work)
    lessons = _kept_lessons(work / "lessons.json", lambda: _lessons(work, data, options.limit))
    meanings = sorted({lesson.meaning for lesson in lessons}, key=lambda text: (len(text), text))
    teacher = SentenceTeacher(work)
    rows = _kept_rows(work / "meanings.npy", lambda: as_array(teacher.rows(meanings)))
    features = {
        name: _kept_rows(
            work / f"features-{name}.npy", lambda name=name: _features(work, data, name=name, limit=options.limit)
        )
        for name in pictures.LEARNED
    }
    course = text_tower.Course.of(lessons, {meaning: place for place, meaning in enumerate(meanings)})
    tower = text_tower.fresh_tower(teacher, seed=0)
    seconds = 60 * options.minutes
    weights = _kept_weights(
        work / "text_tower.safetensors",
        lambda: text_tower.trained(tower, course, rows, seconds=seconds, seed=0),
    )
    tower.load_state_dict(weights)
    heads = _heads(work, data, tower=tower.eval(), features=features, teacher=teacher, steps=options.steps)
    _write(work, options.target, text=weights, heads=heads)


def _kept_rows(path: Path, made: Callable[[], NDArray[np.float16]]) -> NDArray[np.float16]:
    if not path.exists():
        print(f"making {path.name}", flush=True)
        np.save(path, made())
    return cast("NDArray[np.float16]", np.load(path, mmap_mode="r"))


def _kept_lessons(path: Path, made: Callable[[], list[Lesson]]) -> list[Lesson]:
    if not path.exists():
        print(f"making {path.name}", flush=True)
        path.write_text(json.dumps([astuple(lesson) for lesson in made()], ensure_ascii=False), encoding="utf-8")
    return [Lesson(*told) for told in json.loads(path.read_text(encoding="utf-8"))]


def _kept_weights(path: Path, made: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    if not path.exists():
        save_file(made(), path)
    return load_file(path)


def _lessons(work: Path, data: Path, limit: int | None) -> list[Lesson]:
    told = {(one.text, one.meaning): one for one in all_lessons(work, data, pictures.caption_lessons(data))}
    lessons = [lesson for lesson in told.values() if lesson.text.strip() and lesson.meaning.strip()]
    return lessons[:: max(1, len(lessons) // limit)] if limit else lessons


def _features(work: Path, data: Path, *, name: str, limit: int | None) -> NDArray[np.float16]:
    """What the image teacher makes of each picture in three views (n, 3, 1280): cut, padded, and cut and mirrored."""
    teacher: Any = image_teacher(work)
    found = pictures.learned(data, name)[:limit]
    with ThreadPoolExecutor() as threads, torch.inference_mode():
        batches = [found[start : start + 16] for start in range(0, len(found), 16)]
        parts = [_batch_features(teacher, list(threads.map(_views, batch))) for batch in batches]
    return np.concatenate(parts)


def _views(picture: pictures.Captioned) -> NDArray[np.float32]:
    image = open_image(picture.path.read_bytes(), size=SIDE)
    cut = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BICUBIC)
    padded = ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.BICUBIC, color="white")
    return np.stack([np.asarray(view, np.float32) / 127.5 - 1 for view in (cut, padded, ImageOps.mirror(cut))])


def _batch_features(teacher: Any, views: Sequence[NDArray[np.float32]]) -> NDArray[np.float16]:
    pixels = torch.from_numpy(np.concatenate(views)).permute(0, 3, 1, 2)  # (3b, 3, side, side), channels last in memory
    features = teacher.global_pool(teacher.forward_features(pixels))
    return as_array(features.reshape(len(views), 3, -1))


def _heads(
    work: Path, data: Path, *, tower: Any, features: dict[str, Any], teacher: SentenceTeacher, steps: int
) -> dict[str, torch.Tensor]:
    classifier = image_teacher(work).classifier
    classes = Classes(
        weight=classifier.weight.detach(),
        bias=classifier.bias.detach(),
        meanings=class_rows(teacher),
        wordings=[_before_projection(tower, texts) for texts in class_texts()],
    )
    sets = {name: _set(data, name, tower=tower, features=rows) for name, rows in features.items()}
    projection = tower.text_projection.detach()
    image_head, text_head, scale = align.align(sets, classes, projection, steps=steps, seed=0)
    weights = {f"visual.head.mlp.{name}": value for name, value in image_head.state_dict().items()}
    weights |= {f"text_projection.{name}": value for name, value in text_head.projection.state_dict().items()}
    return weights | {"logit_scale": torch.tensor(scale).log()}


def _set(data: Path, name: str, *, tower: Any, features: NDArray[np.float16]) -> Pictures:
    found = pictures.learned(data, name)[: len(features)]
    texts = sorted({caption for picture in found for caption in picture.captions})
    numbers = {text: number for number, text in enumerate(texts)}
    captions = [[numbers[caption] for caption in picture.captions] for picture in found]
    return Pictures(torch.from_numpy(np.array(features)), _before_projection(tower, texts), captions)


@torch.no_grad()
def _before_projection(tower: Any, texts: Sequence[str]) -> torch.Tensor:
    tokens = open_clip.SimpleTokenizer()(list(texts))
    lengths = tokens.argmax(-1) + 1
    rows = torch.empty(len(texts), text_tower.WIDTH)
    for places in torch.argsort(lengths).split(256):
        length = int(lengths[places].max())
        rows[places] = text_tower.before_projection(tower, tokens[places, :length], length)
    return rows


def _write(work: Path, target: Path, *, text: dict[str, torch.Tensor], heads: dict[str, torch.Tensor]) -> None:
    """One open_clip model of the teacher's trunk, the text tower and both heads, in half precision."""
    trunk = {f"visual.trunk.{name}": value for name, value in image_teacher(work).state_dict().items()}
    model = open_clip.CLIP(**CONFIG)
    every = {**trunk, **text, **heads}
    model.load_state_dict({name: every[name] for name in model.state_dict()})
    save_run(model.half(), target, config=CONFIG, preprocess=PREPROCESS)
    print(json.dumps({"written": str(target), "bytes": sum(file.stat().st_size for file in target.iterdir())}))


if __name__ == "__main__":
    main()

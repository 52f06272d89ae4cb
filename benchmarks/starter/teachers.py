"""The two teachers: MiniLM, whose vectors say what a text means, and EfficientNet-Lite0, which knows 1,000 classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import packages
import timm
import torch
from numpy.typing import NDArray
from timm.data import ImageNetInfo
from torch.nn import functional

ARCHITECTURE = "tf_efficientnet_lite0"


class SentenceTeacher:
    """Texts to unit rows (n, 384)."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        path = str(packages.sentence_model(folder))
        self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
        # bfloat16 is four times faster on CPUs that have it; rows lie within a cosine of .999 of those in float32.
        self._model: Any = AutoModel.from_pretrained(path, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def rows(self, texts: Sequence[str]) -> torch.Tensor:
        """The mean of a text's token vectors, of unit length: as the model was trained to be read."""
        batches = [texts[start : start + 256] for start in range(0, len(texts), 256)]
        return torch.cat([self._batch(list(batch)) for batch in batches])

    def _batch(self, texts: list[str]) -> torch.Tensor:
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=96, return_tensors="pt")
        vectors = self._model(**tokens).last_hidden_state.float()
        there = tokens["attention_mask"][..., None].float()
        return functional.normalize((vectors * there).sum(1) / there.sum(1), dim=-1)


def image_teacher(folder: Path) -> torch.nn.Module:
    """EfficientNet-Lite0 in timm's form; the package has the same tensors in the same order under other names."""
    weights = torch.load(packages.image_weights(folder), map_location="cpu", weights_only=True)
    model = timm.create_model(ARCHITECTURE)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model.eval().to(memory_format=torch.channels_last)


def class_texts() -> list[list[str]]:
    """What the 1,000 classes are called, in several wordings: each list has one text for every class."""
    info = ImageNetInfo()
    names = [info.index_to_description(number) for number in range(info.num_classes())]
    defined = [info.index_to_description(number, detailed=True) for number in range(info.num_classes())]
    first, last = [name.split(", ")[0] for name in names], [name.split(", ")[-1] for name in names]
    framed = [[f"a photo of a {name}" for name in some] for some in (first, names, defined)]
    return [first, *framed, last]


def class_rows(teacher: SentenceTeacher) -> torch.Tensor:
    """A unit row (1000, 384) for each class: its name, its synonyms, and most of all what a dictionary says of it."""
    _, first, names, defined, _ = (teacher.rows(texts) for texts in class_texts())
    return functional.normalize(first + names + 1.5 * defined, dim=-1)


def as_array(rows: torch.Tensor) -> NDArray[np.float16]:
    """Rows in the form in which they are kept."""
    return rows.numpy().astype(np.float16)

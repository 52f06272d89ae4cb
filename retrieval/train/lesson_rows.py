"""Rows of all pictures and texts that a run learns from, by the model as it is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch

from retrieval.errors import RetrievalError, TrainingError
from retrieval.images import ahead

if TYPE_CHECKING:
    from index.vectors import Rows
    from retrieval.encoder.open_clip_encoder import OpenClipEncoder
    from retrieval.train.album import Album
    from retrieval.train.crew import Crew
    from retrieval.train.crops import Crops
    from retrieval.train.lessons import Lessons

_TOGETHER: Final = 1024  # pictures that are cropped ahead of their encoding: memory stays bounded


def lesson_rows(
    lessons: "Lessons", album: "Album", *, crops: "Crops", encoder: "OpenClipEncoder", crew: "Crew"
) -> tuple["Rows", "Rows"]:
    """Rows of the pictures (n, d), as the finished model sees them, and of the texts (t, d); each process does a share.

    The model is to be in eval mode.

    Raises:
        TrainingError: a picture can no longer be read.
    """
    numbers = [lessons.pictures[place] for place in crew.share(len(lessons.pictures))]
    pictures = _of_pictures(numbers, album, crops=crops, encoder=encoder)
    texts = encoder.encode_texts([lessons.texts[number] for number in crew.share(len(lessons.texts))])
    counts = len(lessons.pictures), len(lessons.texts)
    gathered = (_gathered(rows, count, crew) for rows, count in zip((pictures, texts), counts, strict=True))
    return next(gathered), next(gathered)


def _of_pictures(numbers: Sequence[int], album: "Album", *, crops: "Crops", encoder: "OpenClipEncoder") -> "Rows":
    whole, middle = replace(crops, least=1.0), np.zeros(4)

    def shown(number: int) -> Any:
        return album.cut(number, whole, middle)

    rows = [np.empty((0, encoder.dimension), np.float32)]
    for start in range(0, len(numbers), _TOGETHER):
        part = numbers[start : start + _TOGETHER]
        pairs = zip(part, ahead(shown, part), strict=True)
        rows.append(encoder.encode_prepared([_readable(album, *one) for one in pairs]))
    return np.concatenate(rows)


def _readable(album: "Album", number: int, shown: Any) -> Any:
    if isinstance(shown, RetrievalError):
        name = album.sources[number].name
        raise TrainingError(f"{name} could be read at first, but now {shown}; put it back and resume")
    return shown


def _gathered(rows: "Rows", count: int, crew: "Crew") -> "Rows":
    whole = crew.gathered(torch.from_numpy(rows).to(crew.device), count)
    return cast("Rows", whole.cpu().numpy())

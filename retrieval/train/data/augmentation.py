"""What training changes about pictures and captions beyond the crop, as pure functions of numbers in [0, 1).

A picture is mirrored only where no text that is right for it says left or right, and its colours change only where
none names a colour: else the pair would no longer be true.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from retrieval.train.data.caption_words import bars_mirroring, names_colors, pieces

if TYPE_CHECKING:
    from retrieval.train.data.dataset import PairDataset

LOOK_DRAWS: Final = 5  # one to mirror, one each for brightness, contrast, saturation and hue
_HUE: Final = 0.1  # of a turn at full strength: more makes other things of fruit and faces
_GREY: Final = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601), as Pillow takes it
# Luminance, and two axes around which a turn changes the hue (NTSC's YIQ).
_YIQ: Final = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How the look of each picture may change.

    Attributes:
        flip: the chance that a picture is mirrored that may be.
        jitter: how far colours go: 0.2 for brightness, contrast and saturation from 80 % to 120 %.
        may_flip: (n,) which pictures may be mirrored.
        may_jitter: (n,) which pictures' colours may change.
    """

    flip: float
    jitter: float
    may_flip: NDArray[np.bool_]
    may_jitter: NDArray[np.bool_]

    @classmethod
    def from_captions(cls, dataset: "PairDataset", *, flip: float, jitter: float) -> "Augmentation":
        """The looks that the right texts of each picture allow."""
        sided = np.array([bars_mirroring(text) for text in dataset.texts], np.bool_)
        colored = np.array([names_colors(text) for text in dataset.texts], np.bool_)
        return cls(flip, jitter, _none_of(sided, dataset.positives), _none_of(colored, dataset.positives))

    def apply(self, picture: int, pixels: NDArray[np.uint8], chance: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The picture's pixels (height, width, 3) as these `LOOK_DRAWS` numbers have it."""
        if self.may_flip[picture] and chance[0] < self.flip:
            pixels = pixels[:, ::-1]
        if self.may_jitter[picture] and self.jitter:
            pixels = recolored(pixels, chance[1:], strength=self.jitter)
        return pixels


def _none_of(marked: NDArray[np.bool_], texts: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
    return np.array([not marked[list(own)].any() for own in texts], np.bool_)


def recolored(pixels: NDArray[np.uint8], chance: NDArray[np.float64], *, strength: float) -> NDArray[np.uint8]:
    """The pixels (height, width, 3) with brightness, contrast, saturation and hue changed by four numbers in [0, 1).

    All four are linear, so one matrix does them: greys stay grey, and .5, .5, .5, .5 leaves everything as it is.
    """
    brightness, contrast, saturation = (1 + strength * (2 * chance[:3] - 1)).tolist()
    matrix = _saturated(saturation) @ _turned(_HUE * strength * (2 * float(chance[3]) - 1))
    values = pixels.reshape(-1, 3).astype(np.float32)  # (pixels, 3): one product of a tall matrix, not one a row
    mean = float(values.mean(axis=0, dtype=np.float64) @ _GREY)
    changed = values @ (brightness * contrast * matrix.T).astype(np.float32)
    changed += np.float32(brightness * (1 - contrast) * mean + 0.5)  # and a half, to round
    return np.asarray(changed.clip(0, 255), np.uint8).reshape(pixels.shape)


def _saturated(factor: float) -> NDArray[np.float64]:
    """Colours this many times as far from their grey."""
    return factor * np.eye(3) + (1 - factor) * np.tile(_GREY, (3, 1))


def _turned(turn: float) -> NDArray[np.float64]:
    """Hues turned by this share of a circle, luminance kept."""
    cosine, sine = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    return np.asarray(np.linalg.inv(_YIQ) @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ _YIQ)


def with_words_left_out(text: str, chance: NDArray[np.float64], *, share: float) -> str:
    """The text without about this share of its words, in order; one at least stays.

    Args:
        text: with as many words as `words.pieces` tells.
        chance: a number for each of them; those below `share` are left out.
        share: in [0, 1).
    """
    words = pieces(text)
    stays = chance >= share
    if stays.all():
        return text
    if not stays.any():
        stays = chance == chance.max()
    return " ".join(word for word, kept in zip(words, stays, strict=True) if kept)

"""What training does to images and captions: a resize, then in each epoch a new crop, flip, colour change and words.

Every random choice is a pure function of uniform draws in [0, 1). An image is flipped only where no text that is right
for it says left or right, and its colours change only where none names a colour: else the pair would become false.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from retrieval.train.data.caption_words import forbids_flip, mentions_color, split_words

Pixels = NDArray[np.uint8]
Draws = NDArray[np.float64]

CROP_DRAWS: Final = 4  # area, aspect ratio, and position across and down
AUGMENTATION_DRAWS: Final = 5  # one for the flip, one each for brightness, contrast, saturation and hue
_BILINEAR, _BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
_MAX_STRETCH: Final = 1.1  # a crop is at most this much wider or higher than the model's input
_MAX_ASPECT: Final = 2.0  # of a resized image, relative to the input: what lies further out the model never sees
_MIN_RESIZE_SCALE: Final = 0.5  # crops of less than this fraction are enlarged: keeping more pixels is not worth it
_MAX_HUE_TURN: Final = 0.1  # of a turn, at full strength: more makes other things of fruit and faces
_LUMINANCE: Final = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601), as in Pillow
# Luminance, and two axes around which a turn changes the hue (NTSC's YIQ).
_YIQ: Final = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@dataclass(frozen=True, slots=True)
class TrainTransform:
    """Turns images into a model's input in training."""

    height: int  # of the model's input
    width: int  # of the model's input
    resize_mode: str  # open_clip's name: "shortest" cuts off what is too long, "squash" distorts, "longest" pads
    resample: Image.Resampling
    fill: int  # grey value of the padding
    min_scale: float  # smallest fraction of an image's area in a crop; 1 for the whole, without randomness

    @classmethod
    def from_preprocess(cls, preprocess: Mapping[str, Any], *, min_scale: float) -> "TrainTransform":
        """Return the transform of a model with this `preprocess_cfg` of open_clip."""
        height, width = np.broadcast_to(preprocess["size"], 2).tolist()
        return cls(
            height=height,
            width=width,
            resize_mode=preprocess["resize_mode"] or "shortest",
            resample=_BILINEAR if preprocess["interpolation"] == "bilinear" else _BICUBIC,
            fill=preprocess["fill_color"],
            min_scale=min_scale,
        )

    @property
    def decoded_side(self) -> int:
        """Return the least side in pixels to decode an image to, as `open_image` takes it: what `resize` keeps."""
        return math.ceil(self._margin * max(self.height, self.width))

    @property
    def _margin(self) -> float:
        return 1 / math.sqrt(max(self.min_scale, _MIN_RESIZE_SCALE))

    def resize(self, image: Image.Image) -> Image.Image:
        """Return the image in the smallest shape that every crop can be taken from: the form worth caching."""
        aspect = self.width / self.height
        if self.resize_mode == "longest":
            canvas = max(image.width, round(image.height * aspect)), max(image.height, round(image.width / aspect))
            image = ImageOps.pad(image, canvas, color=(self.fill, self.fill, self.fill))
        elif self.resize_mode == "shortest":
            image = _center_crop(image, min_aspect=aspect / _MAX_ASPECT, max_aspect=aspect * _MAX_ASPECT)
        margin = self._margin
        horizontal, vertical = margin * self.width / image.width, margin * self.height / image.height
        if self.resize_mode != "squash":
            horizontal = vertical = max(horizontal, vertical)
        size = (
            max(1, math.ceil(image.width * min(1.0, horizontal))),
            max(1, math.ceil(image.height * min(1.0, vertical))),
        )
        return image if size == image.size else image.resize(size, self.resample, reducing_gap=3.0)

    def random_resized_crop(self, resized: Image.Image, draws: Sequence[float] | Draws) -> Pixels:
        """Return the crop (height, width, 3) of a resized image that `CROP_DRAWS` uniform draws choose."""
        box = self._crop_box(resized.size, draws)
        return np.asarray(resized.resize((self.width, self.height), self.resample, box=box))

    def _crop_box(self, size: tuple[int, int], draws: Sequence[float] | Draws) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of the crop; with `min_scale` at 1 the centre, as in inference."""
        area, stretch, across, down = (float(number) for number in draws)
        if self.min_scale == 1:
            area, stretch, across, down = 1.0, 0.5, 0.5, 0.5
        aspect = _MAX_STRETCH ** (2 * stretch - 1)
        aspect *= size[0] / size[1] if self.resize_mode == "squash" else self.width / self.height
        side = math.sqrt(self.min_scale + (1 - self.min_scale) * area)
        height = side * min(size[1], size[0] / aspect)
        width = height * aspect
        left, top = across * (size[0] - width), down * (size[1] - height)
        return left, top, min(left + width, size[0]), min(top + height, size[1])


def _center_crop(image: Image.Image, *, min_aspect: float, max_aspect: float) -> Image.Image:
    """Cut off the ends of an image whose width / height lies outside the bounds."""
    width, height = (
        min(image.width, round(image.height * max_aspect)),
        min(image.height, round(image.width / min_aspect)),
    )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image if (width, height) == image.size else image.crop((left, top, left + width, top + height))


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random flips and colour changes, where the captions allow them."""

    flip: float  # probability, for an image that may be flipped
    color_jitter: float  # 0.2 takes brightness, contrast and saturation from 80 % to 120 %
    may_flip: NDArray[np.bool_]  # (n,), which images may be flipped
    may_jitter: NDArray[np.bool_]  # (n,), which images' colours may change

    @classmethod
    def from_captions(
        cls, texts: Sequence[str], positives: Sequence[Sequence[int]], *, flip: float, color_jitter: float
    ) -> "Augmentation":
        """Return the augmentation of images whose right texts are `positives`, each by its numbers in `texts`."""
        unflippable, colored = (
            {i for i, text in enumerate(texts) if says(text)} for says in (forbids_flip, mentions_color)
        )
        may_flip, may_jitter = (
            np.array([words.isdisjoint(own) for own in positives], np.bool_) for words in (unflippable, colored)
        )
        return cls(flip, color_jitter, may_flip, may_jitter)

    def apply(self, image: int, pixels: Pixels, draws: Draws) -> Pixels:
        """Return an image's pixels (height, width, 3), changed as `AUGMENTATION_DRAWS` uniform draws choose."""
        if self.may_flip[image] and draws[0] < self.flip:
            pixels = pixels[:, ::-1]
        if self.may_jitter[image] and self.color_jitter:
            pixels = jitter_colors(pixels, draws[1:], strength=self.color_jitter)
        return pixels


def jitter_colors(pixels: Pixels, draws: Draws, *, strength: float) -> Pixels:
    """Change brightness, contrast, saturation and hue of pixels (height, width, 3) by four uniform draws.

    All four are linear, so one matrix does them: greys stay grey, and draws of .5 leave everything as it is.
    """
    brightness, contrast, saturation = (1 + strength * (2 * draws[:3] - 1)).tolist()
    turn = 2 * math.pi * _MAX_HUE_TURN * strength * (2 * float(draws[3]) - 1)
    rotation = np.array([[1, 0, 0], [0, math.cos(turn), -math.sin(turn)], [0, math.sin(turn), math.cos(turn)]])
    hue = np.linalg.inv(_YIQ) @ rotation @ _YIQ  # keeps luminance
    matrix = (saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMINANCE, (3, 1))) @ hue
    values = pixels.reshape(-1, 3).astype(np.float32)  # (pixels, 3): one product of a tall matrix, not one a row
    mean = float(values.mean(axis=0, dtype=np.float64) @ _LUMINANCE)
    changed = values @ (brightness * contrast * matrix.T).astype(np.float32)
    changed += np.float32(brightness * (1 - contrast) * mean + 0.5)  # and a half, to round
    return np.asarray(changed.clip(0, 255), np.uint8).reshape(pixels.shape)


def drop_words(text: str, draws: Draws, *, probability: float) -> str:
    """Return the text without those of its `split_words` whose draw is below `probability`; at least one stays."""
    words = split_words(text)
    stays = draws >= probability
    if stays.all():
        return text
    if not stays.any():
        stays = draws == draws.max()
    return " ".join(word for word, kept in zip(words, stays, strict=True) if kept)

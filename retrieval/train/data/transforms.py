"""What training sees of a picture: framed once as the model's own preprocessing does, then cropped anew each epoch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_STRETCH: Final = 1.1  # a crop is at most this much wider or higher than the model's input
_MAX_ASPECT: Final = 2.0  # of a framed picture: what lies further out is never seen by the finished model
_FEWER_PIXELS: Final = 0.5  # transform of less than this share would be enlarged; keep that much sharpness and no more


@dataclass(frozen=True, slots=True)
class TrainTransform:
    """How pictures become a model's input in training.

    Attributes:
        height: of the model's input.
        width: of the model's input.
        resize_mode: open_clip's word for what preprocessing does to a picture of another shape: "shortest" cuts off
            what is too long, "squash" distorts, "longest" pads.
        bicubic: or else bilinear.
        fill: the grey value that "longest" pads with.
        least: the least share of the area that a crop shows.
    """

    height: int
    width: int
    resize_mode: str
    bicubic: bool
    fill: int
    min_scale: float

    @classmethod
    def from_preprocess(cls, preprocess: Mapping[str, Any], *, min_scale: float) -> "TrainTransform":
        """The transform for a model with this `preprocess_cfg` of open_clip."""
        height, width = np.broadcast_to(preprocess["size"], 2).tolist()
        return cls(
            height=height,
            width=width,
            resize_mode=preprocess["resize_mode"] or "shortest",
            bicubic=preprocess["interpolation"] != "bilinear",
            fill=preprocess["fill_color"],
            min_scale=min_scale,
        )

    @property
    def resample(self) -> Image.Resampling:
        """The filter that pixels are averaged with."""
        return Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR

    def resize(self, image: Image.Image) -> Image.Image:
        """The picture in a shape and size from which `cut` can take any crop: what is worth keeping in memory."""
        aspect = self.width / self.height
        if self.resize_mode == "longest":
            image = _padded(image, aspect, fill=self.fill)
        elif self.resize_mode == "shortest":
            image = _trimmed(image, low=aspect / _MAX_ASPECT, high=aspect * _MAX_ASPECT)
        sides = self._framed_sides(image)
        return image if sides == image.size else image.resize(sides, self.resample, reducing_gap=3.0)

    def random_resized_crop(
        self, framed: Image.Image, chance: Sequence[float] | NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """A crop of a framed picture as bytes (height, width, 3); four numbers in [0, 1) say which."""
        box = self._box(framed.size, chance)
        return np.asarray(framed.resize((self.width, self.height), self.resample, box=box))

    def _framed_sides(self, image: Image.Image) -> tuple[int, int]:
        margin = 1 / math.sqrt(max(self.min_scale, _FEWER_PIXELS))
        enough = (margin * self.width / image.width, margin * self.height / image.height)
        if self.resize_mode == "squash":
            horizontal, vertical = (min(1.0, factor) for factor in enough)
        else:
            horizontal = vertical = min(1.0, max(enough))
        return max(1, math.ceil(image.width * horizontal)), max(1, math.ceil(image.height * vertical))

    def _box(
        self, size: tuple[int, int], chance: Sequence[float] | NDArray[np.float64]
    ) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the crop. With `least` at 1: the middle, as in the finished model."""
        area, stretch, across, down = (float(number) for number in chance)
        if self.min_scale == 1:
            area, stretch, across, down = 1.0, 0.5, 0.5, 0.5
        aspect = _STRETCH ** (2 * stretch - 1)
        if self.resize_mode == "squash":
            aspect *= size[0] / size[1]
        else:
            aspect *= self.width / self.height
        share = math.sqrt(self.min_scale + (1 - self.min_scale) * area)
        height = share * min(size[1], size[0] / aspect)
        width = height * aspect
        left, top = across * (size[0] - width), down * (size[1] - height)
        return left, top, min(left + width, size[0]), min(top + height, size[1])


def _padded(image: Image.Image, aspect: float, *, fill: int) -> Image.Image:
    """The picture in the middle of the least canvas of this width / height that holds it."""
    canvas = max(image.width, round(image.height * aspect)), max(image.height, round(image.width / aspect))
    return ImageOps.pad(image, canvas, color=(fill, fill, fill))


def _trimmed(image: Image.Image, *, low: float, high: float) -> Image.Image:
    """The middle of a picture whose width / height lies outside these bounds."""
    width, height = min(image.width, round(image.height * high)), min(image.height, round(image.width / low))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image if (width, height) == image.size else image.crop((left, top, left + width, top + height))

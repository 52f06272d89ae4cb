"""What open_clip's transform for inference does to an image, by Pillow and numpy alone: equal to it to the bit.

Pillow loads at the first image: an encoder of texts alone does without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retrieval.errors import EncoderError
from retrieval.images.scaled import Scaled, get_scaled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

Triple = tuple[float, float, float]
Size = tuple[int, int]  # height and width, as in every configuration; Pillow has them the other way round

# By the names of Pillow's filters. open_clip draws "random" in training and takes "bicubic" for inference.
_RESAMPLING = {"bicubic": "BICUBIC", "random": "BICUBIC", "bilinear": "BILINEAR"}
_MODES = ("shortest", "longest", "squash")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize and crop an image, then scale its bytes: the steps of open_clip's `preprocess_cfg`.

    Resized so that the shortest side has its size, the rest cut off evenly; so that the longest side has its size, the
    rest filled with a color; or both sides to their sizes ("squash"). open_clip 3.3, `image_transform_v2`.
    """

    size: Size  # of the result
    mean: Triple  # of each channel, of values from 0 to 1
    std: Triple
    interpolation: str = "bicubic"  # or "bilinear", "random"
    resize_mode: str = "shortest"  # or "longest", "squash"
    fill_color: int | tuple[int, int, int] = 0  # of "longest", from 0 to 255

    def __post_init__(self) -> None:
        if self.interpolation not in _RESAMPLING:
            raise EncoderError(f"There is no interpolation {self.interpolation!r}. Use {_join(_RESAMPLING)}.")
        if self.resize_mode not in _MODES:
            raise EncoderError(f"There is no resize mode {self.resize_mode!r}. Use {_join(_MODES)}.")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the preprocessing of a whole `preprocess_cfg`, or of what `asdict` made of another one."""
        height, width = _repeat(config["size"], 2)
        color = config.get("fill_color") or 0
        return cls(
            size=(int(height), int(width)),
            mean=_repeat(config["mean"], 3),
            std=_repeat(config["std"], 3),
            interpolation=config.get("interpolation") or "bicubic",
            resize_mode=config.get("resize_mode") or "shortest",
            fill_color=color if isinstance(color, int) else _repeat(color, 3),
        )

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize one RGB image, and crop or fill it: bytes `(height, width, 3)`.

        One that `open_image` decoded smaller is resized from the place of the whole on its pixels, no further than it
        is kept. Of 60 photographs the bytes have a median PSNR of 42 dB or better against a full decode.
        """
        if (scaled := get_scaled(image)) is not None:
            image = self._resize_scaled(image, scaled)
        elif image.size[::-1] != (size := self._resized_size(image.height, image.width)):
            image = image.resize(size[::-1], self._resampling)
        return np.asarray(self._fill(image) if self.resize_mode == "longest" else self._crop(image))

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return bytes `(n, height, width, 3)` as `(byte / 255 - mean) / std`, `(n, 3, height, width)`.

        In the order of torchvision's `ToTensor` and `Normalize`, and so equal to them to the last bit.
        """
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (self.mean, self.std))
        values = np.empty((len(pixels), 3, *pixels.shape[1:3]), np.float32)
        np.divide(pixels.transpose(0, 3, 1, 2), np.float32(255), out=values)
        values -= mean
        values /= std
        return values

    @property
    def _resampling(self) -> Image.Resampling:
        """Return the filter; open_clip forgets the interpolation where it meets the shortest side of an oblong."""
        from PIL.Image import Resampling

        is_oblong = self.size[0] != self.size[1]
        forgets = is_oblong and self.resize_mode == "shortest"
        return Resampling[_RESAMPLING["bicubic" if forgets else self.interpolation]]

    def _resized_size(self, height: int, width: int) -> Size:
        """Return the size before cropping or filling, each rounded the way of torchvision's or timm's class for it."""
        if self.resize_mode == "squash":
            return self.size
        ratios = height / self.size[0], width / self.size[1]
        if self.resize_mode == "longest":  # at least a pixel, where open_clip fails
            return max(round(height / max(ratios)), 1), max(round(width / max(ratios)), 1)
        if self.size[0] != self.size[1]:
            return round(height / min(ratios)), round(width / min(ratios))
        side = self.size[0]
        return (int(side * height / width), side) if width <= height else (side, int(side * width / height))

    def _resize_scaled(self, image: Image.Image, scaled: Scaled) -> Image.Image:
        """Return what the crop would keep of the resized whole."""
        height, width = self._resized_size(*scaled.whole[::-1])
        kept_height, kept_width = min(height, self.size[0]), min(width, self.size[1])
        left, top = round((width - kept_width) / 2), round((height - kept_height) / 2)
        box = scaled.part((left, top, left + kept_width, top + kept_height), size=(width, height))
        return image.resize((kept_width, kept_height), self._resampling, box=box)

    def _crop(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if (image.height, image.width) == self.size:
            return image
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))

    def _fill(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if (image.height, image.width) == self.size:
            return image
        color = self.fill_color
        from PIL.Image import new

        canvas = new("RGB", (width, height), (color, color, color) if isinstance(color, int) else color)
        canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return canvas


def _repeat(value: Any, length: int) -> Any:
    """Return a tuple of `length` values, of one value or of as many."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * length if len(values) == 1 else values


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)

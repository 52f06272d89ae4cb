"""What a training config leaves open, resolved by the model and the images; and what a resumed run may not change."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from retrieval.settings import settings_of
from retrieval.train.config import TrainConfig

# From random weights, from a trained model, and from trained towers; None depends on the model's size or the images.
_DEFAULTS: Final[Mapping[str, tuple[Any, Any, Any]]] = {
    "epochs": (30, None, 10),
    "batch_size": (64, 64, 64),
    "learning_rate": (1e-3, None, 1e-5),
    "head_learning_rate": (None, None, 1e-3),
    "weight_decay": (0.1, 0.1, 0.1),
    "warmup": (0.1, 0.1, 0.1),
    "crop": (0.7, 0.9, 0.9),
    "flip": (0.5, 0.25, 0.25),
    "color_jitter": (0.2, 0.1, 0.1),
    "freeze_bn_stats": (False, True, True),
    "wise_ft": ("off", "auto", "off"),
}
_LORA_RATE: Final = 2e-4
_USUAL_WEIGHTS: Final = 150e6  # of ViT-B/32
_TEXT_FACTOR: Final = 4
_ENOUGH_STEPS: Final = 100
_FEW_IMAGES: Final = 2000


class ResolvedConfig(TrainConfig):
    """A config in which every setting that decides the result has its value; `resolve` makes it."""

    __slots__ = ()

    if TYPE_CHECKING:
        epochs: int
        batch_size: int
        learning_rate: float
        weight_decay: float
        warmup: float
        crop: float
        flip: float
        color_jitter: float
        freeze_bn_stats: bool
        wise_ft: str | float


def apply_defaults(config: TrainConfig) -> TrainConfig:
    """The config with every None replaced that the kind of start alone decides: random weights, towers, or a model."""
    start = 2 if config.image_weights and config.text_weights else int(not config.from_random)
    settings = {name: values[start] for name, values in _DEFAULTS.items() if getattr(config, name) is None}
    if config.lora_rank and config.learning_rate is None and not config.from_random:
        settings["learning_rate"] = _LORA_RATE
    if config.from_random and config.tune == "auto":
        settings["tune"] = "both"
    return replace(config, **settings)


def resolve(config: TrainConfig, *, weights: int, images: int) -> ResolvedConfig:
    """The config with nothing left open, for a model with this many weights and this many images to learn from.

    A learning rate of 1e-5 suits ViT-B/32 with its 150 million weights; a smaller model bears more, in inverse
    proportion, up to 1e-4. A text tower alone, which has all the way to go to images that stay where they are, learns
    four times as fast. A small set is shown more than 5 times, up to 20, so that there are about a hundred steps; and
    it teaches an image tower less than it makes it forget, so that only what is behind the tower's blocks is trained.
    """
    config = apply_defaults(config)
    settings = asdict(config)
    if config.learning_rate is None:
        factor = _TEXT_FACTOR if config.tune == "text" else 1
        settings["learning_rate"] = min(1e-4, max(1e-5, 1e-5 * _USUAL_WEIGHTS / weights)) * factor
    if config.epochs is None:
        settings["epochs"] = min(20, max(5, round(_ENOUGH_STEPS * settings["batch_size"] / images)))
    if config.tune == "auto":
        few = images < _FEW_IMAGES and not config.lora_rank
        settings |= {"tune": "both", "image_blocks": 0 if few and config.image_blocks is None else config.image_blocks}
    return ResolvedConfig(**settings)


def apply_resolved(config: TrainConfig, begun: TrainConfig) -> TrainConfig:
    """The config of a resumed run, with what was resolved when it was begun where the config itself names nothing."""
    return replace(config, **{name: getattr(begun, name) for name in _left_open(config)})


def find_differences(config: TrainConfig, begun: TrainConfig) -> list[str]:
    """What would make the two give different models, each as "epochs 3, now 5" with the value of `config` last."""
    decisive = [name for name, one in settings_of(TrainConfig).items() if one.affects_result]
    names = [name for name in decisive if name not in _left_open(config)]
    changed = [name for name in names if getattr(config, name) != getattr(begun, name)]
    return [f"{name} {getattr(begun, name)!r}, now {getattr(config, name)!r}" for name in changed]


def _left_open(config: TrainConfig) -> list[str]:
    """The settings that the model and the images decide."""
    unnamed = [name for name in ("learning_rate", "epochs") if getattr(config, name) is None]
    automatic = ["tune"] if config.image_blocks is not None else ["tune", "image_blocks"]
    return unnamed + (automatic if config.tune == "auto" else [])

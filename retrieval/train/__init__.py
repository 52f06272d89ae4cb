"""Training of dual encoders on image-text pairs. Names load on first use: importing the package loads no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retrieval.extras import require_extra

if TYPE_CHECKING:
    from retrieval.train.config import TrainConfig
    from retrieval.train.loop.callbacks import Callbacks
    from retrieval.train.result import TrainResult
    from retrieval.train.training import train

__all__ = ["Callbacks", "TrainConfig", "TrainResult", "train"]

_HOME = {"TrainConfig": "config", "TrainResult": "result", "Callbacks": "loop.callbacks", "train": "training"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with require_extra("train", "Training"):
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

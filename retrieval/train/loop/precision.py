"""The data type in which the towers run: float32, or a half-precision type where that is faster."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

import torch

from retrieval.encoder.open_clip_encoder import fastest_dtype
from retrieval.train.distributed import ProcessGroup

_LARGE: Final = 10_000_000  # weights of a model worth half precision on a CPU; smaller ones lose by conversions
_MIN_SPEEDUP: Final = 2.0  # of a step in bfloat16 on a CPU: few have instructions for it


class Precision(torch.amp.GradScaler):
    """A data type, and the loss scaling that gradients in it need.

    In float16 small gradients would vanish, so the loss is scaled up by a factor that adapts (Micikevicius et al.
    2018, "Mixed Precision Training", arXiv 1710.03740): a step whose gradients overflow is skipped. In other types
    nothing is scaled or skipped.

    Args:
        dtype: "float32", "bfloat16" or "float16"; "auto" for one that is still to be chosen.
        device: "cpu" or "cuda".
    """

    def __init__(self, dtype: str, device: str) -> None:
        super().__init__(device, enabled=dtype == "float16")
        self.dtype, self.device = dtype, device

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which the towers run."""
        half = self.dtype in {"bfloat16", "float16"}
        return torch.autocast(self.device, dtype=getattr(torch, self.dtype if half else "bfloat16"), enabled=half)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON; the key "kind" is that of version 0.1.0."""
        return super().state_dict() | {"kind": self.dtype}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], device: str) -> "Precision":
        """The precision of a checkpoint, in the data type that the run was begun in: `choose_dtype` may vary."""
        precision = cls(state["kind"], device)
        precision.load_state_dict({name: value for name, value in state.items() if name != "kind"})
        return precision


def choose_dtype(device: str, *, weights: int, try_step: Callable[[str], object], process_group: ProcessGroup) -> str:
    """The data type that "auto" stands for: bfloat16 on GPUs that have it, float16 on others, and on CPUs float32.

    On a CPU whose matrix products are at least twice as fast in bfloat16, a step of a large model is timed in both.
    Without instructions for it bfloat16 is up to eight times slower. `try_step` computes the gradients of a step in a
    data type; all processes try steps or none does, as the main one decides.
    """
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    worth_a_try = process_group.is_main and weights >= _LARGE and fastest_dtype(device) != torch.float32
    if not process_group.broadcast_values([worth_a_try])[0]:
        return "float32"
    speedup = _time_step(lambda: try_step("float32")) / _time_step(lambda: try_step("bfloat16"))
    return "bfloat16" if speedup >= _MIN_SPEEDUP else "float32"


def _time_step(step: Callable[[], object]) -> float:
    """The fewer seconds of two runs, after one that warms up."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])

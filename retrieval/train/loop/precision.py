"""In what kind of number the towers run: float32, or a half one where that is worth it."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

import torch
from torch import Tensor

from retrieval.encoder.open_clip_encoder import fastest_dtype
from retrieval.train.distributed import ProcessGroup

_LARGE: Final = 10_000_000  # weights of a model worth half precision on a CPU; smaller ones lose by conversions
_WORTHWHILE: Final = 2.0  # times that a step in bfloat16 has to be the faster on a CPU: few have instructions for it


class Precision:
    """A kind of number, and what gradients in it need.

    In float16 small gradients would vanish, so the loss is scaled up, by a factor that finds itself (Micikevicius et
    al. 2018, "Mixed Precision Training", arXiv 1710.03740): a step whose gradients overflow is left out.

    Args:
        kind: "float32", "bfloat16" or "float16"; "auto" for one that is still to be found.
        device: "cpu" or "cuda".
    """

    def __init__(self, kind: str, device: str) -> None:
        self.kind, self.device = kind, device
        self._scaler = torch.amp.GradScaler(device, enabled=kind == "float16")

    @property
    def may_skip(self) -> bool:
        """Whether gradients that are not finite are nothing to worry about."""
        return self._scaler.is_enabled()

    def autocast(self) -> AbstractContextManager[Any]:
        """While the towers run."""
        half = self.kind in {"bfloat16", "float16"}
        kind = getattr(torch, self.kind if half else "bfloat16")
        return torch.autocast(self.device, dtype=kind, enabled=half)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to compute gradients of."""
        return self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the gradients back to their size."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer move, if all gradients are finite."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return self._scaler.state_dict() | {"kind": self.kind}

    @classmethod
    def restored(cls, state: Mapping[str, Any], device: str) -> "Precision":
        """As a checkpoint has it, in the kind that the run was begun in: a probe may say another each time."""
        found = cls(state["kind"], device)
        if found.may_skip:
            found._scaler.load_state_dict({name: value for name, value in state.items() if name != "kind"})
        return found


def fitting_kind(device: str, *, weights: int, try_step: Callable[[str], object], process_group: ProcessGroup) -> str:
    """The kind that "auto" stands for: bfloat16 on GPUs that have it, float16 on others, and on CPUs float32.

    On a CPU whose matrix products are at least twice as fast in bfloat16 a step of a large model is tried in both:
    `try_step` takes one in the given kind. Without instructions for it bfloat16 is up to eight times slower.

    Args:
        device: "cpu" or "cuda".
        weights: how many the model has.
        try_step: computes the gradients of a step in a kind, together with the other processes.
        process_group: the processes that train together; all try steps or none does, as the main one decides.
    """
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    worth_a_try = process_group.is_main and weights >= _LARGE and fastest_dtype(device) != torch.float32
    if not process_group.broadcast_values([worth_a_try])[0]:
        return "float32"
    gain = _seconds(lambda: try_step("float32")) / _seconds(lambda: try_step("bfloat16"))
    return "bfloat16" if gain >= _WORTHWHILE else "float32"


def _seconds(step: Callable[[], object]) -> float:
    """The least seconds of two tries; the first of three warms up."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])

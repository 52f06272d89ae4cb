"""The state of training in one safetensors file: nothing is pickled, and a kill leaves the old file or the new."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from retrieval.encoder.open_clip_models import write_tensors
from retrieval.errors import TrainingError

Tensors = Mapping[str, torch.Tensor]

_FORMAT: Final = 1
_MODEL, _OPTIMIZER, _AVERAGE, _MORE = "model.", "optimizer.", "average.", "more."


def save_state(
    path: Path,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, Any],
    average: Tensors | None = None,
    more: Tensors | None = None,
) -> None:
    """Write the model's tensors, the optimizer's by the names of their parameters, and `facts`, which are JSON.

    An `average` of the model's weights is written beside them, and `more` tensors, which `load_more` reads.
    """
    tensors = {f"{_MODEL}{name}": _plain(tensor) for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{_OPTIMIZER}{key}.{name}"] = _plain(value)
    tensors |= {f"{_AVERAGE}{name}": _plain(tensor) for name, tensor in (average or {}).items()}
    tensors |= {f"{_MORE}{name}": _plain(tensor) for name, tensor in (more or {}).items()}
    told = json.dumps({"format": _FORMAT, "facts": dict(facts)})  # one entry: safetensors writes several in any order
    write_tensors(path, tensors, metadata={"state": told})


def save_weights(path: Path, weights: Tensors) -> None:
    """Write tensors by their names; a kill leaves the old file or the new."""
    write_tensors(path, {name: _plain(tensor) for name, tensor in weights.items()})


def load_state(
    path: Path, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Tensors | None = None
) -> dict[str, Any]:
    """Put model, optimizer and average back into the state that was saved; what comes back is `facts`.

    Raises:
        TrainingError: the file is damaged or belongs to another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["state"])
            if told["format"] != _FORMAT:
                raise TrainingError(f"{path} was written by a newer version; resume with that")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        weights = {name.removeprefix(_MODEL): tensors[name] for name in tensors if name.startswith(_MODEL)}
        model.load_state_dict(weights)
        for name, tensor in (average or {}).items():
            tensor.copy_(tensors[f"{_AVERAGE}{name}"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"the checkpoint {path} cannot be read ({reason}); train into another folder") from error
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = dict(_optimizer_state(name, parameter, tensors))
    facts: dict[str, Any] = told["facts"]
    return facts


def load_more(path: Path) -> dict[str, torch.Tensor]:
    """The tensors that were saved as `more`."""
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(_MORE)]  # noqa: SIM118 (it is no mapping)
        return {name.removeprefix(_MORE): file.get_tensor(name) for name in names}


def _optimizer_state(
    name: str, parameter: torch.Tensor, tensors: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """A parameter's moments, laid out in memory as it is: the fused optimizer goes through both side by side."""
    for key in ("step", "exp_avg", "exp_avg_sq"):
        saved = tensors.get(f"{_OPTIMIZER}{key}.{name}")
        if saved is not None:
            like = parameter.detach() if key != "step" else saved
            yield key, torch.empty_like(like, dtype=saved.dtype, device=parameter.device).copy_(saved)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU of its own: safetensors refuses tensors that share memory, as tied weights do."""
    return tensor.detach().to("cpu", copy=True).contiguous()

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
_MODEL, _OPTIMIZER, _EMA, _EXTRA = "model.", "optimizer.", "average.", "more."


def save_checkpoint(
    path: Path,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Mapping[str, Any],
    ema: Tensors | None = None,
    extra: Tensors | None = None,
) -> None:
    """Write the model's tensors, the optimizer's by parameter name, the moving average, `extra` ones, and JSON."""
    tensors = {f"{_MODEL}{name}": _copy_to_cpu(tensor) for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{_OPTIMIZER}{key}.{name}"] = _copy_to_cpu(value)
    tensors |= {f"{_EMA}{name}": _copy_to_cpu(tensor) for name, tensor in (ema or {}).items()}
    tensors |= {f"{_EXTRA}{name}": _copy_to_cpu(tensor) for name, tensor in (extra or {}).items()}
    # One entry of metadata, since safetensors writes several in any order. Its keys are those of version 0.1.0.
    write_tensors(path, tensors, metadata={"state": json.dumps({"format": _FORMAT, "facts": dict(progress)})})


def save_weights(path: Path, weights: Tensors) -> None:
    """Write tensors by their names; a kill leaves the old file or the new."""
    write_tensors(path, {name: _copy_to_cpu(tensor) for name, tensor in weights.items()})


def load_checkpoint(
    path: Path, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer, ema: Tensors | None = None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Put model, optimizer and moving average back into the saved state; return `progress` and `extra`.

    Raises:
        TrainingError: The file is damaged or belongs to another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            if state["format"] != _FORMAT:
                raise TrainingError(f"{path} was written by a newer version. Resume with that version.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        model.load_state_dict(_strip(tensors, _MODEL))
        for name, tensor in (ema or {}).items():
            tensor.copy_(tensors[f"{_EMA}{name}"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"The checkpoint {path} cannot be read ({reason}). Train into another folder.") from error
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = dict(_optimizer_state(name, parameter, tensors))
    return state["facts"], _strip(tensors, _EXTRA)


def _strip(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}


def _optimizer_state(
    name: str, parameter: torch.Tensor, tensors: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """A parameter's moments, in the parameter's memory layout: the fused optimizer walks through both in parallel."""
    for key in ("step", "exp_avg", "exp_avg_sq"):
        saved = tensors.get(f"{_OPTIMIZER}{key}.{name}")
        if saved is not None:
            like = parameter.detach() if key != "step" else saved
            yield key, torch.empty_like(like, dtype=saved.dtype, device=parameter.device).copy_(saved)


def _copy_to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU: safetensors refuses tensors that share memory, as tied weights do."""
    return tensor.detach().to("cpu", copy=True).contiguous()

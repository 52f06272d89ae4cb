"""Which parameters are trained and at what learning rate: towers, their last blocks, heads; the rest is frozen."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import torch
from torch import nn

from retrieval.errors import TrainingError
from retrieval.train.model.lora import add_lora, is_lora_parameter

if TYPE_CHECKING:
    from retrieval.train.config import TrainConfig

Side = Literal["image", "text", "scale"]

_BETAS: Final = (0.9, 0.98)  # and epsilon: CLIP's (Radford et al. 2021, table 18)
_EPSILON: Final = 1e-6

# How open_clip, timm and transformers number a tower's blocks or, of a convolutional one, its stages.
_BLOCK: Final = re.compile(
    r"(?:^|\.)(?:resblocks\.|blocks?\.|stages\.|layers?\.?|h\.|(?:weight|bias)_.h_l)(\d+)(?:\.|$)"
)
_EMBEDDING: Final = re.compile(r"^(?!attn_?pool).*(?:emb|cls_token|reg_token|pos_)")  # before the blocks, in any order


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """Where a parameter is in its model."""

    side: Side  # its tower, or "scale" for the temperature and the logit bias
    layer_id: int  # 0 before the first block, then 1, 2, 3...; after the last block one more than that
    last_layer_id: int  # the tower's number of blocks, plus one
    in_head: bool  # whether it belongs to the projection into the shared space


_SCALE: Final = ParameterInfo("scale", 1, 1, in_head=False)


def locate_parameters(model: nn.Module) -> dict[str, ParameterInfo]:
    """Return where each parameter of an open_clip model is, by its name, without those that retrieval does not use.

    Blocks are those of the transformers, or the stages of a convolutional tower.
    """
    found = dict.fromkeys(_parameter_names(model, "logit_"), _SCALE)
    prefixes: dict[Side, str] = {"image": "visual.", "text": "text." if hasattr(model, "text") else ""}
    for side, prefix in prefixes.items():
        heads = {prefix + name for name in _head_parameter_names(get_tower(model, side))}
        names = [name for name in _parameter_names(model, prefix) if name not in found]
        found |= dict(_assign_layer_ids(names, prefix, side=side, heads=heads))
    return found


def get_tower(model: Any, side: Side) -> Any:
    """Return the module of one side; open_clip's CLIP is its own text tower."""
    return model.visual if side == "image" else getattr(model, "text", model)


def find_head(tower: Any) -> str | None:
    """Return the attribute that holds a tower's projection, a matrix or a module, which is the last thing applied."""
    for name in ("text_projection", "proj", "head"):
        part = getattr(tower, name, None)
        if isinstance(part, nn.Parameter) or (isinstance(part, nn.Module) and any(True for _ in part.parameters())):
            return name
    return None


def _parameter_names(model: nn.Module, prefix: str) -> list[str]:
    names = [name for name, _ in model.named_parameters() if name.startswith(prefix)]
    return names if prefix else [name for name in names if not name.startswith(("visual.", "text_decoder."))]


def _head_parameter_names(tower: Any) -> list[str]:
    """Return names within the tower; one of timm may end in the classifier of its trunk, a ResNet in its pooling."""
    own = find_head(tower)
    heads = [own] if own else ["attnpool.c_proj"]
    if own is None and hasattr(tower, "trunk"):
        classifiers = tower.trunk.default_cfg.get("classifier") or ()
        heads = [f"trunk.{name}" for name in ([classifiers] if isinstance(classifiers, str) else classifiers)]
    return [name for name, _ in tower.named_parameters() if any(f"{name}.".startswith(f"{head}.") for head in heads)]


def _assign_layer_ids(
    names: list[str], prefix: str, *, side: Side, heads: set[str]
) -> Iterator[tuple[str, ParameterInfo]]:
    blocks = {name: int(match[1]) for name in names if (match := _BLOCK.search(name.removeprefix(prefix)))}
    blocks = {name: number for name, number in blocks.items() if name not in heads}
    id_of_block = {number: layer_id for layer_id, number in enumerate(sorted(set(blocks.values())), start=1)}
    last, after_first_block = len(id_of_block) + 1, False
    for name in names:
        after_first_block |= name in blocks
        if name in blocks:
            layer_id = id_of_block[blocks[name]]
        elif name in heads or (after_first_block and not _EMBEDDING.search(name.removeprefix(prefix))):
            layer_id = last
        else:
            layer_id = 0
        yield name, ParameterInfo(side, layer_id, last, in_head=name in heads)


def trainable_parameters(model: nn.Module, config: "TrainConfig") -> set[str]:
    """Return the names of the parameters that a config trains.

    Raises:
        TrainingError: there are none, or a tower has fewer blocks than are to be trained.
    """
    found = locate_parameters(model)
    blocks = {"image": config.image_blocks, "text": config.text_blocks, "scale": None}
    for side, count in blocks.items():
        last = max((info.last_layer_id for info in found.values() if info.side == side), default=1)
        if count is not None and count >= last:
            raise TrainingError(
                f"{side}_blocks is {count}, but the {side} tower of this model has {last - 1} blocks. Take fewer."
            )
    names = {name for name, info in found.items() if _is_trainable(info, config.tune, blocks[info.side])}
    if all(found[name].side == "scale" for name in names):
        raise TrainingError(f"tune {config.tune!r} leaves nothing to train: this model has no such part.")
    return names


def _is_trainable(info: ParameterInfo, tune: str, blocks: int | None) -> bool:
    if info.side == "scale":
        return True
    if tune == "heads":
        return info.in_head
    return tune in {"auto", "both", info.side} and (blocks is None or info.layer_id >= info.last_layer_id - blocks)


def freeze(model: nn.Module, config: "TrainConfig") -> None:
    """Freeze everything but the parameters to train.

    With LoRA these are the heads, the temperature, and new low-rank matrices beside those of attention and MLP layers.
    """
    names, found = trainable_parameters(model, config), locate_parameters(model)
    if config.lora_rank:
        whole = {name for name in names if found[name].in_head or found[name].side == "scale"}
        add_lora(model, names - whole, rank=config.lora_rank, seed=config.seed)
        names = whole | {name for name, _ in model.named_parameters() if is_lora_parameter(name)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def is_frozen(model: nn.Module, side: Side, *, ignore_head: bool = False) -> bool:
    """Return whether no parameter of a side is trained; or none but its head's."""
    parameters = dict(model.named_parameters())
    return not any(
        parameters[name].requires_grad
        for name, info in locate_parameters(model).items()
        if info.side == side and not (ignore_head and info.in_head)
    )


def set_train_mode(model: nn.Module) -> None:
    """Put a model into training mode but for its frozen modules: no dropout there, and batch statistics stay."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def create_optimizer(model: nn.Module, config: "TrainConfig") -> torch.optim.Optimizer:
    """Return AdamW over what is not frozen, with weight decay on matrices and kernels only.

    Biases, norms and the temperature do not decay. Each group has an `lr_scale`, by which the scheduled learning rate
    is multiplied. With layer-wise decay each block learns by that factor slower than the one above it (Clark et al.
    2020, "ELECTRA", arXiv 2003.10555, section 4).
    """
    located = locate_parameters(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = cast("float", config.weight_decay) if parameter.ndim >= 2 else 0.0  # noqa: PLR2004 (a matrix)
            info = located.get(name, _SCALE)
            scale = float(config.layer_decay ** (info.last_layer_id - info.layer_id))
            if info.in_head and config.head_learning_rate is not None:
                scale = config.head_learning_rate / cast("float", config.learning_rate)
            groups.setdefault((decay, scale), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": members, "weight_decay": decay, "lr_scale": scale} for (decay, scale), members in groups.items()],
        betas=_BETAS,
        eps=_EPSILON,
        fused=True,
    )

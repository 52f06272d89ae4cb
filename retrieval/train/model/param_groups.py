"""What of a model is trained, and how fast: towers, their last blocks, heads; everything else stays as it is."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import torch
from torch import nn

from retrieval.errors import TrainingError
from retrieval.train.model.lora import add_lora, is_lora

if TYPE_CHECKING:
    from retrieval.train.config import TrainConfig

Side = Literal["image", "text", "scale"]

_BETAS: Final = (0.9, 0.98)  # and epsilon: CLIP's (Radford et al. 2021, table 18)
_EPSILON: Final = 1e-6

# How open_clip, timm and transformers number a tower's blocks or, of a convolutional one, its stages.
_BLOCK: Final = re.compile(
    r"(?:^|\.)(?:resblocks\.|blocks?\.|stages\.|layers?\.?|h\.|(?:weight|bias)_.h_l)(\d+)(?:\.|$)"
)
_FIRST: Final = re.compile(r"^(?!attn_?pool).*(?:emb|cls_token|reg_token|pos_)")  # before the blocks, wherever listed


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parameter is in its model.

    Attributes:
        side: "scale" for the temperature and what belongs to it.
        rung: 0 before the first block, then 1, 2, 3...; after the last block one more than that.
        top: the tower's last rung: its number of blocks, plus one.
        head: whether it belongs to the projection into the shared space.
    """

    side: Side
    rung: int
    top: int
    head: bool


def locate_parameters(model: nn.Module) -> dict[str, Place]:
    """Where each parameter of an open_clip model is, by its name; what takes no part in retrieval is left out.

    Blocks are those of the transformers, or the stages of a convolutional tower.
    """
    found: dict[str, Place] = {name: Place("scale", 1, 1, head=False) for name in _named(model, "logit_")}
    towers: tuple[tuple[Side, str], ...] = (("image", "visual."), ("text", text_prefix(model)))
    for side, prefix in towers:
        heads = {prefix + name for name in _head_names(get_tower(model, side))}
        names = [name for name in _named(model, prefix) if name not in found]
        found |= dict(_climbed(names, prefix, side=side, heads=heads))
    return found


def get_tower(model: Any, side: Side) -> Any:
    """The module of one side; open_clip's CLIP is its own text tower."""
    return model.visual if side == "image" else getattr(model, "text", model)


def text_prefix(model: Any) -> str:
    """What the names of the text tower's parameters begin with."""
    return "text." if hasattr(model, "text") else ""


def find_head(tower: Any) -> str | None:
    """The attribute that holds a tower's projection: a matrix or a module, which is the last thing that it does."""
    for name in ("text_projection", "proj", "head"):
        part = getattr(tower, name, None)
        if isinstance(part, nn.Parameter) or (isinstance(part, nn.Module) and any(True for _ in part.parameters())):
            return name
    return None


def trainable_parameters(model: nn.Module, config: "TrainConfig") -> set[str]:
    """The names of the parameters that a config lets move.

    Raises:
        TrainingError: there are none, or a tower has fewer blocks than are to be trained.
    """
    found = locate_parameters(model)
    blocks = {"image": config.image_blocks, "text": config.text_blocks, "scale": None}
    for side, count in blocks.items():
        top = max((place.top for place in found.values() if place.side == side), default=1)
        if count is not None and count >= top:
            raise TrainingError(f"{side}_blocks is {count}, but the {side} tower of this model has {top - 1} blocks")
    names = {name for name, place in found.items() if _moves(place, config.tune, blocks[place.side])}
    if all(found[name].side == "scale" for name in names):
        raise TrainingError(f"tune {config.tune!r} leaves nothing to train: this model has no such part")
    return names


def freeze(model: nn.Module, config: "TrainConfig") -> None:
    """Leave everything but the trained parameters as it is: no gradient is computed for it.

    With LoRA those are the heads, the temperature, and beside the matrices of attention and MLP layers new thin ones.
    """
    names, found = trainable_parameters(model, config), locate_parameters(model)
    if config.lora_rank:
        whole = {name for name in names if found[name].head or found[name].side == "scale"}
        add_lora(model, names - whole, rank=config.lora_rank, seed=config.seed)
        names = whole | {name for name, _ in model.named_parameters() if is_lora(name)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def set_train_mode(model: nn.Module) -> None:
    """Put a model into training mode but for its frozen parts: no dropout there, and batch statistics as they are."""
    model.train()
    for module in model.modules():
        if _is_frozen(module):
            module.eval()


def is_frozen(model: nn.Module, side: Side, *, but_head: bool = False) -> bool:
    """Whether no parameter of a side moves; or none but its head's."""
    parameters = dict(model.named_parameters())
    return not any(
        parameters[name].requires_grad
        for name, place in locate_parameters(model).items()
        if place.side == side and not (but_head and place.head)
    )


def create_optimizer(model: nn.Module, config: "TrainConfig") -> torch.optim.Optimizer:
    """AdamW over what is not frozen; it pulls matrices and kernels to 0, but not biases, norms and the temperature.

    Each group has a `share`: what its learning rate is of the one that the sampler says. With layer decay that falls
    by one factor a block from the head down (Clark et al. 2020, "ELECTRA", arXiv 2003.10555, section 4).
    """
    where = locate_parameters(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = cast("float", config.weight_decay) if parameter.ndim >= 2 else 0.0  # noqa: PLR2004 (a matrix)
            share = _share(where.get(name, Place("scale", 1, 1, head=False)), config)
            groups.setdefault((decay, share), []).append(parameter)
    described = [
        {"params": members, "weight_decay": decay, "lr_scale": share} for (decay, share), members in groups.items()
    ]
    return torch.optim.AdamW(described, betas=_BETAS, eps=_EPSILON, fused=True)


def _share(place: Place, config: "TrainConfig") -> float:
    if place.head and config.head_learning_rate is not None:
        return config.head_learning_rate / cast("float", config.learning_rate)
    return float(config.layer_decay ** (place.top - place.rung))


def _named(model: nn.Module, prefix: str) -> list[str]:
    names = [name for name, _ in model.named_parameters() if name.startswith(prefix)]
    return names if prefix else [name for name in names if not name.startswith(("visual.", "text_decoder."))]


def _head_names(tower: Any) -> list[str]:
    """Names within the tower; a tower of timm may end in the classifier of its trunk, a ResNet in its pooling."""
    own = find_head(tower)
    heads = [own] if own else ["attnpool.c_proj"]
    if own is None and hasattr(tower, "trunk"):
        classifiers = tower.trunk.default_cfg.get("classifier") or ()
        heads = [f"trunk.{name}" for name in ([classifiers] if isinstance(classifiers, str) else classifiers)]
    return [name for name, _ in tower.named_parameters() if any(f"{name}.".startswith(f"{head}.") for head in heads)]


def _climbed(names: list[str], prefix: str, *, side: Side, heads: set[str]) -> Iterator[tuple[str, Place]]:
    blocks = {name: int(match[1]) for name in names if (match := _BLOCK.search(name.removeprefix(prefix)))}
    blocks = {name: number for name, number in blocks.items() if name not in heads}
    numbers = {number: rung for rung, number in enumerate(sorted(set(blocks.values())), start=1)}
    top, begun = len(numbers) + 1, False
    for name in names:
        begun |= name in blocks
        if name in blocks:
            rung = numbers[blocks[name]]
        elif name in heads:
            rung = top
        else:
            rung = top if begun and not _FIRST.search(name.removeprefix(prefix)) else 0
        yield name, Place(side, rung, top, head=name in heads)


def _moves(place: Place, tune: str, blocks: int | None) -> bool:
    if place.side == "scale":
        return True
    if tune == "heads":
        return place.head
    return tune in {"auto", "both", place.side} and (blocks is None or place.rung >= place.top - blocks)


def _is_frozen(module: nn.Module) -> bool:
    parameters: Mapping[str, nn.Parameter] = dict(module.named_parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters.values())

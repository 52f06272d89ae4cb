"""One space for both towers: heads that keep what the image teacher knows, and learn from the pairs what it does not.

EfficientNet's classifier gives 1,000 logits. Each class has a meaning, a vector of the sentence teacher's. The sum of
the meanings, weighted by gelu(logit - 2.5), ranks photos by text with no training at all, better than the softmax does
(coco_open text→image R@10 .84 against .81); and it is exactly an MLP, the head that open_clip puts on timm's towers.
That head is the start. Training then pulls pictures and captions together while it holds on to that start: on pictures,
and on invented features that look like each class in turn, so that classes without a picture here are kept as well.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Linear, functional

DIMENSION: Final = 512  # timm's MLP head has twice as many hidden units: enough for one a class
_THRESHOLD: Final = 2.5  # logits below say nothing
_CLASSES: Final = 1000
_BATCH: Final = 192
_SHARES: Final = {"tuxpaint": 1.0, "openclipart": 2.0, "emoji": 0.7, "grocery": 0.6, "clothing": 0.4, "recipes": 0.3}
_WEIGHTS: Final = {"pairs": 0.3, "classes": 0.05, "start": 5.0, "texts": 0.1}
_PEAKS: Final = (3e-4, 2e-4, 1e-3)  # learning rates of the image head, the text head and the temperature


@dataclass(frozen=True, slots=True)
class Pictures:
    """A set of captioned pictures as features.

    Attributes:
        features: (n, views, 1280) of the image teacher, before its classifier.
        texts: (t, 256) of the text tower, before its projection.
        captions: of each picture, its rows of `texts`.
    """

    features: torch.Tensor
    texts: torch.Tensor
    captions: Sequence[Sequence[int]]


class ImageHead(torch.nn.Module):
    """open_clip's MLP head of a timm tower: features (n, 1280) to rows (n, 512)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, meanings: torch.Tensor) -> None:
        """Begin as the sum of the classes' meanings (1000, 384), weighted by how far each logit is up."""
        super().__init__()
        self.fc1, self.fc2 = Linear(weight.shape[1], 2 * DIMENSION), Linear(2 * DIMENSION, DIMENSION)
        with torch.no_grad():
            self.fc1.weight[:_CLASSES] = weight
            self.fc1.bias[:_CLASSES] = bias - _THRESHOLD
            self.fc2.weight.mul_(0.1)
            self.fc2.weight[:, :_CLASSES] = _widened(meanings).T / 20
            self.fc2.bias.zero_()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Rows of unit length."""
        return functional.normalize(self.fc2(functional.gelu(self.fc1(features))), dim=-1)


class TextHead(torch.nn.Module):
    """The text tower's projection: (n, 256) to rows (n, 512)."""

    def __init__(self, projection: torch.Tensor, center: torch.Tensor) -> None:
        """Begin as the projection (256, 384) that the tower learned, less the mean meaning: hubs vanish."""
        super().__init__()
        self.projection = Linear(projection.shape[0], DIMENSION)
        with torch.no_grad():
            self.projection.weight.copy_(_widened(projection).T)
            self.projection.bias.copy_(-_widened(center[None])[0])

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        """Rows of unit length."""
        return functional.normalize(self.projection(texts), dim=-1)


def _widened(rows: torch.Tensor) -> torch.Tensor:
    return functional.pad(rows, (0, DIMENSION - rows.shape[1]))


@dataclass(frozen=True, slots=True)
class Classes:
    """What the image teacher knows: its classifier, and what its classes are called."""

    weight: torch.Tensor  # (1000, 1280)
    bias: torch.Tensor  # (1000,)
    meanings: torch.Tensor  # (1000, 384) unit rows
    wordings: Sequence[torch.Tensor]  # each (1000, 256): the classes' names, before the text tower's projection


def align(
    sets: Mapping[str, Pictures], classes: Classes, projection: torch.Tensor, *, steps: int, seed: int
) -> tuple[ImageHead, TextHead, float]:
    """Both heads and the scale of the scores, trained together; the towers below them stay as they are."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    center = classes.meanings.mean(0)
    image_head = ImageHead(classes.weight, classes.bias, classes.meanings - center)
    text_head = TextHead(projection, center)
    image_start, text_start = copy.deepcopy(image_head), copy.deepcopy(text_head)
    scale = torch.tensor(math.log(20.0), requires_grad=True)
    everything = torch.cat([pictures.features.flatten(0, 1) for pictures in sets.values()])
    groups: list[dict[str, Any]] = [
        {"params": image_head.parameters()},
        {"params": text_head.parameters()},
        {"params": [scale], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.02)
    for step in range(steps):
        share = min(1, (step + 1) / 50) * (1 + math.cos(math.pi * step / steps)) / 2
        for group, peak in zip(optimizer.param_groups, _PEAKS, strict=True):
            group["lr"] = peak * share
        features = torch.cat(
            [everything[random.integers(0, len(everything), _BATCH)].float(), _invented(everything, classes, random)]
        )
        rows = image_head(features)
        with torch.no_grad():
            likely = (features @ classes.weight.T + classes.bias).softmax(-1)
            before = image_start(features)
        named = text_head(classes.wordings[random.integers(len(classes.wordings))])
        loss = (
            _WEIGHTS["pairs"] * _pairs_loss(sets, image_head, text_head, scale=scale.exp(), random=random)
            + _WEIGHTS["classes"]
            * functional.kl_div((30 * rows @ named.T).log_softmax(-1), likely, reduction="batchmean")
            + _WEIGHTS["start"] * (1 - (rows * before).sum(-1)).mean()
            + _WEIGHTS["texts"] * _distance(text_head, text_start)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            scale.clamp_(0, math.log(50.0))
        if step % 100 == 0:
            print(f"heads: step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    return image_head, text_head, scale.exp().item()


def _invented(everything: torch.Tensor, classes: Classes, random: np.random.Generator) -> torch.Tensor:
    """Features (b, 1280) of no picture: a mix of two, pushed towards a class; in the range that the tower gives."""
    one, other = (everything[random.integers(0, len(everything), _BATCH)].float() for _ in range(2))
    share, push = (_column(random.uniform(low, 1.2 * high, _BATCH)) for low, high in ((0.0, 1 / 1.2), (0.2, 1.0)))
    mixed = share * one + (1 - share) * other
    towards = functional.normalize(classes.weight[random.integers(0, _CLASSES, _BATCH)], dim=-1)
    return (0.7 * mixed + push * mixed.norm(dim=1, keepdim=True) * towards).clamp(0, 6)


def _column(numbers: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(numbers).float()[:, None]


def _pairs_loss(
    sets: Mapping[str, Pictures],
    image_head: ImageHead,
    text_head: TextHead,
    *,
    scale: torch.Tensor,
    random: np.random.Generator,
) -> torch.Tensor:
    """The contrastive loss of a batch from one of the sets; other right captions are left out of it."""
    names = list(sets)
    shares = np.array([_SHARES[name] for name in names])
    pictures = sets[names[random.choice(len(names), p=shares / shares.sum())]]
    chosen = random.choice(len(pictures.features), min(_BATCH, len(pictures.features)), replace=False)
    views = random.integers(0, pictures.features.shape[1], len(chosen))
    captions = [pictures.captions[place] for place in chosen]
    texts = [own[random.integers(len(own))] for own in captions]
    right = torch.tensor([[text in own for text in texts] for own in captions])
    right.fill_diagonal_(fill_value=False)
    features = functional.dropout(pictures.features[chosen, views].float(), 0.1)
    scores = (scale * image_head(features) @ text_head(pictures.texts[texts]).T).masked_fill(right, -math.inf)
    own_place = torch.arange(len(chosen))
    return (functional.cross_entropy(scores, own_place) + functional.cross_entropy(scores.T, own_place)) / 2


def _distance(one: torch.nn.Module, other: torch.nn.Module) -> torch.Tensor:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return torch.stack([(weight - before.detach()).square().sum() for weight, before in pairs]).sum()

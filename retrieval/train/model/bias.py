"""The bias of the sigmoid loss, for models that were built without one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn

from retrieval.encoder.open_clip_models import Checkpoint

INIT_LOGIT_BIAS: Final = (
    -10.0
)  # and temperature, of a model with random weights: SigLIP's (Zhai et al. 2023, section 3.2)
INIT_LOGIT_SCALE: Final = math.log(10.0)
_HALVINGS: Final = 40
_ENOUGH: Final = 1024  # pairs to find it by


def add_logit_bias(checkpoint: Checkpoint, *, from_random: bool) -> Checkpoint:
    """The model with a bias to learn, which its config then names, so that plain open_clip loads the run."""
    model = checkpoint.model
    if model.logit_bias is not None:
        return checkpoint
    model.logit_bias = nn.Parameter(torch.full_like(model.logit_scale, INIT_LOGIT_BIAS))
    if from_random:
        with torch.no_grad():
            model.logit_scale.fill_(INIT_LOGIT_SCALE)
    return replace(checkpoint, config={**checkpoint.config, "init_logit_bias": INIT_LOGIT_BIAS})


def fit_logit_bias(rows: Sequence[Tensor], scale: Tensor) -> float:
    """The bias at which the scores of a batch, rows of pictures and texts (b, d), say as many right as there are pairs.

    There the sigmoid loss is least for towers and temperature as they are. A model that was trained by another loss
    would else spend its first hundreds of steps on pushing everything apart, or together.
    """
    images, texts = (side[:_ENOUGH].detach() for side in rows)
    scores = (scale * images @ texts.T).double()
    low, high = -float(scores.max()) - 50.0, -float(scores.min()) + 50.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if float((scores + middle).sigmoid().sum()) > len(scores) else (middle, high)
    return (low + high) / 2

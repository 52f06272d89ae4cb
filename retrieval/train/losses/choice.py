"""The loss that a config names, on a model's own temperature and bias."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor

from retrieval.train import losses
from retrieval.train.losses import chunked

if TYPE_CHECKING:
    from retrieval.train.config import TrainConfig
    from retrieval.train.losses import Positives

WHOLE: Final = 2048  # pairs up to which all scores are held at once, 16 MB of them; above, chunks are no slower


def compute_loss(
    model: Any,
    config: "TrainConfig",
    rows: Sequence[Tensor],
    *,
    positives: "Positives",
    weights: Tensor | None = None,
) -> Tensor:
    """The loss over a batch's rows of pictures and of texts, both (b, d)."""
    images, texts = rows
    forms: Any = losses if len(images) <= WHOLE else chunked
    given: dict[str, Any] = {"positives": positives.to(str(images.device)), "others": config.positives}
    given["weights"] = None if weights is None else weights.to(images)
    if config.loss == "triplet":
        found = forms.triplet(images, texts, margin=config.margin, **given)
    elif config.loss == "sigmoid":
        scale, bias = model.logit_scale.exp().reshape(()), model.logit_bias.reshape(())
        found = forms.sigmoid(images, texts, scale=scale, bias=bias, **given)
    else:
        scale = model.logit_scale.exp().reshape(())
        found = forms.contrastive(images, texts, scale=scale, smoothing=config.label_smoothing, **given)
    loss: Tensor = found
    return loss

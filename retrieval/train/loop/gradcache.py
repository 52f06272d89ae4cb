"""The gradients of one step, of a whole batch at once or of micro-batches in several processes, equal in value.

Gradient caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv
2101.06983), as in sentence-transformers' CachedMultipleNegativesRankingLoss:

1. Embed each micro-batch of images and of captions without a graph.
2. Gather the embeddings of all processes, compute the loss over the whole batch in each, and cache its gradients with
   respect to the embeddings.
3. Embed each micro-batch again, with a graph, and backpropagate the cached gradients of its embeddings.
4. Add up the gradients of the weights over the processes.

A batch of one micro-batch in one process is embedded once, with a graph. Step 3 must repeat step 1: dropout is keyed by
item (`item_dropout`), and batch normalization keeps fixed statistics wherever a batch is split: the model's own or,
with random weights, those of the first images.
"""

import math
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from retrieval.errors import TrainingError
from retrieval.train.config import PRECISIONS
from retrieval.train.distributed import ProcessGroup
from retrieval.train.loop.precision import Precision, choose_dtype
from retrieval.train.losses import compute_loss
from retrieval.train.model.create import INIT_LOGIT_BIAS, fit_logit_bias
from retrieval.train.model.item_dropout import has_dropout, item_dropout, item_keys
from retrieval.train.model.param_groups import Side, get_tower, set_train_mode

if TYPE_CHECKING:
    from retrieval.train.config import TrainConfig
    from retrieval.train.data.loader import Batch
    from retrieval.train.model.towers import Towers

_MAX_SCALE: Final = 100.0  # of the inverse temperature, as in CLIP (section 2.5)
_SIDES: Final[tuple[Side, ...]] = ("image", "text")
_BN_IMAGES: Final = 64  # the usual batch, and memory for it is little without gradients


class GradCache:
    """Computes the gradients of batches.

    Attributes:
        precision: Of the towers; "auto" until the first step. The loss is always computed in float32 at least.
    """

    def __init__(self, towers: "Towers", config: "TrainConfig", *, process_group: ProcessGroup) -> None:
        self.precision = Precision(config.precision, towers.device)
        self._towers, self._config, self._process_group = towers, config, process_group
        self._has_dropout = has_dropout(towers.model)
        if config.compile and self._has_dropout:  # which is keyed by item
            raise TrainingError("A model with dropout cannot be compiled. Leave out compile.")
        if config.compile:  # in place: the model, its names and what is saved of it stay the same
            text = get_tower(towers.model, "text")
            towers.model.visual.compile()
            getattr(text, "transformer", text).compile()
        freeze = process_group.world_size > 1 or config.micro_batch is not None or config.freeze_bn_stats
        norms = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 (the one base of all of them)
        self._frozen_norms = [module for module in towers.model.modules() if freeze and isinstance(module, norms)]
        has_stats = not config.from_random or config.freeze_bn_stats or config.image_weights
        image_modules = set() if has_stats or towers.can_precompute("image") else set(towers.model.visual.modules())
        self._untrained_norms = [norm for norm in self._frozen_norms if norm in image_modules]

    @property
    def needs_bn_stats(self) -> bool:
        """Whether batch normalization has no statistics yet to keep: `initialize_bn_stats` gives it some."""
        return bool(self._untrained_norms)

    @torch.no_grad()
    def initialize_bn_stats(self, batch: "Batch") -> None:
        """Keep the statistics of a batch's first images: with mean 0 and variance 1 all embeddings would be alike."""
        self._towers.model.eval()
        for norm in self._untrained_norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = 1.0  # the running statistics are those of this batch
        self._towers.encode("image", batch, slice(_BN_IMAGES))
        set_train_mode(self._towers.model)

    def accumulate_and_clip(self, batch: "Batch", optimizer: torch.optim.Optimizer) -> tuple[float, bool]:
        """Accumulate the batch's gradients and clip their norm; return the loss, and whether all is finite.

        Non-finite gradients in float16 do no harm: the optimizer then skips the step.
        """
        if self.precision.dtype == "auto":
            self.precision = Precision(self._choose_dtype(batch, optimizer), self._towers.device)
        loss = self.accumulate(batch)
        self.precision.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._towers.model.parameters(), self._config.clip_norm)
        return loss.item(), bool(torch.isfinite(loss if self.precision.is_enabled() else loss + norm))

    def optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take an optimizer step, zero the gradients, and clamp the temperature."""
        self.precision.step(optimizer)
        self.precision.update()
        optimizer.zero_grad()
        with torch.no_grad():
            self._towers.model.logit_scale.clamp_(0, math.log(_MAX_SCALE))

    def accumulate(self, batch: "Batch") -> Tensor:
        """Add the gradients of the loss to those of the model's parameters; return the loss."""
        for norm in self._frozen_norms:
            norm.eval()
        count = len(batch.images)
        size = self._config.micro_batch or count
        parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        whole = len(parts) == 1
        with torch.set_grad_enabled(whole):
            rows = [torch.cat([self._embed(batch, side, part) for part in parts]) for side in _SIDES]
        if whole and self._process_group.world_size == 1:
            return self._backward(batch, rows)
        gathered = [self._process_group.all_gather(own.detach(), len(batch.positives)).requires_grad_() for own in rows]
        loss = self._backward(batch, gathered)
        for side, own, everyone in zip(_SIDES, rows, gathered, strict=True):
            cached = everyone.grad[batch.offset : batch.offset + len(own)]  # type: ignore[index] # it has one now
            for part in parts:
                again = own if whole else self._embed(batch, side, part)
                if again.requires_grad:  # not where the tower is frozen
                    again.backward(cached[part])  # type: ignore[no-untyped-call]
        model: Any = self._towers.model
        for parameter in (model.logit_scale, model.logit_bias):
            if parameter is not None and parameter.grad is not None:  # each process has these in full
                parameter.grad /= self._process_group.world_size
        self._process_group.all_reduce_gradients(model.parameters())
        return loss

    def _embed(self, batch: "Batch", side: Side, part: slice) -> Tensor:
        """Unit rows of a micro-batch, the same each time: its randomness depends on seed, step and items."""
        items = range(batch.offset + part.start, batch.offset + part.stop)
        keys = item_keys(self._config.seed, step=batch.step, side=_SIDES.index(side), items=items)
        torch.manual_seed(int(keys[0]) % 2**63)  # for randomness other than dropout
        with self.precision.autocast(), item_dropout(keys.to(self._towers.device) if self._has_dropout else None):
            return self._towers.encode(side, batch, part)

    def _backward(self, batch: "Batch", rows: list[Tensor]) -> Tensor:
        model: Any = self._towers.model
        learns_bias = self._config.loss == "sigmoid" and not self._config.from_random
        if batch.step == 0 and learns_bias and float(model.logit_bias.detach()) == INIT_LOGIT_BIAS:  # it came without
            with torch.no_grad():
                model.logit_bias.fill_(fit_logit_bias(rows, model.logit_scale.exp()))
        weights = None if batch.weights is None else torch.from_numpy(batch.weights)
        loss = compute_loss(model, self._config, rows, positives=batch.positives, weights=weights)
        self.precision.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _choose_dtype(self, batch: "Batch", optimizer: torch.optim.Optimizer) -> str:
        """The data type that is fast here, as the main process finds it."""
        model: Any = self._towers.model
        buffers = [buffer.clone() for buffer in model.buffers()]

        def try_step(dtype: str) -> None:
            self.precision = Precision(dtype, self._towers.device)
            self.accumulate(batch)
            optimizer.zero_grad()

        weights = sum(parameter.numel() for parameter in model.parameters())
        dtype = choose_dtype(self._towers.device, weights=weights, try_step=try_step, process_group=self._process_group)
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)  # of batch normalization
        return PRECISIONS[int(self._process_group.broadcast_values([PRECISIONS.index(dtype)])[0])]

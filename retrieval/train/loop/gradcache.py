"""The gradients of one step: of the whole batch at once, or in parts and by several processes, equal in value.

In parts: every picture and text is encoded without keeping what gradients need, the loss is taken over all rows, and
then each part is encoded once more, to carry the gradient of its rows on into the tower: Gao et al. 2021, "Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup" (arXiv 2101.06983). Several processes have a share of the
batch each; rows go round, the loss is taken over all of them in every process, and what reaches the weights is added
up. Dropout is keyed by item (`chance`), and batch normalisation keeps its statistics wherever a batch is not whole:
those that the model came with or, from random weights, those of the first pictures.
"""

import math
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from retrieval.errors import TrainingError
from retrieval.train.config import PRECISIONS
from retrieval.train.distributed import ProcessGroup
from retrieval.train.loop.precision import Precision, fitting_kind
from retrieval.train.losses import compute_loss
from retrieval.train.model.create import INIT_LOGIT_BIAS, fit_logit_bias
from retrieval.train.model.item_dropout import has_dropout, item_dropout, item_keys
from retrieval.train.model.param_groups import Side, get_tower, set_train_mode

if TYPE_CHECKING:
    from retrieval.train.config import TrainConfig
    from retrieval.train.data.loader import Batch
    from retrieval.train.model.towers import Towers

_HIGHEST_SCALE: Final = 100.0  # of the inverse temperature, as in CLIP (section 2.5)
_SIDES: Final[tuple[Side, ...]] = ("image", "text")
_MEASURED: Final = 64  # pictures: the usual batch, and memory for it is little without gradients


class Gradients:
    """Puts the gradients of an batch in place.

    Args:
        towers: the model's two sides.
        config: says the loss, and how many are encoded at once.
        process_group: the processes that share the batch.

    Attributes:
        precision: of the towers, "auto" until the first step; the loss is always taken in float32 at least.
    """

    def __init__(self, towers: "Towers", config: "TrainConfig", *, process_group: ProcessGroup) -> None:
        self.precision = Precision(config.precision, towers.device)
        self._towers, self._config, self._process_group = towers, config, process_group
        self._drops = has_dropout(towers.model)
        if config.compile:
            _compile(towers.model, drops=self._drops)
        kept = process_group.world_size > 1 or config.micro_batch is not None or config.freeze_bn_stats
        norms = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 (the one base of all of them)
        self._frozen_norms = [module for module in towers.model.modules() if kept and isinstance(module, norms)]
        new = config.from_random and not (
            config.freeze_bn_stats or config.image_weights or towers.can_precompute("image")
        )
        of_pictures = set(towers.model.visual.modules())
        self._new_norms = [norm for norm in self._frozen_norms if new and norm in of_pictures]

    @property
    def measures(self) -> bool:
        """Whether batch normalisation has to be given the statistics that it keeps, by `measure`."""
        return bool(self._new_norms)

    @torch.no_grad()
    def measure(self, batch: "Batch") -> None:
        """Let batch normalisation keep the statistics of a batch's first pictures: random weights come without any.

        With mean 0 and variance 1 throughout all pictures would begin as nearly the same row.
        """
        self._towers.model.eval()
        for norm in self._new_norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = 1.0  # what is measured is kept as it is
        self._towers.encode("image", batch, slice(_MEASURED))
        set_train_mode(self._towers.model)

    def clipped(self, batch: "Batch", optimizer: torch.optim.Optimizer) -> tuple[float, bool]:
        """Put the gradients in place, scaled down to the config's length; return the loss, and whether all is finite.

        In float16 gradients that are not are no harm: the optimizer then leaves the step out.
        """
        if self.precision.kind == "auto":
            self.precision = Precision(self._fitting(batch, optimizer), self._towers.device)
        loss = self.of(batch)
        self.precision.unscale(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._towers.model.parameters(), self._config.clip_norm)
        return loss.item(), bool(torch.isfinite(loss if self.precision.may_skip else loss + norm))

    def spend(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer move by the gradients in place, and clear them."""
        self.precision.step(optimizer)
        optimizer.zero_grad()
        with torch.no_grad():
            self._towers.model.logit_scale.clamp_(0, math.log(_HIGHEST_SCALE))

    def of(self, batch: "Batch") -> Tensor:
        """Add the gradients of the loss to the model's parameters; return the loss."""
        for norm in self._frozen_norms:
            norm.eval()
        parts = self._parts(len(batch.images))
        whole = len(parts) == 1
        with torch.set_grad_enabled(whole):
            rows = [torch.cat([self._encoded(batch, side, part) for part in parts]) for side in _SIDES]
        if whole and self._process_group.world_size == 1:
            return self._backward(batch, rows)
        gathered = [self._process_group.all_gather(own.detach(), batch.total).requires_grad_() for own in rows]
        loss = self._backward(batch, gathered)
        for side, own, everyone in zip(_SIDES, rows, gathered, strict=True):
            upstream = everyone.grad[batch.offset : batch.offset + len(own)]  # type: ignore[index] # it has one now
            for part in parts:
                again = own if whole else self._encoded(batch, side, part)
                if again.requires_grad:  # not where the tower is frozen
                    again.backward(upstream[part])  # type: ignore[no-untyped-call]
        self._add_up()
        return loss

    def _parts(self, count: int) -> list[slice]:
        size = self._config.micro_batch or count
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def _encoded(self, batch: "Batch", side: Side, part: slice) -> Tensor:
        """Unit rows of a part of the batch, the same each time: its chance depends on seed, step and items."""
        items = range(batch.offset + part.start, batch.offset + part.stop)
        keys = item_keys(self._config.seed, step=batch.step, side=_SIDES.index(side), items=items)
        torch.manual_seed(int(keys[0]) % 2**63)  # for what chance there may be besides dropout
        with self.precision.autocast(), item_dropout(keys.to(self._towers.device) if self._drops else None):
            return self._towers.encode(side, batch, part)

    def _backward(self, batch: "Batch", rows: list[Tensor]) -> Tensor:
        if self._bias_is_new(batch):
            model: Any = self._towers.model
            with torch.no_grad():
                model.logit_bias.fill_(fit_logit_bias(rows, model.logit_scale.exp()))
        loss = compute_loss(
            self._towers.model, self._config, rows, positives=batch.positives, weights=self._weights(batch)
        )
        self.precision.scaled(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _bias_is_new(self, batch: "Batch") -> bool:
        """Whether a trained model begins to learn the sigmoid loss's bias, which it came without."""
        begins = batch.step == 0 and self._config.loss == "sigmoid" and not self._config.from_random
        return begins and float(self._towers.model.logit_bias.detach()) == INIT_LOGIT_BIAS

    @staticmethod
    def _weights(batch: "Batch") -> Tensor | None:
        return None if batch.weights is None else torch.from_numpy(batch.weights)

    def _add_up(self) -> None:
        """Add the processes' gradients; every one has those of the temperature and the bias whole."""
        model: Any = self._towers.model
        for parameter in (model.logit_scale, model.logit_bias):
            if parameter is not None and parameter.grad is not None:
                parameter.grad /= self._process_group.world_size
        self._process_group.all_reduce_gradients(self._towers.model.parameters())

    def _fitting(self, batch: "Batch", optimizer: torch.optim.Optimizer) -> str:
        """The kind of number that is fast here, as the leading process finds it."""
        model: Any = self._towers.model
        buffers = [buffer.clone() for buffer in model.buffers()]

        def try_step(kind: str) -> None:
            self.precision = Precision(kind, self._towers.device)
            self.of(batch)
            optimizer.zero_grad()

        weights = sum(parameter.numel() for parameter in model.parameters())
        kind = fitting_kind(self._towers.device, weights=weights, try_step=try_step, process_group=self._process_group)
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)  # of batch normalisation
        return PRECISIONS[int(self._process_group.broadcast_values([PRECISIONS.index(kind)])[0])]


def _compile(model: Any, *, drops: bool) -> None:
    """Have torch compile both towers in place: the model, its names and what is saved of it stay the same."""
    if drops:
        raise TrainingError("compile does not go with a model that has dropout: that is keyed by item; leave one out")
    model.visual.compile()
    text = get_tower(model, "text")
    getattr(text, "transformer", text).compile()

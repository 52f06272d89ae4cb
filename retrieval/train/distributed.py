"""The processes that train one model together: started by `torchrun`, each with its share of every batch."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from retrieval.encoder.open_clip_encoder import usable_device
from retrieval.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Crew:
    """This process among those that train together; alone by default, where nothing here does anything.

    Attributes:
        place: counted from 0.
        size: how many there are.
        device: where the tensors are that go round.
    """

    place: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.place == 0

    def check(self, least: int) -> None:
        """Pass where even the smallest batch has something for every process.

        Raises:
            TrainingError: it has not.
        """
        if least < self.size:
            raise TrainingError(
                f"a batch of {least} pictures has none for one of the {self.size} processes; take fewer"
            )

    def share(self, count: int) -> range:
        """Which of so many this process has; the shares differ by one at most."""
        return range(count * self.place // self.size, count * (self.place + 1) // self.size)

    def gathered(self, rows: Tensor, count: int) -> Tensor:
        """All rows (count, d) of a batch, from each process's share: exact, since adding zeros changes nothing."""
        if self.size == 1:
            return rows
        share = self.share(count)
        whole = rows.new_zeros(count, rows.shape[1])
        whole[share.start : share.stop] = rows
        distributed.all_reduce(whole)
        return whole

    def add_up(self, parameters: Iterable[Tensor]) -> None:
        """Make each gradient the sum of those of all processes."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, *, flag: bool) -> bool:
        """Whether it is so in one of the processes at least."""
        return flag if self.size == 1 else bool(self._summed([float(flag)])[0])

    def told(self, values: Sequence[float]) -> list[float]:
        """What the leading process has; the others hand in as many of anything."""
        if self.size == 1:
            return list(values)
        return self._summed(list(values) if self.leads else [0.0] * len(values))

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the tensors of the leading one."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def meet(self) -> None:
        """Wait until every process is here."""
        self.any(flag=False)

    def _summed(self, values: list[float]) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        found: list[float] = tensor.tolist()
        return found


@contextmanager
def joined(device: str) -> Iterator[Crew]:
    """Join the processes that `torchrun` started, through gloo on CPUs and NCCL on GPUs; alone without it.

    Raises:
        EncoderError: the device is "cuda", and there is none.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Crew()
        return
    device = usable_device(device)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    begun = not distributed.is_initialized()
    if begun:
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Crew(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        if begun:
            distributed.destroy_process_group()


def neighbours() -> int:
    """How many processes that train together `torchrun` started on this machine, this one counted."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this process is to print: the first of those that `torchrun` started, or one that stands alone."""
    return os.environ.get("RANK", "0") == "0"

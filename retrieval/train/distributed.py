"""The processes that train one model together: started by `torchrun`, each with its shard of every batch."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from retrieval.encoder.open_clip_encoder import resolve_device
from retrieval.errors import TrainingError


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process among those that train together. By default it is alone, and no method communicates."""

    rank: int = 0  # counted from 0
    world_size: int = 1  # number of processes
    device: str = "cpu"  # where the tensors are that are communicated

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def check_batch_size(self, smallest: int) -> None:
        """Raise a TrainingError where the smallest batch has no image for one of the processes."""
        if smallest < self.world_size:
            raise TrainingError(
                f"A batch of {smallest} images is too small for {self.world_size} processes. Start fewer of them, or"
                " choose a larger batch_size."
            )

    def shard(self, count: int) -> range:
        """Which of `count` things are this process's; the shards differ by one at most."""
        return range(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)

    def all_gather(self, rows: Tensor, count: int) -> Tensor:
        """All rows (count, d) of a batch from each process's shard. Exact: adding zeros changes nothing."""
        if self.world_size == 1:
            return rows
        shard = self.shard(count)
        gathered = rows.new_zeros(count, rows.shape[1])
        gathered[shard.start : shard.stop] = rows
        distributed.all_reduce(gathered)
        return gathered

    def all_reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Make each gradient the sum of those of all processes."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.world_size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, *, flag: bool) -> bool:
        """Whether the flag is set in at least one process."""
        return flag if self.world_size == 1 else bool(self._sum_values([float(flag)])[0])

    def broadcast_values(self, values: Sequence[float]) -> list[float]:
        """The values of the main process; the others pass as many of anything."""
        if self.world_size == 1:
            return list(values)
        return self._sum_values(list(values) if self.is_main else [0.0] * len(values))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of the main process."""
        if self.world_size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.any(flag=False)

    def _sum_values(self, values: list[float]) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return list(tensor.tolist())


@contextmanager
def join_process_group(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, through gloo on CPUs and NCCL on GPUs; a group of one without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup()
        return
    device = resolve_device(device)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    owned = not distributed.is_initialized()
    if owned:
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        if owned:
            distributed.destroy_process_group()


def local_world_size() -> int:
    """Number of processes that `torchrun` started on this machine, including this one."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

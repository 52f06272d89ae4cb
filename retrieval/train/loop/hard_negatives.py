"""The batches of a run whose batches are made of hard negatives, which are mined anew before every epoch."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch

from retrieval.concurrency import prefetch_map
from retrieval.train.data.negatives import HardNegatives, mine_hard_negatives
from retrieval.train.distributed import local_world_size
from retrieval.train.model.param_groups import set_train_mode

if TYPE_CHECKING:
    from index.vectors import Rows
    from retrieval.encoder.open_clip_encoder import OpenClipEncoder
    from retrieval.train.config import TrainConfig
    from retrieval.train.data.dataset import PairDataset
    from retrieval.train.data.image_cache import ImageCache
    from retrieval.train.data.loader import Batch, BatchLoader
    from retrieval.train.data.sampler import BatchSampler
    from retrieval.train.data.transforms import TrainTransform
    from retrieval.train.distributed import ProcessGroup
    from retrieval.train.model.towers import Towers

_AHEAD_BYTES: Final = 4 * 2**30  # of pictures in prepared batches, of all processes of a machine together
_TOGETHER: Final = 1024  # pictures that are cropped ahead of their encoding: memory stays bounded


@dataclass(slots=True)
class Drill:
    """What is mined, with what, and when.

    Attributes:
        hard: of the epoch under way; None without mining, and in the first epoch of a model with random weights.
    """

    config: "TrainConfig"
    dataset: "PairDataset"
    image_cache: "ImageCache"
    transform: "TrainTransform"
    encoder: "OpenClipEncoder"
    towers: "Towers"
    process_group: "ProcessGroup"
    hard: HardNegatives | None = None

    def batches(
        self, loader: "BatchLoader", sampler: "BatchSampler", steps: range, *, threads: int
    ) -> "Generator[Batch, None, None]":
        """The batches of the steps, in order, prepared ahead; with mining never beyond the end of an epoch.

        What is hard is mined when the first batch of an epoch is asked for, with the model as it is then.

        Raises:
            TrainingError: a picture can no longer be read.
        """
        share, length = self.config.hard_negatives, sampler.steps_per_epoch
        while steps:
            part = steps if not share else steps[: length - steps.start % length]
            if share and part.start % length == 0:
                self.hard = None if self.config.from_random and part.start == 0 else self._mined()
            loader.sampler = replace(sampler, negatives=self.hard, negative_fraction=share)
            prepared = prefetch_map(loader.load, part, threads=threads, depth=self._depth(sampler, threads))
            with closing(prepared):
                yield from prepared
            steps = steps[len(part) :]

    def _depth(self, sampler: "BatchSampler", threads: int) -> int:
        """How many batches are prepared ahead."""
        shown = 0 if self.towers.can_precompute("image") else max(sampler.batch_sizes) // self.process_group.world_size
        room = _AHEAD_BYTES // local_world_size()
        return depth_of(threads, batch_bytes=shown * self.transform.height * self.transform.width * 3, room=room)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps."""
        if self.hard is None:
            return {}
        return {"pictures": torch.from_numpy(self.hard.images), "captions": torch.from_numpy(self.hard.captions)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from a checkpoint."""
        self.hard = HardNegatives(tensors["pictures"].numpy(), tensors["captions"].numpy()) if tensors else None

    def _mined(self) -> HardNegatives:
        self.towers.model.eval()
        hard = mine_hard_negatives(*self._rows(), captions=self.dataset.captions, positives=self.dataset.positives)
        set_train_mode(self.towers.model)
        tables = [torch.from_numpy(table).to(self.process_group.device) for table in (hard.images, hard.captions)]
        self.process_group.broadcast(tables)  # each process may round scores in its own way
        return HardNegatives(*(table.cpu().numpy() for table in tables))

    def _rows(self) -> tuple["Rows", "Rows"]:
        """Rows of the pictures (n, d), as the finished model sees them, and of the texts (t, d)."""
        dataset, process_group = self.dataset, self.process_group
        pictures, texts = (self.towers.precomputed_rows(side) for side in ("image", "text"))
        if pictures is None:
            numbers = [dataset.images[place] for place in process_group.shard(len(dataset.images))]
            own = _of_pictures(numbers, self.image_cache, transform=self.transform, encoder=self.encoder)
            pictures = self._gathered(own, len(dataset.images))
        if texts is None:
            own = self.encoder.encode_texts(
                [dataset.texts[number] for number in process_group.shard(len(dataset.texts))]
            )
            texts = self._gathered(own, len(dataset.texts))
        return pictures, texts

    def _gathered(self, rows: "Rows", count: int) -> "Rows":
        whole = self.process_group.all_gather(torch.from_numpy(rows).to(self.process_group.device), count)
        return cast("Rows", whole.cpu().numpy())


def _of_pictures(
    numbers: Sequence[int], image_cache: "ImageCache", *, transform: "TrainTransform", encoder: "OpenClipEncoder"
) -> "Rows":
    whole, middle = replace(transform, min_scale=1.0), np.zeros(4)

    def shown(number: int) -> Any:
        return image_cache.crop(number, whole, middle)

    rows = [np.empty((0, encoder.dimension), np.float32)]
    for start in range(0, len(numbers), _TOGETHER):
        part = prefetch_map(shown, numbers[start : start + _TOGETHER])
        rows.append(encoder.encode_prepared(list(part)))
    return np.concatenate(rows)


def depth_of(threads: int, *, batch_bytes: int, room: int) -> int:
    """How many batches to prepare ahead: enough for all threads, as many as fit in the room, two in any case."""
    fitting = room // batch_bytes if batch_bytes else threads + 2
    return max(2, min(threads + 2, fitting))

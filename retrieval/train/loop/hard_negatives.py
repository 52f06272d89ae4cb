"""Hard-negative mining between epochs, and the prefetched batches of a run."""

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

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

_PREFETCH_BYTES: Final = 4 * 2**30  # of images in prepared batches, of all processes of a machine together
_ENCODED_TOGETHER: Final = 1024  # images that are cropped ahead of their encoding: memory stays bounded


@dataclass(slots=True)
class HardNegativeMiner:
    """Mines hard negatives before each epoch, and loads the batches that are made of them."""

    config: "TrainConfig"
    dataset: "PairDataset"
    image_cache: "ImageCache"
    transform: "TrainTransform"
    encoder: "OpenClipEncoder"
    towers: "Towers"
    process_group: "ProcessGroup"
    # those of the current epoch; None without mining, and in the first epoch of a model with random weights
    hard: HardNegatives | None = None

    def load_batches(
        self, loader: "BatchLoader", sampler: "BatchSampler", steps: range, *, threads: int
    ) -> "Generator[Batch, None, None]":
        """Yield the batches of the steps, in order, prepared ahead; with mining never beyond the end of an epoch.

        Negatives are mined when the first batch of an epoch is asked for, with the model as it is then. An image that
        can no longer be read is a TrainingError.
        """
        share, length = self.config.hard_negatives, sampler.steps_per_epoch
        images = 0 if self.towers.can_precompute("image") else max(sampler.batch_sizes) // self.process_group.world_size
        batch_bytes = images * self.transform.height * self.transform.width * 3
        depth = prefetch_depth(threads, batch_bytes=batch_bytes, memory=_PREFETCH_BYTES // local_world_size())
        while steps:
            part = steps if not share else steps[: length - steps.start % length]
            if share and part.start % length == 0:
                self.hard = None if self.config.from_random and part.start == 0 else self._mine()
            loader.sampler = replace(sampler, negatives=self.hard, negative_fraction=share)
            batches = prefetch_map(loader.load, part, threads=threads, depth=depth)
            with closing(batches):
                yield from batches
            steps = steps[len(part) :]

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps; the names are those of version 0.1.0."""
        if self.hard is None:
            return {}
        return {"pictures": torch.from_numpy(self.hard.images), "captions": torch.from_numpy(self.hard.captions)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what a checkpoint kept."""
        self.hard = HardNegatives(tensors["pictures"].numpy(), tensors["captions"].numpy()) if tensors else None

    def _mine(self) -> HardNegatives:
        self.towers.model.eval()
        hard = mine_hard_negatives(
            *self._embed_dataset(), captions=self.dataset.captions, positives=self.dataset.positives
        )
        set_train_mode(self.towers.model)
        tables = [torch.from_numpy(table).to(self.process_group.device) for table in (hard.images, hard.captions)]
        self.process_group.broadcast(tables)  # each process may round scores in its own way
        return HardNegatives(*(table.cpu().numpy() for table in tables))

    def _embed_dataset(self) -> tuple["Rows", "Rows"]:
        """Rows of the images (n, d), as the finished model sees them, and of the texts (t, d)."""
        dataset = self.dataset
        images, texts = (self.towers.precomputed_rows(side) for side in ("image", "text"))
        if images is None:
            shard = self.process_group.shard(len(dataset.images))
            images = self._all_gather(self._embed_images(dataset.images[shard.start : shard.stop]), len(dataset.images))
        if texts is None:
            shard = self.process_group.shard(len(dataset.texts))
            own = self.encoder.encode_texts(list(dataset.texts[shard.start : shard.stop]))
            texts = self._all_gather(own, len(dataset.texts))
        return images, texts

    def _embed_images(self, numbers: tuple[int, ...]) -> "Rows":
        """Rows of images of the cache, of their whole middle."""
        transform, center = replace(self.transform, min_scale=1.0), np.zeros(4)
        rows = [np.empty((0, self.encoder.dimension), np.float32)]
        for start in range(0, len(numbers), _ENCODED_TOGETHER):
            part = numbers[start : start + _ENCODED_TOGETHER]
            crops = prefetch_map(lambda number: self.image_cache.crop(number, transform, center), part)
            rows.append(self.encoder.encode_prepared(list(crops)))
        return np.concatenate(rows)

    def _all_gather(self, rows: "Rows", count: int) -> "Rows":
        gathered = self.process_group.all_gather(torch.from_numpy(rows).to(self.process_group.device), count)
        return cast("Rows", gathered.cpu().numpy())


def prefetch_depth(threads: int, *, batch_bytes: int, memory: int) -> int:
    """Number of batches to prepare ahead: enough for all threads, as many as fit in memory, at least two."""
    fitting = memory // batch_bytes if batch_bytes else threads + 2
    return max(2, min(threads + 2, fitting))

"""Batches of training as a pure function of the data, a seed and the number of the batch."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from cwrgp.seeding import Stream, derive_seed, forked_generators

Record = dict[str, Any]
# None: the image of the record cannot be read.
Mapper = Callable[[Record], Record | None]


class TrainLoader:
    """The batches of ``build_detection_train_loader``, from any of them on.

    Sampler, grouping by orientation and augmentation are those of Detectron2, but the random
    numbers of an image are seeded by its position in the run. Detectron2's own loader takes them
    from generators whose state no checkpoint holds, and a resumed run starts its order of images
    anew.

    Args:
        records: of the images.
        groups: of each image, 0 or 1. The images of a batch have the same.
        mapper: from a record to what the model gets. Where it returns None, another record that is
            chosen at random takes the place, of the same group if one can be read.
        order: from a seed to the indices that this process trains on, without end.
        batch_size: of this process.
        num_workers: processes that load; 0 for none.

    Attributes:
        seed: of order and augmentation, the same in all processes; non-negative.
        start: number of batches that the next iteration omits.
    """

    def __init__(
        self,
        records: DatasetFromList,
        groups: Sequence[int],
        mapper: Mapper,
        order: Callable[[int], Iterable[int]],
        *,
        batch_size: int,
        num_workers: int,
    ) -> None:
        self.seed, self.start = 0, 0
        self._records, self._mapper, self._order = records, mapper, order
        self._groups = np.asarray(groups, dtype=np.int8)
        self._batch_size, self._num_workers = batch_size, num_workers

    @classmethod
    def from_config(cls, cfg: CfgNode, mapper: Mapper) -> TrainLoader:
        """For this process, from the sections ``DATASETS``, ``DATALOADER`` and ``SOLVER``."""

        def seeded(seed: int, records: DatasetFromList | None = None) -> dict[str, Any]:
            # Detectron2's samplers take their seed from NumPy's default generator.
            with forked_generators(derive_seed(Stream.DETECTION_ORDER, seed)):
                return build_detection_train_loader.from_config(cfg, mapper=mapper, dataset=records)

        options = seeded(0)
        grouped = options["aspect_ratio_grouping"]
        # As Detectron2 groups them: wider than high, or not.
        groups = [grouped and r["width"] > r["height"] for r in options["dataset"]]
        records = DatasetFromList(options.pop("dataset"))  # packed; the list itself is not kept
        return cls(
            records,
            groups,
            mapper,
            functools.cache(lambda seed: seeded(seed, records)["sampler"]),
            batch_size=options["total_batch_size"] // comm.get_world_size(),
            num_workers=options["num_workers"],
        )

    def __iter__(self) -> Iterator[list[Record]]:
        batches = group(self._order(self.seed), self._groups, self._batch_size)
        images = DataLoader(
            _Mapped(self._records, self._groups, self._mapper, self.seed),
            batch_size=None,
            sampler=itertools.chain.from_iterable(itertools.islice(batches, self.start, None)),
            collate_fn=_unchanged,  # the default would make tensors of numbers
            num_workers=self._num_workers,
            generator=torch.Generator(),  # the default one belongs to the step
        )
        iterator = iter(images)
        while batch := list(itertools.islice(iterator, self._batch_size)):
            yield batch


def group(
    order: Iterable[int], groups: Sequence[int] | np.ndarray, batch_size: int
) -> Iterator[list[tuple[int, int]]]:
    """Batches of images of one group, each as soon as it is full.

    Args:
        order: indices of images.
        groups: of each image, 0 or 1.
        batch_size: images of a batch.

    Yields:
        A batch: for each image its position in ``order`` and its index.
    """
    waiting: tuple[list[tuple[int, int]], ...] = ([], [])
    for position, index in enumerate(order):
        batch = waiting[groups[index]]
        batch.append((position, index))
        if len(batch) == batch_size:
            yield batch[:]
            batch.clear()


class _Mapped(Dataset[Record]):
    """From a position in the order of this process, and an index, to what the model gets."""

    def __init__(
        self, records: DatasetFromList, groups: np.ndarray, mapper: Mapper, seed: int
    ) -> None:
        self._records, self._groups, self._mapper, self._seed = records, groups, mapper, seed
        self._rank, self._world_size = comm.get_rank(), comm.get_world_size()

    def __getitem__(self, item: tuple[int, int]) -> Record:
        position, index = item
        number = position * self._world_size + self._rank
        with forked_generators(derive_seed(Stream.DETECTION_VIEW, self._seed, number)):
            mapped = self._mapper(self._records[index])
            if mapped is not None:
                return mapped
            others = np.random.permutation(len(self._records))
            near = self._groups[others] == self._groups[index]
            for other in [*others[near], *others[~near]]:
                mapped = self._mapper(self._records[int(other)])
                if mapped is not None:
                    return mapped
        raise OSError("no image of the training data can be read any more")


def _unchanged(item: Any) -> Any:
    return item

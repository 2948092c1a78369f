"""An endless loader whose sample at a position is the same whatever was before it: workers, batches, restarts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from genaug.errors import ConfigError, SampleError
from genaug.rng import Rng
from genaug_detectron2.catalog import DatasetDict
from genaug_detectron2.mapper import PROVENANCE, Mapper
from genaug_detectron2.probe import seeded

#: What is left of a dataset dictionary without labels.
UNLABELED = ("file_name", "height", "width", "image_id")
#: Mappers may say that a sample cannot be used; another takes its place so often.
TRIES = 10


def unlabeled_dicts(names: str | Sequence[str]) -> list[DatasetDict]:
    """Return the dictionaries of registered datasets without anything that tells of labels.

    Args:
        names: Of the datasets; labelled ones may be among them.
    """
    given = [names] if isinstance(names, str) else list(names)
    dicts = get_detection_dataset_dicts(given, filter_empty=False, check_consistency=False)
    return [{name: entry[name] for name in UNLABELED if name in entry} for entry in dicts]


class StreamLoader:
    """Batches of mapped dictionaries without end, which can begin anywhere.

    A position of the stream decides the sample (every one once an epoch, in an order of the epoch's own) and what the
    mapper draws: Python's, numpy's and torch's global states are set from (seed, position) around its call, and
    restored. So a sample does not depend on the number of workers and processes, nor on a restart. `SelfTraining` sets
    the start when it resumes, of its own loader and of the trainer's, if that is one of these too; detectron2's own
    loaders begin anew.

    Args:
        dicts: Dataset dictionaries, e.g. of `unlabeled_dicts`.
        mapper: Makes the model's inputs of them; runs in the workers. It finds its position in ``d["genaug"]``.
        batch_size: Images of all processes together, as ``IMS_PER_BATCH``.
        seed: Source of order and draws.
        num_workers: Of every process.

    Raises:
        ConfigError: There is nothing to load, or the batch cannot be shared out.
    """

    def __init__(
        self, dicts: Sequence[DatasetDict], mapper: Mapper, *, batch_size: int, seed: int = 0, num_workers: int = 0
    ) -> None:
        if not len(dicts):
            raise ConfigError("no dataset dictionaries", where="StreamLoader", allowed="at least one")
        processes = comm.get_world_size()
        if batch_size < 1 or batch_size % processes:
            allowed = f"a multiple of the {processes} processes"
            raise ConfigError(f"{batch_size}", where="batch_size", allowed=allowed)
        self.dataset = _Stream(dicts, mapper, seed)
        self.batch_size, self.num_workers = batch_size // processes, num_workers
        self.start = 0

    @classmethod
    def from_config(cls, cfg: Any, mapper: Mapper | None = None) -> StreamLoader:
        """Load the images of ``cfg.GENAUG.UNLABELED``, by default with the augmentations of ``DatasetMapper(cfg)``."""
        return cls(
            unlabeled_dicts(cfg.GENAUG.UNLABELED),
            DatasetMapper(cfg, is_train=True) if mapper is None else mapper,
            batch_size=cfg.GENAUG.IMS_PER_BATCH or cfg.SOLVER.IMS_PER_BATCH,
            seed=cfg.GENAUG.SEED,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )

    def start_at(self, step: int) -> None:
        """Begin with batch number `step`, from 0, when next iterated."""
        self.start = step

    def __iter__(self) -> Iterator[list[Any]]:
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_size=self.batch_size,
            sampler=_Positions(self.start, self.batch_size),
            num_workers=self.num_workers,
            collate_fn=list,
            generator=torch.Generator(),  # its own, or torch's global stream would move on
        )
        return iter(loader)


class _Stream(Dataset[Any]):
    def __init__(self, dicts: Sequence[DatasetDict], mapper: Mapper, seed: int) -> None:
        self.dicts, self.mapper, self._rng = list(dicts), mapper, Rng(seed).child("stream")
        self._order: tuple[int, np.ndarray] | None = None

    def __getitem__(self, position: int) -> Any:
        epoch, place = divmod(position, len(self.dicts))
        number = int(self._epoch(epoch)[place])
        for attempt in range(TRIES):
            rng = self._rng.child("map", position, attempt)
            with seeded(rng):
                made = self.mapper({**copy.deepcopy(self.dicts[number]), PROVENANCE: {"position": position}})
            if made is not None:
                return made
            number = rng.child("another").integer() % len(self.dicts)
        raise SampleError(f"the mapper returned None {TRIES} times in a row", where=f"position {position}")

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._rng.child("epoch", epoch).numpy().permutation(len(self.dicts))
        return self._order[1]


class _Positions(Sampler[int]):
    """The positions of this process, batch by batch: each takes its share of every batch."""

    def __init__(self, start: int, batch_size: int) -> None:
        self.start, self.batch_size = start, batch_size

    def __iter__(self) -> Iterator[int]:
        step, rank, processes = self.start, comm.get_rank(), comm.get_world_size()
        while True:
            first = (step * processes + rank) * self.batch_size
            yield from range(first, first + self.batch_size)
            step += 1

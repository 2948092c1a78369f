"""Random numbers in DataLoader workers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from genaug.errors import ConfigError


def seed_worker(worker_id: int) -> None:
    """Give a worker its own numbers from Python's and numpy's global streams, and to transforms that keep their own.

    Pass it as ``worker_init_fn``. Older PyTorch left numpy's stream equal in forked workers, and albumentations 2.0.8
    gives every worker, every epoch, the same stream. Transforms with a method ``set_random_state`` or
    ``set_random_seed`` are looked for in the attributes ``transform`` and ``transforms`` of the dataset and of the
    datasets it wraps. Draws of genaug's own datasets need none of this.

    Args:
        worker_id: Number of the worker; its seed is taken from PyTorch.

    Raises:
        ConfigError: Called outside a worker.
    """
    info = get_worker_info()
    if info is None:
        raise ConfigError(
            f"called outside a DataLoader worker (worker {worker_id})",
            where="seed_worker",
            allowed="DataLoader(..., worker_init_fn=seed_worker)",
        )
    seed = info.seed % 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- the point: third-party transforms draw from the global stream
    for transform in _transforms(info.dataset, set()):
        if hasattr(transform, "set_random_state"):
            # A seed would do, but albumentations 2.0.8 starts every transform of a pipeline from that same number: two
            # that happen half of the time would always happen together.
            transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        else:
            transform.set_random_seed(seed)


def _transforms(dataset: Any, seen: set[int]) -> Iterator[Any]:
    if id(dataset) in seen:
        return
    seen.add(id(dataset))
    for name in ("transform", "transforms"):
        value = getattr(dataset, name, None)
        if hasattr(value, "set_random_state") or hasattr(value, "set_random_seed"):
            yield value
    inner = [getattr(dataset, name, None) for name in ("dataset", "real", "synthetic")]
    several = getattr(dataset, "datasets", ())
    inner += list(several.values() if isinstance(several, dict) else several)
    for part in inner:
        if part is not None:
            yield from _transforms(part, seen)

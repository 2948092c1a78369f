"""Random numbers of pipelines: different in every worker and epoch, or a function of the sample alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from torch.utils.data import get_worker_info

from genaug import Rng
from genaug_albumentations.host import A
from genaug_torch import workers


def seed_sample(pipeline: Any, *, seed: int, sample_id: str | int, epoch: int) -> None:
    """Start a pipeline's stream where ``(seed, epoch, sample_id)`` says, for its next call.

    Then every draw of every transform in it, genaug's or not, depends on these three alone: not on the number of
    workers, their start method, other samples or what was drawn before. Call it in ``__getitem__``.

    Args:
        pipeline: An ``A.Compose`` or a single transform.
        seed: The run's.
        sample_id: Name or number of the sample in the dataset.
        epoch: Number of the epoch; the same number gives the same draws.
    """
    _start(pipeline, Rng(seed).child("albumentations", epoch, sample_id))


def seed_worker(worker_id: int) -> None:
    """Give the pipelines of a worker's dataset their own random numbers; pass it as ``worker_init_fn``.

    albumentations 2.0.8 gives all workers, in all epochs, the same numbers otherwise. Pipelines are found in the
    attributes of the dataset and of the datasets it wraps, and in lists and tables there, whatever they are called;
    not inside functions or other objects. Numbers follow ``torch.manual_seed``. Python's and numpy's global streams
    are seeded as well.

    Args:
        worker_id: Number of the worker.

    Raises:
        ConfigError: Called outside a worker.
    """
    workers.seed_worker(worker_id)
    info = get_worker_info()
    assert info is not None  # or it would have raised
    for number, pipeline in enumerate(_pipelines(info.dataset, set())):
        _start(pipeline, Rng(info.seed).child("albumentations", number))


def _start(pipeline: Any, rng: Rng) -> None:
    # Not set_random_seed: in 2.0.8 it gives every transform a stream of its own from the one seed, so that all of them
    # are applied to the same images, or to none.
    pipeline.set_random_state(rng.child("numpy").numpy(), random.Random(rng.child("python").integer()))


def _pipelines(held: Any, seen: set[int]) -> Iterator[Any]:
    if id(held) in seen:
        return
    seen.add(id(held))
    if isinstance(held, A.BaseCompose | A.BasicTransform):
        yield held
    elif isinstance(held, dict | list | tuple):
        for part in held.values() if isinstance(held, dict) else held:
            yield from _pipelines(part, seen)
    elif hasattr(held, "__getitem__") and hasattr(held, "__dict__"):  # a dataset, of whatever class
        yield from _pipelines(vars(held), seen)

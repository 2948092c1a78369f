"""The number of the epoch, as every worker sees it, and as wrapped datasets hear of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from genaug.errors import ConfigError


class SharedEpoch:
    """An epoch's number in shared memory, so that workers which outlive an epoch see what the main process sets.

    A copy, also one by pickle, has a number of its own, which reaches the workers of the copy.
    """

    def __init__(self) -> None:
        self._value = torch.zeros((), dtype=torch.int64)
        self._share()

    def set(self, epoch: int) -> None:
        """Change the number.

        Raises:
            ConfigError: It is below 0.
        """
        if epoch < 0:
            raise ConfigError(f"{epoch}", where="epoch", allowed="0 or more")
        self._value.fill_(epoch)

    def get(self) -> int:
        """Return the number that was set last; 0 before."""
        return int(self._value)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        # A copy must be able to reach its own workers; for a worker's own copy this does nothing.
        self._share()

    def _share(self) -> None:
        self._value.share_memory_()  # type: ignore[no-untyped-call]


def hand_on(dataset: object, epoch: int) -> None:
    """Tell a dataset the epoch if it has a ``set_epoch``, or else the datasets that it wraps.

    Looked into are ``dataset`` (``Subset`` and most wrappers) and ``datasets`` (``ConcatDataset``).
    """
    if callable(tell := getattr(dataset, "set_epoch", None)):
        tell(epoch)
        return
    several = getattr(dataset, "datasets", ())
    several = several.values() if isinstance(several, Mapping) else several
    for inner in (getattr(dataset, "dataset", None), *several):
        if inner is not None:
            hand_on(inner, epoch)

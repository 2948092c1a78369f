"""Real and synthetic samples in one dataset, drawn anew every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from torch.utils.data import Dataset

from genaug.errors import ConfigError, StoreError
from genaug.rng import Rng
from genaug_torch.epochs import SharedEpoch, hand_on
from genaug_torch.pairs import Pairs

Scheme = Literal["append", "replace", "sample"]


class MapStyle(Protocol):
    """Anything with a length and items by number: lists, datasets, subsets."""

    def __len__(self) -> int:
        """Number of items."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Item number `index`."""
        ...


class MixedDataset(Dataset[Any]):
    """Mixes two map-style datasets; items are handed through untouched.

    With n real items, ratio r and R = ``round(r * n)``, one epoch holds

    * ``"append"``: every real item once, and R synthetic items after them: n + R items. r = 1 doubles the data, as
      ScribbleGen's main experiment does; r may be above 1.
    * ``"replace"``: n items; R of the real ones, others each epoch, give their place to a synthetic item. A real item
      appears at most once an epoch. r in [0, 1].
    * ``"sample"``: n items; each is synthetic with probability r, whatever the others are, and drawn with replacement
      from its dataset, so both real and synthetic items may repeat. r in [0, 1].

    ``append`` and ``replace`` use every synthetic item equally often, give or take one, within an epoch. What is drawn
    depends on `seed`, epoch and item number alone: not on workers, their start method, shuffling or other random
    streams.

    With `real_ids` the synthetic items stand for the real ones that they were made from, as in ScribbleGen's code. Of
    the n real items, q have synthetic items of their own, and R = ``round(r * q)``:

    * ``"append"``: at r = 1 each of those q is followed by one of its own synthetic items, so that their labels come
      twice; at r = 2 by two, different ones if it has two.
    * ``"replace"``: R of the q give their place to one of their own. (ScribbleGen's code draws each with probability r,
      which is the same on average.)
    * ``"sample"``: real items are drawn, and each that has synthetic items gives its place to one of them with
      probability r.

    Call `set_epoch` before every epoch, as for ``DistributedSampler``; persistent workers see it too. Without it, every
    epoch draws the same synthetic items. Datasets inside that have a ``set_epoch`` of their own are told as well
    (`EncodeRatioDataset` switches its level by it). All processes of a distributed run need the same `seed`.

    Args:
        real: Labelled samples of the user.
        synthetic: Usually a `StoreDataset` whose items look like those of `real`.
        ratio: r above.
        scheme: One of the three above.
        seed: Source of the draws.
        real_ids: Sample ids of the items of `real`, in order, to pair with ``synthetic.ids``; no pairs by default.

    Raises:
        ConfigError: A dataset has no length, `real` is empty, `ratio` or `scheme` is not allowed, or `real_ids` are not
            as many as the real items, or have no partner at all.
        StoreError: `synthetic` is empty and `ratio` is not 0.
    """

    def __init__(
        self,
        real: MapStyle,
        synthetic: MapStyle,
        *,
        ratio: float,
        scheme: Scheme = "append",
        seed: int = 0,
        real_ids: Sequence[str] | None = None,
    ) -> None:
        self.real, self.synthetic = real, synthetic
        self.ratio, self.scheme, self.seed = float(ratio), scheme, int(seed)
        self._check()
        self._pairs = None if real_ids is None else self._paired(real_ids)
        self._synthetic_count = round(self.ratio * (len(real) if self._pairs is None else len(self._pairs.paired)))
        self._epoch = SharedEpoch()
        self._drawn: tuple[int, np.ndarray] | None = None

    def _check(self) -> None:
        for name, dataset in (("real", self.real), ("synthetic", self.synthetic)):
            if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
                raise ConfigError(
                    f"a {type(dataset).__name__}",
                    where=name,
                    allowed="a map-style dataset, with __len__ and __getitem__",
                )
        if self.scheme not in ("append", "replace", "sample"):
            raise ConfigError(f"{self.scheme!r}", where="scheme", allowed="'append', 'replace' or 'sample'")
        highest = float("inf") if self.scheme == "append" else 1.0
        if not 0 <= self.ratio <= highest or self.ratio == float("inf"):
            allowed = "a number from 0" if self.scheme == "append" else "a number from 0 to 1"
            raise ConfigError(f"{self.ratio}", where="ratio", allowed=f"{allowed} with scheme {self.scheme!r}")
        if len(self.real) == 0:
            raise ConfigError("no real samples", where="real", allowed="at least one")
        if self.ratio > 0 and len(self.synthetic) == 0:
            raise StoreError("no synthetic samples", where="synthetic", hint="Run 'genaug run' first, or set ratio=0")

    def _paired(self, real_ids: Sequence[str]) -> Pairs:
        if len(real_ids) != len(self.real):
            raise ConfigError(f"{len(real_ids)} ids for {len(self.real)} real items", where="real_ids")
        ids = getattr(self.synthetic, "ids", None)
        if ids is None:
            raise ConfigError(
                f"a {type(self.synthetic).__name__} without 'ids'",
                where="synthetic",
                allowed="with real_ids, a dataset whose attribute 'ids' names what each item was made from",
                hint="StoreDataset and EncodeRatioDataset have it",
            )
        return Pairs(real_ids, ids)

    def set_epoch(self, epoch: int) -> None:
        """Draw other synthetic items from now on; call it before the epoch's iterator is made.

        Args:
            epoch: Number of the epoch, 0 or more.
        """
        self._epoch.set(epoch)
        for dataset in (self.real, self.synthetic):
            hand_on(dataset, epoch)

    @property
    def epoch(self) -> int:
        """Number that `set_epoch` was given last; 0 before."""
        return self._epoch.get()

    def __len__(self) -> int:
        return len(self.real) + (self._synthetic_count if self.scheme == "append" else 0)

    def locate(self, index: int) -> tuple[Literal["real", "synthetic"], int]:
        """Return which dataset item `index` of the present epoch comes from, and its number there.

        Raises:
            IndexError: Not in ``[-len, len)``.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        place = int(self._places()[index])
        return ("real", place) if place >= 0 else ("synthetic", -place - 1)

    def __getitem__(self, index: int) -> Any:
        name, number = self.locate(index)
        return self.real[number] if name == "real" else self.synthetic[number]

    def _places(self) -> np.ndarray:
        """Return int64 ``[len]`` of the present epoch: a real number i as i, a synthetic one as -i - 1."""
        epoch = self.epoch
        if self._drawn is None or self._drawn[0] != epoch:
            rng = Rng(self.seed).child("mixed", self.scheme, epoch)
            self._drawn = epoch, self._draw(rng) if self._pairs is None else self._draw_pairs(self._pairs, rng)
        return self._drawn[1]

    def _draw(self, rng: Rng) -> np.ndarray:
        n, m, count = len(self.real), len(self.synthetic), self._synthetic_count
        real = np.arange(n)
        if self.scheme == "sample":
            generator = rng.numpy()
            synthetic = generator.random(n) < self.ratio
            real = generator.integers(0, n, n)
            return np.where(synthetic, -generator.integers(0, max(m, 1), n) - 1, real)
        drawn = -evenly(m, count, rng.child("synthetic")) - 1
        if self.scheme == "append":
            return np.concatenate([real, drawn])
        real[rng.child("places").numpy().permutation(n)[:count]] = drawn
        return real

    def _draw_pairs(self, pairs: Pairs, rng: Rng) -> np.ndarray:
        n, count = len(self.real), self._synthetic_count
        generator = rng.child("own").numpy()
        turns = generator.integers(0, 1 << 32, n)  # which of its own an item begins with
        real = np.arange(n)
        if self.scheme == "sample":
            real = generator.integers(0, n, n)
            synthetic = (generator.random(n) < self.ratio) & (pairs.counts[real] > 0)
            return np.where(synthetic, -pairs.own(real, turns) - 1, real)
        if self.scheme == "replace":
            places = rng.child("places").numpy().permutation(pairs.paired)[:count]
            real[places] = -pairs.own(places, turns[places]) - 1
            return real
        drawn = pairs.paired[evenly(len(pairs.paired), count, rng.child("synthetic"))]
        later = np.arange(count) // max(len(pairs.paired), 1)  # rounds that an item was in before
        return np.concatenate([real, -pairs.own(drawn, turns[drawn] + later) - 1])

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_drawn": None}


def evenly(size: int, count: int, rng: Rng) -> np.ndarray:
    """Draw `count` numbers below `size`, each equally often give or take one, in random order: int64 ``[count]``."""
    rounds = -(-count // size) if count else 0
    parts = [rng.child(i).numpy().permutation(size) for i in range(rounds)]
    return np.concatenate(parts)[:count] if parts else np.zeros(0, np.int64)

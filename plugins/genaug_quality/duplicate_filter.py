"""The filter ``duplicate``: copies of real images, and siblings that look alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from genaug.engine.progress import bar
from genaug.errors import SampleError
from genaug.interfaces import Filter, FilterContext
from genaug.types import Group, Verdict
from genaug_quality.duplicates import BITS, Hashes, nearest, perceptual_hash

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import DuplicateFilterOptions


class DuplicateFilter(Filter):
    """Drops near-duplicates of real images, and of earlier images of the same condition that are kept.

    Looks at one condition at a time: images of different conditions that look alike are counted by ``genaug report``,
    not dropped.

    Args:
        percentile: An image is a near-duplicate if it is as near to another as the nearest `percentile` percent of the
            real images are to one another.
        radius: Number of bits, of 64, to use instead.
    """

    judges_unlabeled = True

    def __init__(self, *, percentile: float = 1.0, radius: int | None = None) -> None:
        self.percentile, self.radius = percentile, radius
        self._real: Hashes | None = None

    @classmethod
    def from_config(cls, options: DuplicateFilterOptions, context: BuildContext) -> Self:  # noqa: ARG003
        """Build from a recipe's options."""
        return cls(percentile=options.percentile, radius=options.radius)

    def prepare(self, context: FilterContext) -> None:
        """Hash the real images and find the radius.

        Raises:
            SampleError: There are fewer than two real images and no radius was given.
        """
        hashes = [perceptual_hash(s.image) for s in bar(context.real(), "real hashes") if s.image is not None]
        self._real = np.array(hashes, bool).reshape(len(hashes), BITS)
        if self.radius is None:
            if len(hashes) < 2:
                hint = "Give a radius instead of a percentile"
                raise SampleError(
                    f"{len(hashes)} real images", where="filter duplicate", allowed="2 or more", hint=hint
                )
            self.radius = int(np.percentile(nearest(self._real)[1], self.percentile))

    def _judge(self, group: Group) -> Sequence[Verdict]:
        if self._real is None or self.radius is None:
            hint = "Call prepare(context) first"
            raise SampleError("the real images are not known", where=f"group {group.id}", hint=hint)
        hashes = np.array([perceptual_hash(s.image) for s in group.samples if s.image is not None], bool)
        kept: list[int] = []
        verdicts = []
        for place, real in enumerate(nearest(hashes, self._real)[1]):
            siblings = [int((hashes[place] != hashes[other]).sum()) for other in kept]
            scores = {"nearest_real": float(real)} if len(self._real) else {}
            scores |= {"nearest_sibling": float(min(siblings))} if siblings else {}
            reason = self._reason(int(real), siblings)
            verdicts.append(Verdict(not reason, reason, scores=scores))
            kept += [] if reason else [place]
        return verdicts

    def _reason(self, real: int, siblings: Sequence[int]) -> str:
        assert self.radius is not None
        if real <= self.radius:
            return f"its hash differs from a real image's in {real} of {BITS} bits only"
        if siblings and min(siblings) <= self.radius:
            return f"its hash differs from an earlier image's of the same condition in {min(siblings)} of {BITS} bits"
        return ""

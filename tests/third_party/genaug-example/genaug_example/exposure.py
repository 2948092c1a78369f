"""A filter that looks at the image alone."""

from collections.abc import Sequence

import numpy as np

from genaug import Filter, Group, Sample, Verdict


class ExposureFilter(Filter):
    """Drops images with too many black or white pixels.

    Args:
        most: Largest share of pixels whose channels are all 0 or all 255, in (0, 1].
    """

    judges_unlabeled = True

    def __init__(self, *, most: float = 0.5) -> None:
        self.most = most

    def _judge(self, group: Group) -> Sequence[Verdict]:
        return [self._verdict(sample) for sample in group.samples]

    def _verdict(self, sample: Sample) -> Verdict:
        assert sample.image is not None  # groups hold samples with images
        clipped = (sample.image == 0).all(2) | (sample.image == 255).all(2)
        share = float(np.mean(clipped))
        keep = share <= self.most
        return Verdict(keep, "" if keep else f"{share:.0%} black or white pixels", scores={"clipped": share})

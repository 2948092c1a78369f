"""The contracts of genaug, and what is peculiar to these two."""

import numpy as np
import torch
from genaug_example.exposure import ExposureFilter
from genaug_example.stripes import Stripes

from genaug import Group, Rng, Sample
from genaug.batch import Batch
from genaug.testing import LABELS, FilterContract, MixerContract, PluginContract


class TestPlugin(PluginContract):
    distribution = "genaug-example"


class TestExposure(FilterContract):
    def make_filter(self) -> ExposureFilter:
        return ExposureFilter(most=0.2)

    def test_dark_images_are_dropped_with_their_share(self) -> None:
        image, mask = np.full((4, 5, 3), 90, np.uint8), np.ones((4, 5), np.uint8)
        image[:, :2] = 0
        group = Group("a", mask, (Sample("a_0", image, mask),), (0,))
        (verdict,) = self.make_filter().judge(group, LABELS)
        assert (verdict.keep, verdict.reason) == (False, "40% black or white pixels")


class TestStripes(MixerContract):
    def make_mixer(self) -> Stripes:
        return Stripes()

    def test_the_left_part_stays(self) -> None:
        batch, partner = Batch(torch.zeros(50, 3, 4, 20)), Batch(torch.ones(50, 3, 4, 20))
        mixed = Stripes(least=0.5).mix(batch, partner, rng=Rng(0)).images[:, 0, 0]
        assert (mixed[:, :10] == 0).all()
        assert (mixed.diff(dim=1) >= 0).all()
        assert len(mixed.sum(1).unique()) > 5

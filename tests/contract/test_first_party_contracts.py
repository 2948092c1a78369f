"""The contracts of genaug's own mixers and labelers, and of its plugins as a whole.

Filters, predictors and generators run theirs beside their other tests, where their models are made.
"""

from __future__ import annotations

import pytest

from genaug.interfaces import Mixer, PseudoLabeler
from genaug.predictions import Kind
from genaug.registry import default_registry
from genaug.testing import MixerContract, PluginContract, PseudoLabelerContract
from genaug_basics.classmix import ClassMix
from genaug_basics.cutmix import CutMix
from genaug_basics.threshold import ThresholdLabeler
from genaug_maskmatch.labeler import MaskMatchLabeler
from genaug_maskmatch.mixer import PatchMask
from genaug_sense.labeler import QuerySenseLabeler, SenseLabeler
from genaug_upc.mixer import UncertaintyPatchCutMix


class TestPlugins(PluginContract):
    distribution = "genaug"


class TestCutMix(MixerContract):
    def make_mixer(self) -> Mixer:
        return CutMix(probability=1)


class TestClassMix(MixerContract):
    def make_mixer(self) -> Mixer:
        return ClassMix(num_classes=self.classes)


@pytest.mark.parametrize("ras", ["sample", "expand"])
class TestUpc(MixerContract):
    @pytest.fixture(autouse=True)
    def _ras(self, ras: str) -> None:
        self.ras = ras

    def make_mixer(self) -> Mixer:
        return UncertaintyPatchCutMix(ras=self.ras)


class TestPatchMask(MixerContract):
    def make_mixer(self) -> Mixer:
        return PatchMask(patch=8)


@pytest.mark.parametrize("options", [{}, {"target": "soft"}, {"weighting": "share"}], ids=["defaults", "soft", "share"])
class TestThreshold(PseudoLabelerContract):
    @pytest.fixture(autouse=True)
    def _options(self, options: dict[str, str]) -> None:
        self.options = options

    def make_labeler(self) -> PseudoLabeler:
        return ThresholdLabeler(**self.options)


class TestMaskMatch(PseudoLabelerContract):
    def make_labeler(self) -> PseudoLabeler:
        return MaskMatchLabeler()


class TestSense(PseudoLabelerContract):
    kinds: tuple[Kind, ...] = ("logits", "log_probs", "probs", "scores")

    def make_labeler(self) -> PseudoLabeler:
        return SenseLabeler()


class TestQuerySense(PseudoLabelerContract):
    kinds: tuple[Kind, ...] = ("scores",)

    def make_labeler(self) -> PseudoLabeler:
        return QuerySenseLabeler()


def test_no_mixer_and_no_labeler_is_forgotten() -> None:
    registry = default_registry()
    loaded = {
        registry.load(registry.component(kind, name)) for kind in ("mixer", "labeler") for name in registry.names(kind)
    }
    checked = {CutMix, ClassMix, UncertaintyPatchCutMix, PatchMask}
    checked |= {ThresholdLabeler, MaskMatchLabeler, SenseLabeler, QuerySenseLabeler}
    assert loaded == checked

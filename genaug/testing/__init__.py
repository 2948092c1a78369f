"""Contracts: test classes that every implementation of an interface must pass, for plugins to inherit from.

They are run by pytest. Inherit in a test module, implement the one abstract method, and all checks run:

    from genaug.testing import FilterContract

    class TestSharpness(FilterContract):
        def make_filter(self):
            return SharpnessFilter(threshold=3.0)

A check that cannot hold for a component is switched off by ``test_name = None`` in the class, with a comment
that says why.
"""

from __future__ import annotations

import pytest

# Plain asserts then tell what they compared, as those of a test module do.
pytest.register_assert_rewrite(
    *(f"{__name__}.{part}" for part in ("filters", "generators", "labelers", "mixers", "plugins", "predictors"))
)

from genaug.testing.data import LABELS, global_random_state, make_group, make_mask, make_sample  # noqa: E402
from genaug.testing.filters import FilterContract  # noqa: E402
from genaug.testing.generators import GeneratorContract  # noqa: E402
from genaug.testing.labelers import PseudoLabelerContract  # noqa: E402
from genaug.testing.mixers import MixerContract  # noqa: E402
from genaug.testing.plugins import PluginContract  # noqa: E402
from genaug.testing.predictors import PredictorContract  # noqa: E402

__all__ = [
    "LABELS",
    "FilterContract",
    "GeneratorContract",
    "MixerContract",
    "PluginContract",
    "PredictorContract",
    "PseudoLabelerContract",
    "global_random_state",
    "make_group",
    "make_mask",
    "make_sample",
]

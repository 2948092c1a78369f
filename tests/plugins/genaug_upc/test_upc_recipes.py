"""The plugin's names and its ready recipes."""

from __future__ import annotations

import warnings
from importlib import metadata
from pathlib import Path

import pytest
import torch

from genaug import Rng
from genaug.batch import Batch
from genaug.config import RecipeConfig, read_recipe, validate
from genaug.errors import ConfigError
from genaug.labels import LabelSpace
from genaug.predictions import Predictions
from genaug.recipe import BuildContext, check_options
from genaug.registry import GROUP, Registry
from genaug_torch.step import SemiSupervisedStep
from genaug_upc.config import UpcOptions
from genaug_upc.mixer import UncertaintyPatchCutMix


@pytest.fixture
def registry() -> Registry:
    return Registry([metadata.EntryPoint("upc", "genaug_upc.plugin", GROUP)])


def test_the_mixer_is_built_with_the_recipes_ignore_index(registry: Registry) -> None:
    context = BuildContext(Path(), LabelSpace({0: "a", 1: "b", 2: "c"}, ignore_index=9), registry)
    built = context.build("mixer", "upc", {"grid": 2, "ks": [1]}, where="terms.0.mixer")
    assert isinstance(built, UncertaintyPatchCutMix)
    assert built.options == UpcOptions(grid=2, ks=(1,))
    assert built.ignore_index == 9
    images, targets = torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), 9)
    predictions = Predictions(torch.zeros(2, 3, 4, 4), "logits")
    mixed = built(Batch(images, targets, predictions=predictions), Batch(images, targets), rng=Rng(0))
    assert (mixed.targets == 9).all()
    with pytest.raises(ConfigError, match=r"terms\.0\.mixer.*5 patches of 2x2"):
        context.build("mixer", "upc", {"grid": 2, "ks": [1, 5]}, where="terms.0.mixer")
    with pytest.raises(ConfigError, match="Did you mean 'grid'"):
        context.build("mixer", "upc", {"grit": 2}, where="terms.0.mixer")


def test_the_defaults_of_class_and_options_agree() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert UncertaintyPatchCutMix().options == UpcOptions()


@pytest.mark.parametrize(("name", "ras"), [("upc", "sample"), ("upc-faithful", "expand")])
def test_ready_recipes_hold_the_papers_settings(registry: Registry, name: str, ras: str) -> None:
    table, _ = read_recipe({"extends": name, "labels": "voc21"}, registry)
    config = validate(RecipeConfig, table)
    assert config.name == name
    (term,) = config.terms
    assert (term.view, term.mix_at, term.order) == ("strong", "weak", "label-then-mix")
    assert (term.normalizer, term.weight) == ("kept", 1.0)
    _, options = check_options(registry, "mixer", term.mixer.use, term.mixer.options, where="terms.0.mixer")
    assert options == UpcOptions(ras=ras)
    assert config.labeler.use == "threshold"
    assert config.labeler.options == {"threshold": 0.0}  # every pixel counts


class Constant(torch.nn.Module):
    """Says the same of every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Parameter(torch.tensor([0.5, 2.0, -1.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scores.view(1, 3, 1, 1).expand(len(images), 3, *images.shape[2:])


@pytest.mark.parametrize("name", ["upc", "upc-faithful"])
def test_ignored_pixels_of_a_donor_do_not_count_in_the_cross_entropy(name: str) -> None:
    """Section 3: the loss on mixed images is a cross-entropy, which knows no ignored pixels."""
    model = Constant()
    step = SemiSupervisedStep(model, name, kind="logits", num_classes=3)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    _, figures = step(images, torch.full((2, 16, 16), 255), images.clone())
    expected = torch.nn.functional.cross_entropy(model.scores.detach()[None], torch.tensor([1]))
    torch.testing.assert_close(figures["loss/upc"], expected)

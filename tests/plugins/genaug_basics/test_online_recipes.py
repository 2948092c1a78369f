"""The ready recipes of the controls hold the published settings."""

from __future__ import annotations

import pytest
import torch

from genaug.batch import Batch
from genaug.predictions import Predictions
from genaug.recipe import load_recipe
from genaug.rng import Rng

GIVEN = ["labels={1: dog, 4: cat, 9: potted plant}"]
NAMES = ["supervised", "pseudo-label", "mean-teacher", "fixmatch", "classmix"]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_labels_and_mixes_and_loads_again(name: str) -> None:
    recipe = load_recipe(name, GIVEN)
    assert recipe.config.name == name
    assert recipe.config.generator is None
    resolved = recipe.resolved()
    assert load_recipe(resolved).resolved() == resolved
    context = recipe.context()
    if name == "supervised":
        assert (recipe.config.labeler, recipe.config.terms) == (None, ())
        return
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    values = 4 * torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labeler = recipe.labeler(context)
    targets = labeler.label(labeler.predict(lambda _: Predictions(values, "logits"), images))
    batch = Batch(images, targets=targets.hard, weights=targets.weights, soft=targets.soft)
    for mixer in recipe.mixers(context):
        if mixer is not None:
            assert mixer.mix(batch, rng=Rng(0)).images.shape == images.shape


def test_fixmatch_is_that_of_unimatch_v2() -> None:
    config = load_recipe("fixmatch", GIVEN).resolved()
    term = config["terms"][0]
    assert (config["teacher"]["ema"], config["teacher"]["ramp"]) == (0.996, True)
    assert config["labeler"] == {
        "use": "threshold", "threshold": 0.95, "strict": False, "target": "hard", "weighting": "pixel",
    }  # fmt: skip
    assert term["mixer"] == {"use": "cutmix", "probability": 0.5, "area": [0.02, 0.4], "aspect": [0.3, 1 / 0.3]}
    assert (term["view"], term["order"], term["mix_at"]) == ("strong", "label-then-mix", "strong")
    assert (term["normalizer"], term["weight"], config["supervised"]["weight"]) == ("valid", 0.5, 0.5)


def test_the_other_controls() -> None:
    pseudo, mean = load_recipe("pseudo-label", GIVEN).resolved(), load_recipe("mean-teacher", GIVEN).resolved()
    assert (pseudo["teacher"]["ema"], pseudo["terms"][0]["view"], pseudo["terms"][0]["mixer"]) == (0.0, "weak", None)
    assert (mean["teacher"]["ema"], mean["labeler"]["target"], mean["labeler"]["threshold"]) == (0.999, "soft", 0.0)
    mix = load_recipe("classmix", GIVEN).resolved()
    assert (mix["teacher"]["ema"], mix["labeler"]["threshold"], mix["labeler"]["weighting"]) == (0.99, 0.968, "share")
    assert (mix["terms"][0]["mix_at"], mix["terms"][0]["normalizer"], mix["views"]["gray"]) == ("weak", "valid", 0.0)

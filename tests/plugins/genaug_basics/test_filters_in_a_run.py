"""All parts together: a recipe, the engine, a store; real plugins but for the generator, which copies the mask."""

import json
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from PIL import Image

from genaug.engine import run
from genaug.recipe import load_recipe
from genaug.registry import GROUP, Registry
from genaug.rng import Rng
from genaug.store import SampleStore
from genaug.testing.filters import LABELS, make_mask, make_sample

torch.set_num_threads(1)
PLUGIN = '''
import numpy as np
from genaug import Component, Generator, Sample, hookimpl

class Copy(Generator):
    """Paints the mask in grey with noise; image 0 of each condition gets a square of another class's grey."""
    samples_per_condition, batch_size = 4, 4
    def _generate(self, draws):
        result = []
        for draw in draws:
            image = draw.condition.mask[..., None].repeat(3, 2).astype(float) * 20
            if draw.k == 0:
                image[2:8, 2:8] = 220
            image += np.random.default_rng(draw.seed).normal(0, 5, image.shape)
            result.append(Sample(draw.key, image.clip(0, 255).astype(np.uint8), draw.condition.mask))
        return result

@hookimpl
def genaug_components():
    yield Component("generator", "copy", "copy_plugin:Copy")
'''


@pytest.fixture
def project(tmp_path, install):
    """Four labelled and two unlabelled pictures, and the registry to load recipes with."""
    install("copy-plugin", {"copy_plugin": PLUGIN}, {"copy": "copy_plugin"})
    for folder in ("images", "masks", "unlabelled"):
        (tmp_path / folder).mkdir()
    rng = Rng(11)
    for i in range(6):
        sample = make_sample(f"s{i}", make_mask(rng.child(i), (16, 24)), rng.child(i))
        Image.fromarray(sample.image).save(tmp_path / ("images" if i < 4 else "unlabelled") / f"s{i}.png")
        if i < 4:
            Image.fromarray(sample.mask).save(tmp_path / "masks" / f"s{i}.png")
    modules = {
        "core": "genaug.sources.plugin",
        "basics": "genaug_basics.plugin",
        "tiny": "genaug_tiny.plugin",
        "matchmask": "genaug_matchmask.plugin",
        "copy": "copy_plugin",
    }
    return tmp_path, Registry([EntryPoint(name, module, GROUP) for name, module in modules.items()])


def recipe_of(project, **more):
    root, registry = project
    predictor = {"use": "small-unet", "steps": 40, "batch_size": 4, "width": 6}
    table = {
        "seed": 5,
        "labels": {"names": {str(i): name for i, name in LABELS.names.items()}},
        "data": {"images": "images", "masks": "masks"},
        "generator": {"use": "copy"},
        "filters": [
            {"use": name, "predictor": predictor} for name in ("relative", "confidence", "class-loss", "class-hardness")
        ],
        **more,
    }
    return load_recipe(table, root=root, registry=registry)


def test_filters_of_a_run_share_one_predictor(project):
    recipe = recipe_of(project)
    report = run(recipe, device="cpu")
    (place,) = report["stages"]["adapt"]
    assert place.startswith("adapters/small-unet-")
    assert {name: part["judged"] for name, part in report["stages"]["filter"]["filters"].items()} == dict.fromkeys(
        ("relative", "confidence", "class-loss", "class-hardness"), 16
    )
    store = SampleStore.open(recipe.output)
    verdicts = {
        name: [
            json.loads(line)
            for line in (store.path / "filters" / name / "verdicts.jsonl").read_text("utf-8").splitlines()
        ]
        for name in store.filters
    }
    agreement = {row["key"]: row["scores"]["agreement"] for row in verdicts["relative"]}
    assert all(0 < value <= 1 for value in agreement.values())
    assert any(row["mask"] for row in verdicts["relative"])
    # Ranks 0..3 of four masks keep min(1 + round((rank + 1) / 4 * 4), 4) = 2, 3, 4, 4 images.
    kept = {}
    for row in verdicts["class-hardness"]:
        kept[row["scores"]["rank"]] = kept.get(row["scores"]["rank"], 0) + row["keep"]
    assert kept == {0: 2, 1: 3, 2: 4, 3: 4}
    # So little training makes nobody sure: with the confidence filter, nothing is left of what all filters keep.
    view = store.training_view()
    part = report["stages"]["filter"]
    assert (part["kept"], part["nothing_left"]) == (len(view), len(view.nothing_left))
    assert len(view) + len(view.nothing_left) == 13
    masks = {row["key"]: [] for row in store.rows()}
    for rows in verdicts.values():
        for row in rows:
            name = row["mask"]["file"] if row["mask"] else f"masks/{row['key']}.png"
            masks[row["key"]].append(np.asarray(Image.open(store.path / name)) == 255)
    assert all(np.any(masks[key], axis=0).all() for key in view.nothing_left)
    assert not any(np.any(masks[key], axis=0).all() for key in view.keys)
    others = store.training_view(["relative", "class-loss", "class-hardness"])
    assert len(others) == 13
    assert all(np.isin(s.mask, [*LABELS.ids, 255]).all() and (s.mask != 255).any() for s in others)

    again = run(recipe, device="cpu")
    assert again["stages"]["adapt"][place] == {"reused": True}
    assert all(part["judged"] == 0 for part in again["stages"]["filter"]["filters"].values())


def test_pseudo_masks_become_conditions_by_a_predictor_that_learns_first(project):
    conditions = {
        "format": "pseudo-masks",
        "images": "unlabelled",
        "predictor": {"use": "small-unet", "steps": 40, "batch_size": 4, "width": 6},
        "cache": "pseudo",
    }
    recipe = recipe_of(project, conditions=conditions, filters=[])
    run(recipe, device="cpu")
    store = SampleStore.open(recipe.output)
    assert len(store) == 8
    for condition_id, mask in store.conditions():
        cached = np.asarray(Image.open(recipe.root / "pseudo" / f"{condition_id}.png"))
        np.testing.assert_array_equal(mask, cached)
        assert set(np.unique(mask)) <= set(LABELS.ids)
    assert (recipe.output / "report" / "index.html").is_file()


def test_a_finished_predictor_is_used_by_its_folder(project):
    first = recipe_of(project)
    run(first, device="cpu")
    (folder,) = (first.output / "adapters").iterdir()
    again = recipe_of(
        project,
        output="again",
        filters=[{"use": "relative", "predictor": str(folder.relative_to(first.root))}],
    )
    report = run(again, device="cpu")
    assert report["stages"]["adapt"] == {}
    masks = [
        {p.name: p.read_bytes() for p in (r.output / "filters" / "relative" / "masks").iterdir()}
        for r in (first, again)
    ]
    assert masks[0]
    assert masks[0] == masks[1]

"""Filters and sections as recipes and options name them, on a store that a generator filled."""

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genaug.engine import run
from genaug.errors import ConfigError
from genaug.labels import LabelSpace
from genaug.models import check_models
from genaug.recipe import BuildContext, load_recipe
from genaug.registry import GROUP, Registry, default_registry
from genaug.report.quality import build_sections, write_quality
from genaug.report.sample_sets import SourceSet, StoreSet
from genaug.store import SampleStore
from genaug.store.verdicts import FilterResults
from genaug.types import Sample

PLUGIN = '''
import numpy as np
from genaug import Component, Generator, Sample, hookimpl

class Paint(Generator):
    """One colour per class, with more noise in every further image of a condition."""
    samples_per_condition, batch_size = 3, 4
    def _generate(self, draws):
        return [self._paint(d) for d in draws]
    def _paint(self, d):
        colors = np.zeros((256, 3))
        colors[[0, 3, 7]] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
        noise = np.random.default_rng(d.seed).normal(0, 5 + 60 * d.k, (*d.condition.size, 3))
        return Sample(d.key, np.clip(colors[d.condition.mask] + noise, 0, 255).astype(np.uint8), d.condition.mask)

class Colour:
    def __call__(self, images):
        return images * 20

@hookimpl
def genaug_components():
    yield Component("generator", "paint", "quality_plugin:Paint")
    yield Component("predictor", "colour", "quality_plugin:Colour")
'''


@pytest.fixture
def recipe(tmp_path, install):
    """Six masks of up to three regions, their images, and every filter."""
    install("quality-plugin", {"quality_plugin": PLUGIN}, {"quality-test": "quality_plugin"})
    registry = Registry(
        [
            EntryPoint("core", "genaug.sources.plugin", GROUP),
            EntryPoint("quality", "genaug_quality.plugin", GROUP),
            EntryPoint("basics", "genaug_basics.plugin", GROUP),
            EntryPoint("sense", "genaug_sense.plugin", GROUP),
            EntryPoint("quality-test", "quality_plugin", GROUP),
        ]
    )
    for i in range(6):
        mask = np.zeros((32, 40), np.uint8)
        if i:
            mask[:, 20:], mask[: 5 * i, :10] = 3, 7
        colors = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)])[np.searchsorted([0, 3, 7], mask)]
        image = (colors + np.random.default_rng(i).normal(0, 5, colors.shape)).clip(0, 255).astype(np.uint8)
        for kind, array in (("images", image), ("masks", mask)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / f"m{i}.png")
    table = {
        "labels": {"names": {"0": "sky", "3": "road", "7": "sign"}},
        "data": {"images": "images", "masks": "masks"},
        "generator": {"use": "paint"},
        "filters": [
            {"use": "density", "threshold": 2},
            {"use": "density", "name": "seen", "predictor": {"use": "colour"}, "measure": "classes"},
            {"use": "fidelity", "measure": "noise", "percentile": 0},
            {"use": "agreement", "predictor": {"use": "colour"}, "threshold": 0.9},
            {"use": "duplicate", "radius": 0},
            {"use": "class-balanced", "count": 5},
        ],
        "output": "store",
    }
    return load_recipe(table, root=tmp_path, registry=registry)


def test_every_filter_judges_and_the_report_reads_the_store(recipe, tmp_path):
    assert check_models(recipe).problems == []
    run(recipe, stages=["adapt", "generate", "filter"], device="cpu")
    store = SampleStore.open(recipe.output)
    clean, noisy = ({key for key in store.keys() if key.endswith(end)} for end in ("_0", "_2"))  # noqa: SIM118
    kept = {name: {r["key"] for r in FilterResults(store.path, name).rows() if r["keep"]} for name in store.filters}
    assert {key[:2] for key in kept["density"]} == {"m1", "m2", "m3", "m4", "m5"}  # m0 is a single region
    assert not noisy & kept["fidelity"]
    assert clean <= kept["agreement"]
    assert not noisy <= kept["agreement"]
    assert len(kept["class-balanced"]) == 5
    assert not any(key.startswith("m0") for key in kept["class-balanced"])

    context = recipe.context()
    sections = build_sections(context, {"agreement": {"predictor": {"use": "colour"}}, "duplicates": {"radius": 2}})
    assert list(sections) == ["agreement", "coverage", "density", "duplicates", "fidelity"]
    sets = StoreSet(store.path), SourceSet(recipe.source())
    report = write_quality(*sets, sections, labels=recipe.labels, output=tmp_path / "report")
    assert (report["synthetic"]["images"], report["synthetic"]["groups"], report["real"]["images"]) == (18, 6, 6)
    rows = {r["name"]: r for r in report["sections"]["agreement"]["statistics"]}
    assert rows["agreement"]["real"]["value"] == 1
    assert rows["agreement"]["synthetic"]["value"] < 1
    density = {r["name"]: r for r in report["sections"]["density"]["statistics"]}
    assert density["components"]["synthetic"]["value"] == density["components"]["real"]["value"]


def test_any_labeler_can_be_named(recipe):
    def measured(**options):
        sections = build_sections(recipe.context(), {"agreement": {"predictor": {"use": "colour"}, **options}})
        return sections["agreement"].measure([Sample("a", image)])[0]

    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    plain, named = measured(threshold=0.7), measured(labeler={"use": "threshold", "threshold": 0.7})
    assert 0 < plain["kept"] < 48
    assert all(np.array_equal(named[key], plain[key], equal_nan=True) for key in plain)
    image[..., 0] |= 128  # mostly the first class, whose pixels the transport gives to the others
    moved = measured(labeler={"use": "sense", "threshold": 0.0, "support": "exact", "beta": 1})
    assert moved["kept"] == 48  # the gate comes before the transport
    assert 0 < moved["flipped"] < 48
    with pytest.raises(ConfigError, match=r"agreement\.labeler: no key 'use'"):
        measured(labeler={"threshold": 0.7})
    with pytest.raises(ConfigError, match="give it to the labeler"):
        measured(labeler={"use": "threshold"}, threshold=0.7)


def test_sections_that_need_a_model_appear_when_one_is_named(recipe):
    context = recipe.context()
    assert list(build_sections(context, {})) == ["coverage", "density", "duplicates", "fidelity"]
    options = {name: {"model": "somewhere"} for name in ("clip", "features", "instances")}
    sections = build_sections(context, options, ["fidelity"])
    assert list(sections) == ["clip", "coverage", "density", "duplicates", "features", "instances"]
    assert sections["instances"].prompt == "sky. road. sign."
    assert [name for name, section in sections.items() if not section.parallel] == ["clip", "features", "instances"]


def test_a_predictor_that_has_to_learn_first_is_refused():
    untrained = {"use": "small-unet", "steps": 1}
    context = BuildContext(Path(), LabelSpace({0: "sky", 1: "road"}), default_registry())
    with pytest.raises(ConfigError, match="has to learn first"):
        build_sections(context, {"agreement": {"predictor": untrained}})

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genaug.engine import run
from genaug.recipe import load_recipe
from genaug.registry import GROUP, Registry
from genaug.store import SampleStore

sys.path.insert(0, str(Path(__file__).parent))  # report_page

PLUGIN = '''
import numpy as np
from genaug import Component, Filter, Generator, Sample, Verdict, hookimpl
from genaug.config import Options
from genaug.types import Refused

class Paint(Generator):
    """Image k of a condition has brightness 40 k; number 3 of condition "b" is refused."""
    samples_per_condition, batch_size = 4, 4
    def _generate(self, draws):
        return [
            Refused("flagged, score 0.91") if d.key == "b_3"
            else Sample(d.key, np.full((*d.condition.size, 3), 40 * d.k, np.uint8), d.condition.mask)
            for d in draws
        ]

class ColumnsOptions(Options):
    width: int = 2

class Columns(Filter):
    """Ignores the first `width` columns of images 0 and 1, nothing of the others."""
    def __init__(self, width):
        self.width = width
    def _judge(self, group):
        verdicts = []
        for k, sample in zip(group.ks, group.samples):
            mask = sample.mask.copy()
            if k < 2:
                mask[:, :self.width] = 255
            kept = float((mask != 255).sum() / (sample.mask != 255).sum())
            verdicts.append(Verdict(True, mask=mask, scores={"kept": kept, "kept/sky": 0.5}))
        return verdicts

class Dark(Filter):
    """Drops what is darker than 100."""
    def _judge(self, group):
        return [
            Verdict(bool(s.image.mean() >= 50), reason="" if s.image.mean() >= 50 else
                    f"brightness {s.image.mean():.1f} below 50", scores={"brightness": float(s.image.mean())})
            for s in group.samples
        ]

@hookimpl
def genaug_components():
    yield Component("generator", "paint", "report_plugin:Paint")
    yield Component("filter", "columns", "report_plugin:Columns", config="report_plugin:ColumnsOptions")
    yield Component("filter", "dark", "report_plugin:Dark")
'''


@pytest.fixture
def paint_recipe(tmp_path, install):
    """Return a function: filters, masks by id -> recipe whose generator and filters are those above."""
    install("report-plugin", {"report_plugin": PLUGIN}, {"report": "report_plugin"})
    registry = Registry(
        [EntryPoint("core", "genaug.sources.plugin", GROUP), EntryPoint("report", "report_plugin", GROUP)]
    )

    def make(filters, masks, name="painted"):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for sample_id, mask in masks.items():
            red = np.zeros((*mask.shape, 3), np.uint8)
            red[..., 0] = 250
            Image.fromarray(red).save(tmp_path / "images" / f"{sample_id}.png")
            Image.fromarray(mask).save(tmp_path / "masks" / f"{sample_id}.png")
        table = {
            "name": name,
            "labels": {"names": {"0": "sky", "3": "<b>road</b>", "7": "never seen"}},
            "data": {"images": "images", "masks": "masks"},
            "generator": {"use": "paint"},
            "filters": filters,
        }
        return load_recipe(table, root=tmp_path, registry=registry)

    return make


@pytest.fixture
def masks():
    """Two conditions of 4 x 8: `a` half sky, half road; `b` sky with one ignored row."""
    a = np.zeros((4, 8), np.uint8)
    a[:, 4:] = 3
    b = np.zeros((4, 8), np.uint8)
    b[0] = 255
    return {"a": a, "b": b}


@pytest.fixture
def painted(paint_recipe, masks):
    """A finished store with both filters' verdicts, and its recipe."""
    recipe = paint_recipe([{"use": "columns"}, {"use": "dark"}], masks)
    run(recipe, stages=["adapt", "generate", "filter"], device="cpu")
    return SampleStore.open(recipe.output), recipe

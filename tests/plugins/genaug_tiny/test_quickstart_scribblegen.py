"""``genaug quickstart --method scribblegen`` by its real command, every stage, small; and the parts that it is made of.

What all demonstrations share is tested in ``test_quickstart.py``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from torch.utils.data import TensorDataset

from genaug.cli import group
from genaug.store import SampleStore
from genaug_tiny.experiment import labelled_seeds, write_project
from genaug_tiny.quickstart_scribblegen import FULL, SHORT
from genaug_tiny.scenes import CLASSES, render_scenes
from genaug_tiny.scribbled import EPOCHS, IGNORE, SCRIBBLE_RECIPE, batches_by_epoch, scribbled, train_on_scribbles
from genaug_torch import EncodeRatioDataset, MixedDataset

LEVELS = SCRIBBLE_RECIPE["generator"]["encode_ratio"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Return the folder and the outcome of a call."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("project") / "quickstart"
    command = ["quickstart", "--method", "scribblegen-short", "--output", str(folder), "--device", "cpu"]
    result = CliRunner().invoke(group, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder, result


def test_it_ends_with_a_table_a_gallery_and_lines_that_work(first: tuple[Path, Result]) -> None:
    folder, result = first
    assert "the table means nothing" in result.stdout
    written = json.loads((folder / "results.json").read_text("utf-8"))
    assert [arm["name"] for arm in written["arms"]] == ["scribbles only", "scribbles + synthetic"]
    assert [arm["images"] for arm in written["arms"]] == [SHORT.scenes, SHORT.scenes * (1 + len(LEVELS))]
    for arm in written["arms"]:
        (row,) = re.findall(rf"^{re.escape(arm['name'])}  .*$", result.stdout, flags=re.M)
        assert len(row.removeprefix(arm["name"]).split()) == 2 + len(CLASSES)
    (gallery,) = re.findall(r"^Gallery: (.+)$", result.stdout, flags=re.M)
    assert Path(gallery) == folder / "synthetic/report/index.html"
    assert Path(gallery).is_file()
    names: dict[str, object] = {"train_set": [("image", "labels")] * 5}
    exec("\n".join(line.strip() for line in result.stdout.rstrip().splitlines()[-4:]), names)
    assert isinstance(names["synthetic"], EncodeRatioDataset)
    assert isinstance(names["train_set"], MixedDataset)
    assert len(names["train_set"]) == 2 * 5


def test_the_data_are_scribbles_and_every_one_has_an_image_of_each_ratio(first: tuple[Path, Result]) -> None:
    folder, _ = first
    seeds = labelled_seeds(SHORT.scenes, 0)
    drawn = scribbled(render_scenes(seeds)[1], 0)
    for number, expected in zip(seeds, drawn, strict=True):
        with Image.open(folder / f"data/scribbles/scene_{number:06d}.png") as file:
            assert np.array_equal(np.asarray(file), expected)
    samples = list(SampleStore.open(folder / "synthetic").training_view())
    assert sorted(s.meta["encode_ratio"] for s in samples) == sorted(LEVELS * SHORT.scenes)
    assert not (folder / "data/masks").exists()
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    assert (recipe["generator"]["base"], recipe["generator"]["controlnet"]) == ("genaug-tiny", "genaug-tiny")


def test_the_full_one_is_the_recipe_of_the_benchmark(tmp_path: Path) -> None:
    seeds = labelled_seeds(1, 0)
    plain = write_project(tmp_path / "plain", seeds, seed=0, template=SCRIBBLE_RECIPE).read_text("utf-8")
    changes = FULL.recipe_changes()
    full = write_project(tmp_path / "full", seeds, seed=0, template=SCRIBBLE_RECIPE, changes=changes).read_text("utf-8")
    assert full == plain


def test_scribbles_label_few_pixels_rightly_and_every_class() -> None:
    _, masks = render_scenes(range(4))
    drawn = scribbled(masks, 0)
    labelled = drawn != IGNORE
    assert np.array_equal(drawn[labelled], masks[labelled])
    assert labelled.mean() < 0.05
    assert all(set(np.unique(mask)) | {IGNORE} == set(np.unique(one)) for mask, one in zip(masks, drawn, strict=True))
    assert not np.array_equal(drawn, scribbled(masks, 1))


def test_the_encode_ratio_rises_through_the_steps(first: tuple[Path, Result]) -> None:
    folder, _ = first
    images, labels = torch.zeros(SHORT.scenes, 3, 64, 64), torch.zeros(SHORT.scenes, 64, 64, dtype=torch.int64)
    synthetic = EncodeRatioDataset(folder / "synthetic", epochs=EPOCHS)
    train = MixedDataset(TensorDataset(images, labels), synthetic, ratio=1.0)
    steps = 2 * EPOCHS + 3
    seen = []
    for x, y in batches_by_epoch(train, steps=steps, seed=0, batch_size=2):
        assert (x.shape, y.shape) == ((2, 3, 64, 64), (2, 64, 64))
        seen.append((synthetic.epoch, synthetic.level(0)))
    assert len(seen) == steps
    assert sorted(seen) == seen
    counts = np.bincount([epoch for epoch, _ in seen], minlength=EPOCHS)
    assert set(counts.tolist()) == {2, 3}
    share = EPOCHS // len(LEVELS)
    assert {(epoch, LEVELS[epoch // share]) for epoch in range(EPOCHS)} == set(seen)


def test_a_short_training_has_fewer_epochs_and_all_its_steps() -> None:
    train = TensorDataset(torch.zeros(3, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.int64))
    assert len(list(batches_by_epoch(train, steps=EPOCHS - 5, seed=0, batch_size=1))) == EPOCHS - 5


def test_only_labelled_pixels_teach() -> None:
    images, masks = render_scenes(range(2))
    nothing = np.full_like(masks, IGNORE)
    models = [
        train_on_scribbles((images, labels), num_classes=8, seed=0, steps=2, batch_size=2, width=3)
        for labels in (nothing, scribbled(masks))
    ]
    untouched, taught = (model.head.weight for model in models)
    fresh = train_on_scribbles((images, nothing), num_classes=8, seed=0, steps=0, batch_size=2, width=3).head.weight
    assert torch.equal(untouched, fresh)
    assert not torch.equal(taught, fresh)

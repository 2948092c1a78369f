"""The scripts that draw the pictures of the README and the method pages still run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from genaug.recipe import load_recipe
from genaug.store import SampleStore, open_writer
from genaug.types import Draw, Sample
from genaug_tiny.experiment import write_project
from genaug_tiny.scenes import CLASSES

ROOT = Path(__file__).resolve().parents[2]
METHODS = ROOT / "docs/explanation/methods"


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/figures/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up, scripts one another
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return loaded("self_training", monkeypatch)


def test_every_method_gets_its_picture(script: ModuleType, tmp_path: Path) -> None:
    few = {"steps": 2, "size": 32, "labelled": 4, "unlabelled": 2, "shown": 1, "seed": 3}
    script.main(["--out", str(tmp_path / "new"), *(f"--{name}={value}" for name, value in few.items())])
    pictures = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in pictures] == ["maskmatch.png", "sense.png", "upc.png"]
    for path in pictures:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert min(pixels.shape[:2]) > 500
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100, f"{path.name} is blank"
        for half in (*np.array_split(pixels, 2, axis=0), *np.array_split(pixels, 2, axis=1)):
            assert half.std() > 20, f"a half of {path.name} is blank"


def test_what_a_panel_claims_is_counted_right(script: ModuleType) -> None:
    flags = script.torch.zeros(4, 5, dtype=bool)
    assert script.share(flags) == "0 %"
    flags[0, 0] = True
    assert script.share(flags) == "5.0 %"
    assert script.share(flags, flags) == "100 %"
    assert script.share(~flags & flags, ~flags & flags) == "0 %"


def test_pages_show_pictures_of_a_size_that_loads_fast(script: ModuleType) -> None:
    for name in script.PICTURES:
        assert f"](figures/{name}.png)" in (METHODS / f"{name}.md").read_text("utf-8")
        assert (METHODS / f"figures/{name}.png").stat().st_size < 150_000
    for name in ("matchmask", "scribblegen"):
        assert f"](figures/{name}.png)" in (METHODS / f"{name}.md").read_text("utf-8")
        assert (METHODS / f"figures/{name}.png").stat().st_size < 250_000
    assert "](docs/overview.png)" in (ROOT / "README.md").read_text("utf-8")
    assert (ROOT / "docs/overview.png").stat().st_size < 350_000
    assert list(script.COLOURS) == list(CLASSES.values())


def test_pictures_of_generated_images(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    generative = loaded("generative", monkeypatch)
    overview = loaded("overview", monkeypatch)
    project = write_project(tmp_path, [1, 2], seed=0, changes={"filters": []})
    recipe = load_recipe(project)
    source = recipe.source()
    samples = [source.load(name) for name in source.ids()]
    with open_writer(recipe) as writer:
        writer.plan(2, 3, missing=6)
        for sample in samples:
            writer.put_condition(sample)
            for k in range(3):
                made = Sample(f"{sample.id}_{k}", sample.image, sample.mask)
                writer.add([Draw(sample, k, k)], [made], {})
        writer.finish([f"{sample.id}_{k}" for sample in samples for k in range(3)])
    store = SampleStore.open(recipe.output)
    columns = generative.matchmask_columns(store, recipe, [0, 1])
    assert [name for name, _ in columns] == [
        "mask",
        "real image",
        "synthetic 1",
        "mask of 1",
        "synthetic 2",
        "mask of 2",
    ]
    for (_, shown), expected in zip(
        columns[1:3], zip(*[(s.image, s.image) for s in samples], strict=True), strict=True
    ):
        assert all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True))
    assert np.array_equal(columns[0][1][0], columns[3][1][0])  # nothing was filtered here
    line = overview.matchmask(tmp_path, 1)
    assert np.array_equal(line.gives[0][1], samples[1].image)
    for name, figure in (("a", generative.sheet(columns, ["one", "two"])), ("b", overview.draw([line, line]))):
        figure.savefig(tmp_path / f"{name}.png")
        assert np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).std() > 20


def test_pixels_without_a_label_are_white_or_show_the_image(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured = loaded("generative", monkeypatch).coloured
    mask = np.array([[0, 255]], np.uint8)
    assert np.array_equal(coloured(mask)[0, 1], [1, 1, 1])
    assert np.allclose(coloured(mask)[0, 0], np.array([0x56, 0xB4, 0xE9]) / 255)
    assert np.allclose(coloured(mask, np.zeros((1, 2, 3), np.uint8))[0, 1], 0.5)


def test_photographs_take_the_place_of_scenes(script: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, array in (("images", (24, 36, 3)), ("masks", (24, 36))):
        (tmp_path / folder).mkdir()
        for number in range(10):
            picture = rng.integers(0, 256 if folder == "images" else 11, array, np.uint8)
            picture[:4] = 255  # in the masks: not labelled
            Image.fromarray(picture).save(tmp_path / folder / f"{number}.png")
    few = {"steps": 1, "size": 16, "labelled": 4, "unlabelled": 2, "shown": 1, "data": tmp_path}
    script.main(["--out", str(tmp_path / "new"), *(f"--{name}={value}" for name, value in few.items())])
    for name in ("maskmatch.png", "sense.png", "upc.png"):
        height, width, _ = np.asarray(Image.open(tmp_path / "new" / name).convert("RGB")).shape
        assert height < 0.55 * width  # panels are as wide as the photographs
    labels = script.LabelSpace({3: "a", 9: "b"})
    source = script.FolderSource(script.FolderOptions(images="images", masks="masks"), labels, root=tmp_path)
    with pytest.raises(ValueError, match="outside the class table"):
        script.photographs(source, ["0"], 16)


@pytest.mark.usefixtures("script")  # which the other script imports
def test_what_is_kept_is_counted_by_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results = loaded("self_training_results", monkeypatch)
    runs = {
        "supervised": [{"iou": [0.5, 0.2, 0.0]}, {"iou": [0.6, 0.2, 0.0]}],
        "ceiling: every label": [{"iou": [0.6, 0.4, 0.0]}, {"iou": [0.7, 0.4, 0.0]}],
        "fixmatch": [
            {"iou": [0.5, 0.1, 0.0], "kept_by_class": [0.5, None, None]},
            {"iou": [0.6, 0.3, 0.0], "kept_by_class": [0.7, 0.2, None]},
        ],
    }
    kept, truth, method = results.by_class(runs)
    assert np.allclose(kept, [0.6, 0.2, 0])
    assert np.allclose(truth, [10, 20, 0])
    assert np.allclose(method, 0)
    tiny, camvid = (
        {arm: [{key: (value * 4)[:count] for key, value in run.items()} for run in made] for arm, made in runs.items()}
        for count in (8, 11)
    )
    results.picture(tiny, tiny, camvid).savefig(tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).std() > 20

import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from genaug.config import validate
from genaug.engine import preview
from genaug.errors import ConfigError, DataError, MissingDependencyError, StoreError
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext, load_recipe
from genaug.registry import Registry
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug_basics.config import PseudoMasksOptions
from genaug_basics.pseudo_masks import PseudoMasks
from genaug_basics.regions import ignore_regions

LABELS = LabelSpace({2: "road", 7: "car", 9: "tree"})
IDS = np.array(LABELS.ids, np.uint8)


class ColourSegmenter:
    """Takes the brightest of red, green and blue for the class."""

    def __init__(self, name="first", sharpness=20.0):
        self.name, self.sharpness, self.calls = name, sharpness, 0

    def fingerprint(self):
        return self.name

    def __call__(self, images):
        self.calls += 1
        return images * self.sharpness


@pytest.fixture
def folder(tmp_path):
    """Three images; the channel map of `a` is returned by its name."""
    channels = np.zeros((8, 10), int)
    channels[:4, 6:], channels[6, 2] = 1, 2  # a region of 16 pixels, and one of a single pixel
    for name, array in (("a", channels), ("b", np.full((5, 5), 1)), ("c", np.full((5, 4), 2))):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(np.eye(3, dtype=np.uint8)[array] * 180).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "use.txt").write_text("c\na\n")
    return SimpleNamespace(path=tmp_path, channels=channels)


def source(folder, predictor=None, **options):
    images = FolderSource(FolderOptions(images="photos"), LABELS, root=folder.path)
    return PseudoMasks(images, predictor or ColourSegmenter(), labels=LABELS, **options)


def test_masks_are_what_the_predictor_sees(folder):
    pseudo = source(folder)
    assert list(pseudo.ids()) == ["a", "b", "c"]
    sample = pseudo.load("a")
    np.testing.assert_array_equal(sample.mask, IDS[folder.channels])
    assert sample.image.shape == (8, 10, 3)
    assert sample.meta["mask"] == "predicted"
    assert [s.mask.shape for s in pseudo] == [(8, 10), (5, 5), (5, 4)]


def test_small_regions_are_ignored_when_asked(folder):
    expected = IDS[folder.channels]
    expected[6, 2] = 255
    np.testing.assert_array_equal(source(folder, min_region=2).load("a").mask, expected)
    expected[:4, 6:] = 255
    np.testing.assert_array_equal(source(folder, min_region=17).load("a").mask, expected)


def test_uncertain_regions_are_ignored_when_asked(folder):
    shaky = ColourSegmenter(sharpness=1.0)  # softmax of (180 / 255, 0, 0): about 0.50
    assert (source(folder, shaky, min_confidence=0.4).load("b").mask == 7).all()
    assert (source(folder, shaky, min_confidence=0.6).load("b").mask == 255).all()


@given(
    hnp.arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 255])),
    hnp.arrays(np.float32, (6, 7), elements=st.floats(0, 1, width=32)),
    st.integers(0, 6),
    st.sampled_from([0.0, 0.3, 0.7]),
)
def test_regions_equal_a_flood_fill(mask, confidence, min_region, min_confidence):
    expected, seen = mask.copy(), set()
    for start in np.ndindex(mask.shape):
        if start in seen or mask[start] == 255:
            continue
        region, front = set(), [start]
        while front:
            y, x = front.pop()
            inside = 0 <= y < 6 and 0 <= x < 7
            if inside and (y, x) not in region and mask[y, x] == mask[start]:
                region.add((y, x))
                front += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        seen |= region
        mean = np.mean([float(confidence[p]) for p in region])
        if len(region) < min_region or mean < min_confidence:
            for place in region:
                expected[place] = 255
    result = ignore_regions(mask, confidence, min_confidence=min_confidence, min_region=min_region, ignore_index=255)
    np.testing.assert_array_equal(result, expected)


def test_gates_without_scikit_image_name_the_extra(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'genaug\[metrics\]'"):
        source(folder, min_region=5)
    assert source(folder).load("b").mask.shape == (5, 5)


# ---------------------------------------------------------------------- cache


def test_cached_masks_are_index_files_and_are_not_predicted_again(folder):
    cache = folder.path / "cache"
    first, second = ColourSegmenter(), ColourSegmenter()
    fresh = [s.mask for s in source(folder, first, cache=cache)]
    assert first.calls == 3
    again = [s.mask for s in source(folder, second, cache=cache)]
    assert second.calls == 0
    for a, b in zip(fresh, again, strict=True):
        np.testing.assert_array_equal(a, b)
    with Image.open(cache / "a.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), IDS[folder.channels])
    assert {p.name for p in cache.iterdir()} == {"a.png", "b.png", "c.png", "pseudo_masks.json"}
    # The cache is a mask folder like any other.
    trained_on = FolderSource(FolderOptions(images="photos", masks="cache"), LABELS, root=folder.path)
    assert trained_on.check() == []


def test_a_cache_of_another_predictor_or_of_other_options_is_refused(folder):
    cache = folder.path / "cache"
    source(folder, cache=cache).load("a")
    with pytest.raises(StoreError, match="another predictor"):
        source(folder, ColourSegmenter("second"), cache=cache).load("a")
    with pytest.raises(StoreError, match="another min_confidence and another min_region"):
        source(folder, cache=cache, min_region=3, min_confidence=0.5).load("a")


def test_damaged_cached_masks_are_named(folder):
    cache = folder.path / "cache"
    source(folder, cache=cache).load("a")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(cache / "a.png")
    with pytest.raises(DataError, match=r"a\.png.*\(3, 3\).*\(8, 10\)"):
        source(folder, cache=cache).load("a")
    (cache / "a.png").write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"a\.png: .*cannot be read"):
        source(folder, cache=cache).load("a")
    (cache / "pseudo_masks.json").write_text("{")
    with pytest.raises(StoreError, match="pseudo_masks"):
        source(folder, cache=cache).load("b")


# ---------------------------------------------------------------------- recipes


def test_checking_reads_images_and_asks_nobody(folder):
    predictor = ColourSegmenter()
    (folder.path / "photos" / "broken.png").write_bytes(b"no picture")
    problems = source(folder, predictor).check()
    assert len(problems) == 1
    assert "broken.png" in problems[0]
    assert predictor.calls == 0


@pytest.mark.parametrize("size_mode", ["square", "keep_aspect"])
def test_a_preview_needs_no_trained_predictor(folder, size_mode):
    (folder.path / "masks").mkdir()
    (folder.path / "real").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder.path / "real" / "m.png")
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(folder.path / "masks" / "m.png")
    recipe = load_recipe(
        {
            "labels": {"names": dict(LABELS.names)},
            "data": {"images": "real", "masks": "masks"},
            "conditions": {"format": "pseudo-masks", "images": "photos", "predictor": {"use": "small-unet"}},
            "generator": {"use": "matchmask", "base": "genaug-tiny", "images_per_mask": 2, "size_mode": size_mode},
            "output": "out",
        },
        root=folder.path,
    )
    plan = preview(recipe, device="cpu")
    assert (plan["conditions"], plan["samples"]) == (3, 6)
    assert plan["sizes"] == {"10x8": 2, "5x5": 2, "4x5": 2}  # width x height of the samples, in both modes
    assert len(plan["to_adapt"]) == 2
    assert not (folder.path / "out").exists()


COLOUR_PLUGIN = """
from genaug import Component, hookimpl

class Colour:
    def __call__(self, images):
        return images

@hookimpl
def genaug_components():
    yield Component("predictor", "colour", "colour_plugin:Colour")
"""


def test_options_reach_the_folder_and_the_predictor(folder, install):
    install("colour-plugin", {"colour_plugin": COLOUR_PLUGIN}, {"colour": "colour_plugin"})
    context = BuildContext(folder.path, LABELS, Registry([EntryPoint("colour", "colour_plugin", "genaug")]))
    options = validate(
        PseudoMasksOptions, {"images": "photos", "list": "use.txt", "predictor": {"use": "colour"}, "cache": "masks"}
    )
    pseudo = PseudoMasks.from_config(options, context)
    assert [s.id for s in pseudo] == ["c", "a"]
    np.testing.assert_array_equal(pseudo.load("a").mask, IDS[folder.channels])
    assert (folder.path / "masks" / "c.png").is_file()
    for wrong in ({"images": "photos"}, {"images": "photos", "predictor": "m", "min_confidence": 2}):
        with pytest.raises(ConfigError):
            validate(PseudoMasksOptions, wrong)


def test_importing_and_checking_needs_no_torch(folder):
    code = f"""
import sys
from pathlib import Path
import genaug_basics.plugin, genaug_basics.config, genaug_basics.exported, genaug_basics.transformers_predictor
from genaug_basics.pseudo_masks import PseudoMasks
from genaug.labels import LabelSpace
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
labels = LabelSpace({{0: "a", 1: "b"}})
images = FolderSource(FolderOptions(images="photos"), labels, root=Path({str(folder.path)!r}))
assert PseudoMasks(images, lambda x: x, labels=labels).check() == []
print([m for m in ("torch", "transformers", "skimage") if m in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

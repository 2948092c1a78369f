import io
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from genaug.labels import LabelSpace
from genaug.report.figures import Measured
from genaug.rng import Rng
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug.types import Sample
from genaug_quality import duplicates as duplicates_module
from genaug_quality.coverage import Coverage
from genaug_quality.density import Density, mask_density
from genaug_quality.duplicates import Duplicates, nearest, perceptual_hash
from genaug_quality.fidelity import Fidelity, common_size, jpeg_bytes, noise_sigma, resized

LABELS = LabelSpace({1: "road", 4: "car", 9: "tree"})


def smooth(seed, size=(70, 90)):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3)))


def measured(section, samples, groups=None):
    records = section.measure(samples)
    columns = {key: np.stack([np.asarray(r[key]) for r in records]) for key in records[0]}
    groups = np.arange(len(samples)) if groups is None else np.array(groups)
    return Measured(tuple(s.id for s in samples), groups, columns)


# ---------------------------------------------------------------------- density


def flood(mask):
    """Regions of equal ids as sets of pixels, connected over edges and corners."""
    left = {(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x] in LABELS.ids}
    regions = []
    while left:
        todo = [left.pop()]
        region = set(todo)
        while todo:
            y, x = todo.pop()
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            near = {p for p in around if mask[p] == mask[y, x]}
            left -= near
            region |= near
            todo += near
        regions.append(region)
    return regions


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.03, 0.2]))
@settings(max_examples=25)
def test_density_equals_flood_fill(seed, min_area):
    numbers = np.random.default_rng(seed)
    mask = numbers.choice(np.array([1, 4, 9, 255, 7], np.uint8), (6, 8), p=[0.3, 0.3, 0.2, 0.1, 0.1])
    found = mask_density(mask, LABELS, min_area=min_area)
    regions = [r for r in flood(mask) if len(r) >= min_area * mask.size]
    assert found["components"] == len(regions)
    assert found["classes"] == len({mask[next(iter(r))] for r in regions})
    shares = np.array([(mask == i).sum() for i in LABELS.ids if (mask == i).any()]) / np.isin(mask, LABELS.ids).sum()
    assert found["area_entropy"] == pytest.approx(-(shares * np.log(shares)).sum())


def test_a_drawn_mask_has_the_regions_that_were_drawn():
    mask = np.full((40, 40), 255, np.uint8)
    mask[:10] = 1
    mask[20:25, 3:6] = 4
    mask[20:25, 30:36] = 4
    mask[30, 30] = 9  # smaller than 0.05 % of a large image would be, larger than 0.05 % of this one
    assert mask_density(mask, LABELS)["components"] == 4
    assert mask_density(mask, LABELS, min_area=0.001)["components"] == 3


def test_density_of_nothing_is_nan_and_not_an_error():
    nothing = np.full((5, 5), 255, np.uint8)
    section = Density(labels=LABELS)
    records = section.measure([Sample("a", mask=nothing, image=smooth(0, (5, 5))), Sample("b", image=smooth(1))])
    assert all(math.isnan(v) for record in records for v in record.values())
    assert {s.harm for s in section.statistics()} == {"sparser"}


# ---------------------------------------------------------------------- fidelity


def test_fidelity_tells_blur_and_noise():
    image = smooth(1, (128, 130))
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)))
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    plain, soft, rough = Fidelity().measure([Sample(str(i), v) for i, v in enumerate((image, blurred, noisy))])
    for name in ("glcm_score", "glcm_joint_entropy", "jpeg_bytes", "png_bytes", "noise"):
        assert soft[name] < plain[name] < rough[name]
    assert rough["noise"] == pytest.approx(12, rel=0.15)
    assert math.isnan(noise_sigma(image[:3]))


def test_compression_is_of_pixels_not_of_files():
    image = smooth(2)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=2)
    assert jpeg_bytes(image) == len(buffer.getvalue())
    (record,) = Fidelity().measure([Sample("a", image)])
    assert (record["raw_bytes"], record["jpeg_bytes"]) == (70 * 90 * 3, jpeg_bytes(image))
    statistic = next(s for s in Fidelity().statistics() if s.name == "compression_ratio")
    assert (statistic.value, statistic.per, statistic.worse) == ("raw_bytes", "jpeg_bytes", "higher")


def test_the_file_that_pixels_came_from_changes_no_figure(tmp_path):
    """PNG, lossless WebP and BMP of the same pixels; a lossy file has other pixels, and other figures."""
    image = smooth(5, (70, 90))
    kinds = {"png": {}, "webp": {"lossless": True, "exact": True}, "bmp": {}, "jpg": {"quality": 60}}
    records = {}
    for ending, options in kinds.items():
        folder = tmp_path / ending
        folder.mkdir()
        Image.fromarray(image).save(folder / f"a.{ending}", **options)
        source = FolderSource(FolderOptions(images=str(folder), masks=None), LABELS, root=Path())
        (records[ending],) = Fidelity().measure([source.load("a")])
    assert records["png"] == records["webp"] == records["bmp"]
    assert records["jpg"]["png_bytes"] != records["png"]["png_bytes"]
    assert records["png"]["png_bytes"] == (tmp_path / "png" / "a.png").stat().st_size
    ratio = next(s for s in Fidelity().statistics() if s.name == "png_ratio")
    assert (ratio.value, ratio.per, ratio.worse, ratio.harm) == ("raw_bytes", "png_bytes", "higher", "")


def test_sets_of_other_sizes_are_brought_to_one_side():
    section = Fidelity()
    section.prepare(synthetic=Counter({(100, 80): 3}), real=Counter({(200, 160): 2, (120, 90): 1}))
    assert section.side == 80
    assert resized(smooth(0, (200, 160)), 80).shape == (100, 80, 3)
    large, small = Sample("l", smooth(3, (200, 160))), Sample("s", resized(smooth(3, (200, 160)), 80))
    assert section.measure([large]) == section.measure([small])
    both = measured(section, [large])
    assert "short side of 80" in section.conclude(both, both, Rng(0)).notes[0]
    same = Fidelity()
    same.prepare(synthetic=Counter({(100, 80): 3}), real=Counter({(100, 80): 9}))
    assert same.side is None


def test_the_quirk_is_a_choice():
    names = {glcm: [s.name for s in Fidelity(glcm=glcm).statistics()][:2] for glcm in ("both", "released", "joint")}
    assert names == {
        "both": ["glcm_score", "glcm_joint_entropy"],
        "released": ["glcm_score", "compression_ratio"],
        "joint": ["glcm_joint_entropy", "compression_ratio"],
    }


def test_one_thumbnail_spoils_nothing():
    large, thumbnail, line = ([Sample(f"{k}{i}", smooth(i, size)) for i in range(n)]
                              for k, n, size in (("l", 4, (70, 90)), ("t", 1, (8, 8)), ("w", 1, (1, 50))))  # fmt: skip
    alone, among = Fidelity(), Fidelity()
    alone.prepare(synthetic=Counter({(70, 90): 4}), real=Counter({(70, 90): 4}))
    among.prepare(synthetic=Counter({(70, 90): 4, (8, 8): 1, (1, 50): 1}), real=Counter({(70, 90): 4}))
    assert (among.side, among.least) == (70, 64)
    assert among.measure(large) == alone.measure(large)
    both, real = measured(among, [*large, *thumbnail, *line]), measured(among, large)
    assert np.isnan(both.columns["raw_bytes"]).tolist() == [False] * 4 + [True] * 2
    done = among.conclude(both, real, Rng(0))
    assert done.notes[1] == "left out, smaller than 64 pixels: 2 synthetic images: t0, w0"
    assert len(done.notes) == 2
    assert done.figures["left_out"] == {"synthetic": ["t0", "w0"], "real": []}


@pytest.mark.parametrize(
    ("sets", "found"),
    [
        ([{(80, 90): 3, (8, 8): 1}, {(70, 99): 9}], (64, 70)),
        ([{(80, 90): 1, (60, 60): 2}, {(70, 99): 9}], (16, 60)),  # most of one set is below a patch
        ([{(80, 90): 1, (60, 60): 2}, {(70, 99): 9, (3, 9): 2}], (16, 60)),
        ([{(9, 9): 2, (8, 90): 1}, {(70, 99): 9}], (16, 70)),  # no figures of the first set
        ([{(9, 9): 2}, {(8, 90): 1}], (0, 8)),
        ([{(80, 90): 1, (1, 50): 1}], (64, 80)),
    ],
)
def test_common_sizes(sets, found):
    assert common_size(*map(Counter, sets)) == found


def test_images_smaller_than_a_patch_are_counted():
    section = Fidelity()
    both = measured(section, [Sample("a", smooth(0, (60, 90))), Sample("b", smooth(1))])
    assert np.isnan(both.columns["glcm_score"]).tolist() == [True, False]
    assert "1 synthetic images are smaller" in section.conclude(both, both, Rng(0)).notes[0]


# ---------------------------------------------------------------------- coverage


def test_coverage_by_hand():
    section = Coverage(labels=LABELS)
    a, b = np.array([[1, 1, 4, 255]], np.uint8), np.array([[1, 1, 1, 1]], np.uint8)
    made = measured(section, [Sample("b", smooth(0, (1, 4)), b), Sample("c", smooth(0, (1, 4)))])
    real = measured(section, [Sample("a", mask=a), Sample("b", mask=b)])
    assert real.numbers("pixels/1").tolist() == [2, 4]
    assert real.numbers("images/4").tolist() == [1, 0]
    assert real.numbers("labelled").tolist() == [3, 4]
    assert np.isnan(made.numbers("labelled")).tolist() == [False, True]
    assert section.conclude(made, real, Rng(0)).figures == {"missing_classes": ["car"]}


def test_classes_of_one_name_are_told_apart():
    names = [s.by for s in Coverage(labels=LabelSpace({0: "thing", 2: "thing", 3: "sky"})).statistics()]
    assert names == ["thing (0)", "thing (0)", "thing (2)", "thing (2)", "sky", "sky"]


# ---------------------------------------------------------------------- duplicates


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=20)
def test_nearest_equals_all_pairs(seed, n, m):
    numbers = np.random.default_rng(seed)
    a, b = numbers.random((n, 64)) < 0.5, numbers.random((m, 64)) < 0.5
    b[:1] = a[:1]
    block, duplicates_module._BLOCK = duplicates_module._BLOCK, 4
    try:
        place, distance = nearest(a, b)
        own_place, own_distance = nearest(a)
    finally:
        duplicates_module._BLOCK = block
    table = (a[:, None] != b[None]).sum(2)
    assert place.tolist() == table.argmin(1).tolist()
    assert distance.tolist() == table.min(1).tolist()
    own = (a[:, None] != a[None]).sum(2) + 65 * np.eye(n, dtype=int)
    assert own_distance.tolist() == own.min(1).tolist()
    assert own_place.tolist() == (own.argmin(1).tolist() if n > 1 else [-1])


def test_copies_are_found_shown_and_counted():
    images = [smooth(seed, (64, 80)) for seed in range(4)]
    bright = np.clip(images[0].astype(int) + 4, 0, 255).astype(np.uint8)
    section = Duplicates(radius=4)
    assert (perceptual_hash(images[0]) != perceptual_hash(bright)).sum() <= 4
    made = measured(section, [Sample("copy", bright), Sample("x", images[1]), Sample("again", images[1])])
    real = measured(section, [Sample("r0", images[0]), Sample("r2", images[2]), Sample("r3", images[3])])
    conclusion = section.conclude(made, real, Rng(0))
    near = {name: row["near"] for name, row in conclusion.figures["near_duplicates"].items()}
    assert near == {"synthetic among themselves": 2, "synthetic to real": 1, "real among themselves": 0}
    to_real, among = conclusion.shows
    assert [p[:2] for p in to_real.pictures] == [("synthetic", "copy"), ("real", "r0")]
    assert sorted(p[1] for p in among.pictures) == ["again", "x"]  # a pair is shown once
    single = measured(section, [Sample("x", images[1])])
    assert section.conclude(single, single, Rng(0)).figures["near_duplicates"]["real among themselves"]["near"] == 0

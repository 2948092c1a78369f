"""VOC, Cityscapes, KITTI, ADE20K, COCO-Stuff: folders as published, ids as documented."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from genaug.errors import ConfigError, DataError
from genaug.labels import LabelSpace, default_color
from genaug.recipe import load_recipe

RGB = np.full((2, 3, 3), 90)
# What cityscapesScripts' labels.py lists: the 19 classes of evaluation, by labelId.
EVALUATED = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip


def save_palette(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    picture.putpalette([v for i in range(256) for v in default_color(i)])
    picture.save(path)


def test_voc_reads_the_index_of_palette_masks_and_only_the_samples_of_the_split(tmp_path, picture, source):
    root = tmp_path / "VOC2012"
    for name in ("a", "b", "unlisted"):
        picture(root / f"JPEGImages/{name}.jpg", RGB)
    save_palette(root / "SegmentationClass/a.png", [[0, 1, 15], [20, 255, 0]])
    save_palette(root / "SegmentationClass/b.png", [[2, 2, 2], [3, 4, 5]])
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("b\na\n")
    found = list(source("voc21", format="voc", root="VOC2012", split="train"))
    assert [s.id for s in found] == ["b", "a"]
    assert found[1].mask.tolist() == [[0, 1, 15], [20, 255, 0]]
    # The trap: brightness of the colours instead of their indices.
    with Image.open(root / "SegmentationClass/a.png") as opened:
        assert np.asarray(opened.convert("L")).tolist() == [[0, 38, 147], [52, 220, 0]]
    with pytest.raises(ConfigError, match="name one list"):
        source("voc21", format="voc", root="VOC2012")
    with pytest.raises(DataError, match=r"val\.txt cannot be read"):
        source("voc21", format="voc", root="VOC2012", split="val").ids()


def test_voc_masks_in_colours_need_the_colours(tmp_path, picture, source):
    picture(tmp_path / "JPEGImages/a.jpg", RGB)
    picture(tmp_path / "SegmentationClass/a.png", [[[128, 0, 0]] * 3] * 2)
    (tmp_path / "list.txt").write_text("a\n")
    data = {"format": "voc", "root": ".", "labeled": "list.txt"}
    with pytest.raises(DataError, match="the mask is RGB: colours, not class ids"):
        source("voc21", **data).load("a")
    labels = {"names": {0: "background", 1: "plane"}, "colors": {0: [0, 0, 0], 1: [128, 0, 0]}}
    assert source(labels, color_map=True, **data).load("a").mask.tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.fixture
def cityscapes(tmp_path, picture):
    """One image of Aachen with every labelId, in both kinds of files."""
    ids = np.arange(34).reshape(2, 17)
    train = {label: number for number, label in enumerate(EVALUATED)}
    name = "train/aachen/aachen_000000_000019"
    picture(tmp_path / f"leftImg8bit/{name}_leftImg8bit.png", np.zeros((2, 17, 3)))
    picture(tmp_path / f"gtFine/{name}_gtFine_labelIds.png", ids)
    picture(tmp_path / f"gtFine/{name}_gtFine_color.png", np.zeros((2, 17, 4)))
    picture(tmp_path / f"gtFine/{name}_gtFine_labelTrainIds.png", np.vectorize(lambda i: train.get(i, 255))(ids))
    return tmp_path


def test_cityscapes_train_ids_from_either_kind_of_files(cityscapes, source):
    assert dict(enumerate(EVALUATED.values())) == LabelSpace.from_config("cityscapes19").names
    data = {"format": "cityscapes", "root": "."}
    mapped = source("cityscapes19", ids="trainIds", **data).load("aachen_000000_000019")
    stored = source("cityscapes19", ids="trainIds", files="labelTrainIds", **data).load("aachen_000000_000019")
    np.testing.assert_array_equal(mapped.mask, stored.mask)
    assert sorted(set(mapped.mask.ravel().tolist())) == [*range(19), 255]
    every = {i: EVALUATED.get(i, f"void {i}") for i in range(34)}
    assert (source(every, ids="labelIds", **data).load("aachen_000000_000019").mask.ravel() == np.arange(34)).all()


def test_cityscapes_asks_which_ids_and_tells_of_the_wrong_ones(cityscapes, picture, source):
    data = {"format": "cityscapes", "root": "."}
    with pytest.raises(ConfigError, match=r"data\.ids: is missing.*labelIds .* or trainIds"):
        source("cityscapes19", **data)
    with pytest.raises(ConfigError, match="files of trainIds hold no labelIds"):
        source("cityscapes19", ids="labelIds", files="labelTrainIds", **data)
    with pytest.raises(ConfigError, match=r"labels.ignore_index: 15 is one of the ids"):
        source({"names": {0: "road"}, "ignore_index": 15}, ids="trainIds", **data)
    name = "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    picture(cityscapes / name, np.full((2, 17), 255))
    with pytest.raises(DataError, match=r"\(255\).*no labelIds of Cityscapes \(0..33\).*mapped to trainIds before"):
        source("cityscapes19", ids="trainIds", **data).load("aachen_000000_000019")
    with pytest.raises(DataError, match="ids that are no labelIds of Cityscapes"):
        source("cityscapes19", ids="labelIds", **data).load("aachen_000000_000019")


def test_kitti_has_the_ids_of_cityscapes(tmp_path, picture, source):
    picture(tmp_path / "training/image_2/000000_10.png", RGB)
    picture(tmp_path / "training/semantic/000000_10.png", [[7, 33, 0], [26, 10, 11]])
    data = {"format": "kitti", "root": "."}
    mapped = source("cityscapes19", ids="trainIds", **data).load("000000_10").mask
    assert mapped.tolist() == [[0, 18, 255], [13, 255, 2]]
    names = {i: f"c{i}" for i in (0, 7, 10, 11, 26, 33)}
    assert source(names, ids="labelIds", **data).load("000000_10").mask.tolist() == [[7, 33, 0], [26, 10, 11]]


def test_ade20k_as_released_and_with_reduced_zero_label(tmp_path, picture, source):
    picture(tmp_path / "images/training/a.jpg", RGB)
    picture(tmp_path / "annotations/training/a.png", [[0, 1, 2], [150, 0, 149]])
    data = {"format": "ade20k", "root": "."}
    released = source("ade150", reduce_zero_label=False, **data).load("a").mask
    assert released.tolist() == [[0, 1, 2], [150, 0, 149]]
    reduced = source("ade150-zero", reduce_zero_label=True, **data).load("a").mask
    assert reduced.tolist() == [[255, 0, 1], [149, 255, 148]]
    with pytest.raises(ConfigError, match="reduce_zero_label: is missing"):
        source("ade150", **data)
    with pytest.raises(ConfigError, match="makes 0 a class, but the class table ignores 0"):
        source("ade150", reduce_zero_label=True, **data)
    picture(tmp_path / "annotations/training/a.png", [[255, 0, 1], [149, 255, 148]])
    with pytest.raises(DataError, match=r"\(255\).*lowered by one before"):
        source("ade150-zero", reduce_zero_label=True, **data).load("a")


def test_coco_stuff_as_stored_and_as_categories(tmp_path, picture, source):
    picture(tmp_path / "train2017/000000000009.jpg", RGB)
    picture(tmp_path / "stuffthingmaps/train2017/000000000009.png", [[0, 181, 255], [90, 91, 0]])
    data = {"format": "coco-stuff", "images": "train2017", "masks": "stuffthingmaps/train2017"}
    stored = source({i: f"c{i}" for i in range(182)}, ids="stored", **data).load("000000000009").mask
    assert stored.tolist() == [[0, 181, 255], [90, 91, 0]]
    shifted = source({i: f"c{i}" for i in range(1, 183)}, ids="category", **data).load("000000000009").mask
    assert shifted.tolist() == [[1, 182, 255], [91, 92, 1]]
    picture(tmp_path / "stuffthingmaps/train2017/000000000009.png", [[200] * 3] * 2)
    with pytest.raises(DataError, match=r"no ids of COCO-Stuff \(0..181, 255\)"):
        source({0: "person"}, ids="stored", **data).load("000000000009")


def test_black_and_white_masks_and_ids_without_name_are_told_with_files(tmp_path, picture, source):
    for name in ("a", "b"):
        picture(tmp_path / f"JPEGImages/{name}.jpg", RGB)
        picture(tmp_path / f"SegmentationClass/{name}.png", [[0, 255, 255]] * 2)
    (tmp_path / "list.txt").write_text("a\nb\n")
    data = {"format": "voc", "root": ".", "labeled": "list.txt"}
    (problem,) = source({0: "sky", 1: "car"}, **data).check()
    assert "0 and 255 only" in problem
    assert "names {0: ..., 255: ...}" in problem
    picture(tmp_path / "SegmentationClass/b.png", [[0, 9, 0]] * 2)
    (tmp_path / "SegmentationClass/a.png").write_bytes(b"no picture")
    problems = source({0: "sky", 1: "car"}, **data).check()
    assert any("id 9 is not in the class table: 1x: SegmentationClass/b.png" in p for p in problems)
    assert any("cannot be read: 1x: SegmentationClass/a.png" in p for p in problems)


def test_unfetched_files_of_any_layout_are_told(tmp_path, cityscapes, picture, source):
    for kind, pixels in (("images", RGB), ("annotations", np.ones((2, 3)))):
        picture(tmp_path / f"{kind}/training/a.png", pixels)
        (tmp_path / f"{kind}/training/b.png").symlink_to("../../.git/annex/objects/b")
    (cityscapes / "gtFine/train/bonn").symlink_to("not/mounted")
    ade = source("ade150", format="ade20k", root=".", reduce_zero_label=False)
    told = "links to nothing, or other entries that are no file"
    assert [p.split(". ")[0] for p in ade.check()] == [f"{told}: 2x: images/training/b.png, annotations/training/b.png"]
    (problem,) = source("cityscapes19", format="cityscapes", root=".", ids="trainIds").check()
    assert problem.startswith(f"{told}: 1x: gtFine/train/bonn")


# Form -> (options, class table, where image and mask lie, {stored id: id that is read}).
TRAIN = {label: number for number, label in enumerate(EVALUATED)}
FORMS = {
    "cityscapes": (
        {"root": ".", "ids": "trainIds"},
        "cityscapes19",
        ("leftImg8bit/train/x/{}_leftImg8bit.png", "gtFine/train/x/{}_gtFine_labelIds.png"),
        {i: TRAIN.get(i, 255) for i in range(34)},
    ),
    "kitti": (
        {"root": ".", "ids": "trainIds"},
        "cityscapes19",
        ("training/image_2/{}.png", "training/semantic/{}.png"),
        {i: TRAIN.get(i, 255) for i in range(34)},
    ),
    "ade20k": (
        {"root": ".", "reduce_zero_label": True},
        "ade150-zero",
        ("images/training/{}.png", "annotations/training/{}.png"),
        {0: 255, **{i: i - 1 for i in range(1, 151)}},
    ),
    "coco-stuff": (
        {"images": "i", "masks": "m", "ids": "category"},
        {i: f"c{i}" for i in range(1, 183)},
        ("i/{}.png", "m/{}.png"),
        {255: 255, **{i: i + 1 for i in range(182)}},
    ),
}


@pytest.mark.parametrize("form", FORMS)
@given(
    seed=st.integers(0, 2**32), names=st.sets(st.sampled_from(["a", "b.c", "d e", "\u00e4_0", "000012"]), min_size=1)
)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_pixel_comes_in_as_its_layout_says(form, picture, seed, names):
    options, labels, places, meaning = FORMS[form]
    rng, wanted = np.random.default_rng(seed), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            size = rng.integers(1, 6, 2)
            image, mask = rng.integers(0, 256, (*size, 3)), rng.choice([*meaning], size)
            for place, pixels in zip(places, (image, mask), strict=True):
                picture(Path(folder, place.format(name)), pixels)
            wanted[name] = image, np.array([[meaning[i] for i in row] for row in mask.tolist()])
        read = load_recipe({"labels": labels, "data": {"format": form, **options}}, root=Path(folder)).source()
        found = {sample.id: sample for sample in read}
    assert found.keys() == wanted.keys()
    for name, (image, mask) in wanted.items():
        np.testing.assert_array_equal(found[name].image, image)
        np.testing.assert_array_equal(found[name].mask, mask)

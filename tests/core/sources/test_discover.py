"""Folders of strangers: which layouts are understood, and in which order."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genaug.errors import DataError
from genaug.sources.discover import find_lists, find_pairs


def lay(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((1, 1), np.uint8)).save(root / name)
    return root


@pytest.mark.parametrize(
    ("names", "images", "masks", "mask_suffix", "image_suffixes"),
    [
        (["images/a.jpg", "masks/a.png"], "images", "masks", ".png", None),
        (["imgs/a.png", "labels/a_label.png"], "imgs", "labels", "_label.png", None),
        (["JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationObject/a.png"], "JPEGImages", "SegmentationClass",
         ".png", None),
        (["train/a.png", "trainannot/a.png", "val/b.png", "valannot/b.png"], "train", "trainannot", ".png", None),
        (["val/images/b.png", "val/masks/b.png", "train/images/a.png", "train/masks/a.png"], "train/images",
         "train/masks", ".png", None),
        (["images/training/a.jpg", "annotations/training/a.png", "images/validation/b.jpg",
          "annotations/validation/b.png"], "images/training", "annotations/training", ".png", None),
        (["images_train/a.jpg", "labels_train/a.png"], "images_train", "labels_train", ".png", None),
        (["data/a.jpg", "data/a.png", "data/b.jpg", "data/b.png"], "data", "data", ".png", (".jpg",)),
        (["a.png", "a_mask.png", "b.png", "b_mask.png"], ".", ".", "_mask.png", (".png",)),
        (["train-org-img/a.jpg", "train-label-img/a_lab.png"], "train-org-img", "train-label-img", "_lab.png", None),
        (["images/a.jpg", "scribbles/a.png"], "images", "scribbles", ".png", None),
        (["JPEGImages/a.jpg", "pascal_2012_scribble/a.png", "targets/a.png"], "JPEGImages", "targets", ".png", None),
        (["sat/a_sat.jpg", "sat/b_sat.jpg", "gt/a_mask.png", "gt/b_mask.png"], "sat", "gt", "_mask.png", ("_sat.jpg",)),
    ],
)  # fmt: skip
def test_usual_layouts(
    tmp_path: Path, names: list[str], images: str, masks: str, mask_suffix: str, image_suffixes: tuple[str, ...] | None
) -> None:
    found = find_pairs(lay(tmp_path, *names))[0]
    assert (found.images, found.masks) == (tmp_path / images, tmp_path / masks)
    assert (found.mask_suffix, found.image_suffixes, found.recursive) == (mask_suffix, image_suffixes, False)


def test_linked_folders_count_once_under_their_own_names(tmp_path: Path) -> None:
    """As for the source ``folder``: a city may lie on another disk; links back add nothing."""
    disk, root = tmp_path / "disk", tmp_path / "set"
    lay(disk, "images/b/y.png", "masks/b/y.png")
    lay(root, "images/a/x.png", "masks/a/x.png", ".cache/raw/z.png")
    for kind in ("images", "masks"):
        (root / kind / "b").symlink_to(disk / kind / "b")
        (disk / kind / "b/back").symlink_to(root)
    (root / "again").symlink_to(root / "images")
    (root / "nothing").symlink_to(tmp_path / "nowhere")
    found = find_pairs(root)
    assert [(p.images, p.masks, p.ids, p.recursive) for p in found] == [
        (root / "images", root / "masks", ("x", "y"), True)
    ]
    (tmp_path / "linked").symlink_to(root)
    assert find_pairs(tmp_path / "linked")[0].ids == ("x", "y")


def test_cities_are_joined(tmp_path: Path) -> None:
    for city in ("aachen", "bonn"):
        for i in range(2):
            stem = f"{city}/{city}_{i}"
            lay(tmp_path, f"leftImg8bit/train/{stem}_leftImg8bit.png", f"gtFine/train/{stem}_gtFine_labelIds.png")
    (found,) = find_pairs(tmp_path)
    assert (found.images, found.masks) == (tmp_path / "leftImg8bit/train", tmp_path / "gtFine/train")
    assert (found.recursive, found.image_suffixes, found.mask_suffix) == (
        True,
        ("_leftImg8bit.png",),
        "_gtFine_labelIds.png",
    )
    assert found.ids == ("aachen_0", "aachen_1", "bonn_0", "bonn_1")


def test_files_without_partner_are_named(tmp_path: Path) -> None:
    found = find_pairs(lay(tmp_path, "images/a.png", "images/b.png", "images/c.png", "masks/a.png", "masks/z.png"))[0]
    alone = tuple(tmp_path / name for name in ("images/b.png", "images/c.png", "masks/z.png"))
    assert (found.ids, found.single) == (("a",), alone)


def test_files_without_partner_are_named_in_one_folder_too(tmp_path: Path) -> None:
    lay(tmp_path / "two", "a.png", "a_mask.png", "b.png", "c_mask.png")
    (found,) = find_pairs(tmp_path / "two")
    assert (found.ids, [path.name for path in found.single]) == (("a",), ["b.png", "c_mask.png"])
    lay(tmp_path / "endings", "a.jpg", "a.png", "b.jpg", "c.png")
    (found,) = find_pairs(tmp_path / "endings")
    assert (found.ids, [path.name for path in found.single]) == (("a",), ["b.jpg", "c.png"])


def test_files_without_partner_are_named_across_sub_folders(tmp_path: Path) -> None:
    for city in ("aachen", "bonn"):
        lay(tmp_path, f"images/{city}/{city}_1.png", f"images/{city}/{city}_2.png", f"masks/{city}/{city}_1.png")
    (found,) = find_pairs(tmp_path)
    assert found.ids == ("aachen_1", "bonn_1")
    assert [path.name for path in found.single] == ["aachen_2.png", "bonn_2.png"]


def test_stores_and_hidden_folders_are_not_data(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.png", "masks/a.png", ".cache/images/h.png", ".cache/masks/h.png")
    lay(tmp_path, "synthetic/images/a_0.png", "synthetic/masks/a_0.png")
    for name in ("manifest.jsonl", "dataset.json"):
        (tmp_path / "synthetic" / name).touch()
    assert [p.images for p in find_pairs(tmp_path)] == [tmp_path / "images"]


def test_a_folder_without_pairs_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no pictures\. genaug init looks for images and masks in two folders"):
        find_pairs(tmp_path)
    with pytest.raises(DataError, match=r"found pictures: 2 in .*photos"):
        find_pairs(lay(tmp_path, "photos/a.png", "photos/b.png"))
    with pytest.raises(DataError, match="nowhere: does not exist"):
        find_pairs(tmp_path / "nowhere")


def test_lists_that_fit_come_labelled_first(tmp_path: Path) -> None:
    texts = {
        "splits/train.txt": "a\nb\nc\n",
        "splits/labeled.txt": "a\n",
        "splits/unlabeled.txt": "b\nc\n",
        "splits/val.txt": "a\n",
        "other.txt": "images/a.jpg masks/a.png\n",
        "strange.txt": "a\nq\n",
        "empty.txt": "",
        "README.txt": "Written by hand.\n",
    }
    (tmp_path / "splits").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    found = find_lists(tmp_path, ["a", "b", "c"])
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "splits/labeled.txt",
        "splits/train.txt",
        "other.txt",
    ]

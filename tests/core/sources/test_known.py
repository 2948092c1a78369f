"""Published data sets that init knows by their folders."""

import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from genaug.cli import group
from genaug.sources.known import find_known

FORMATS = ("folder", "voc", "cityscapes", "ade20k")
CITY = "train/aachen/aachen_000000_000019"


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(array, np.uint8)).save(path)


@pytest.fixture
def lay(tmp_path):
    """A function that lays out one of the sets, with one sample, in a folder of `tmp_path`."""

    def lay(name):
        root, image = tmp_path / name, np.zeros((1, 2, 3))
        if name.startswith("VOC"):
            save(root / "JPEGImages/a.jpg", image)
            save(root / "SegmentationClass/a.png", [[15, 255]])
            (root / "ImageSets/Segmentation").mkdir(parents=True)
            (root / "ImageSets/Segmentation/train.txt").write_text("a\n")
        elif name == "ADEChallengeData2016":
            save(root / "images/training/a.jpg", image)
            save(root / "annotations/training/a.png", [[0, 150]])
        else:
            save(root / f"leftImg8bit/{CITY}_leftImg8bit.png", image)
            for kind in ("color", "instanceIds", "labelIds"):
                save(root / f"gtFine/{CITY}_gtFine_{kind}.png", [[7, 8]])
        return root

    return lay


@pytest.mark.parametrize(
    ("name", "labels", "data"),
    [
        ("VOC2012", "voc21", {"format": "voc", "split": "train"}),
        ("ADEChallengeData2016", "ade150", {"format": "ade20k", "split": "training", "reduce_zero_label": False}),
        ("streets", "cityscapes19", {"format": "cityscapes", "split": "train", "ids": "trainIds"}),
    ],
)
def test_init_proposes_the_right_source_and_class_table(lay, tmp_path, name, labels, data):
    lay(name)
    for folder, output in ((tmp_path, tmp_path / "above.yaml"), (tmp_path / name, tmp_path / name / "inside.yaml")):
        result = CliRunner().invoke(group, ["init", str(folder), "--output", str(output)])
        assert result.exit_code == 0, result.output
        recipe = yaml.safe_load(output.read_text())
        assert recipe["labels"] == labels
        assert recipe["data"] == {**data, "root": name if folder == tmp_path else "."}
        checked = json.loads(CliRunner().invoke(group, ["check", str(output), "--json"]).stdout)
        assert (checked["data"]["samples"], checked["data"]["problems"]) == (1, [])


def test_problems_of_known_sets_are_told_by_init(lay, tmp_path):
    save(lay("ADEChallengeData2016") / "annotations/training/a.png", [[255, 149]])
    result = CliRunner().invoke(group, ["init", str(tmp_path), "--output", str(tmp_path / "recipe.yaml")])
    assert result.exit_code == 1
    assert "id 255 is not in the class table" in result.stderr


def test_lookalikes_are_left_to_the_search_for_pairs(lay, tmp_path):
    assert find_known(tmp_path / "nowhere", FORMATS) is None
    root = lay("VOC2012")
    assert find_known(root, ("folder",)) is None
    assert find_known(root.rename(tmp_path / "my_flowers"), FORMATS) is None  # VOC's folders, other classes
    cities = lay("streets")
    assert find_known(cities, FORMATS).title == "Cityscapes"
    (cities / f"gtFine/{CITY}_gtFine_labelIds.png").unlink()
    assert find_known(cities, FORMATS) is None

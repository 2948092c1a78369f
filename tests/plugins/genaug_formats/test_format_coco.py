"""COCO panoptic: segments by colour, categories by JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.errors import ConfigError, DataError
from genaug_formats.coco_panoptic import segment_ids

DATA = {"format": "coco-panoptic", "images": "train", "masks": "panoptic", "annotations": "panoptic.json"}
CATEGORIES = [{"id": 1, "name": "person", "isthing": 1}, {"id": 44, "name": "bottle"}, {"id": 4000, "name": "wall"}]


def colors(segments):
    """Segment ids to colours, digit by digit in base 256."""
    return [[[s % 256, s // 256 % 256, s // 65536] for s in row] for row in segments]


@pytest.fixture
def write(tmp_path, picture, write_json):
    """Write images and segments: id -> (ids ``[H][W]``, {segment: category})."""

    def write(**samples):
        images, annotations = [], []
        for number, (name, (segments, categories)) in enumerate(samples.items()):
            height, width = len(segments), len(segments[0])
            picture(tmp_path / f"train/{name}.jpg", np.zeros((height, width, 3)))
            picture(tmp_path / f"panoptic/{name}.png", colors(segments))
            images.append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
            info = [
                {"id": s, "category_id": c, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0}
                for s, c in categories.items()
            ]
            annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": info})
        content = {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES}
        write_json(tmp_path / "panoptic.json", content)

    return write


def test_segments_become_the_classes_of_their_categories(write, source):
    write(b=([[70000, 70000, 0], [513, 3, 16777215]], {70000: 1, 513: 44, 3: 1, 16777215: 44}), a=([[5]], {5: 44}))
    read = source({1: "person", 44: "bottle"}, **DATA)
    assert read.ids() == ("b", "a")
    assert read.load("b").mask.tolist() == [[1, 1, 255], [44, 1, 44]]
    assert read.load("a").mask.tolist() == [[44]]
    assert read.check() == []


def test_categories_above_255_go_by_name(write, source):
    write(a=([[7, 8]], {7: 4000, 8: 1}))
    assert source({0: "person", 9: "wall"}, match="name", **DATA).load("a").mask.tolist() == [[9, 0]]
    with pytest.raises(DataError, match=r"category 4000 \(wall\) is not in the class table.*match: name"):
        source({1: "person"}, **DATA).load("a")
    read = source({1: "person"}, others="ignore", **DATA)
    assert read.load("a").mask.tolist() == [[255, 1]]
    assert "category 4000 (wall) is not in the class table: 1x: panoptic/a.png" in str(read.survey().notes[0])
    with pytest.raises(ConfigError, match="share the name 'wall'"):
        source({0: "wall", 9: "wall"}, match="name", **DATA)


def test_a_table_numbered_otherwise_is_noted(write, source):
    write(a=([[7]], {7: 1}))
    (note,) = source({0: "person", 1: "bottle"}, **DATA).survey().notes
    assert "1 is 'person' there and 'bottle' here" in str(note)
    assert "data.match to name" in str(note)
    assert source({0: "bottle", 1: "person"}, **DATA).survey().notes == []


def test_files_that_do_not_belong_together_are_told_by_name(tmp_path, write, picture, source):
    write(a=([[7, 9]], {7: 1}), b=([[7, 7]], {7: 1, 9: 1}))
    labels = {1: "person"}
    with pytest.raises(DataError, match=r"panoptic/a.png \(9\): the file has segments that the JSON does not name"):
        source(labels, **DATA).load("a")
    survey = source(labels, **DATA).survey()
    assert [str(note) for note in survey.notes] == [
        "the JSON names segments that no pixel has: 1x: panoptic/b.png (9)."
    ]
    picture(tmp_path / "panoptic/a.png", [[7, 7]])  # ids instead of colours
    with pytest.raises(DataError, match=r"the image is gray.*R \+ 256 G \+ 65536 B"):
        source(labels, **DATA).load("a")
    (tmp_path / "train/b.jpg").unlink()
    assert any("images that do not exist: 1x: train/b.jpg" in p for p in source(labels, **DATA).check())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read"),
        ('{"images": []}', "is no COCO panoptic file: KeyError"),
        ('{"images": [], "annotations": [{"category_id": 3, "id": 1}], "categories": []}', "no COCO panoptic file"),
        ('{"images": [], "annotations": [], "categories": []}', "has no annotation"),
        (
            '{"images": [{"id": 1, "file_name": "../a.jpg"}], "annotations": [{"image_id": 1, "file_name": "a.png", '
            '"segments_info": []}], "categories": []}',
            r"outside its folders: \.\./a.jpg",
        ),
    ],
)
def test_damaged_json_is_told(tmp_path, source, content, told):
    (tmp_path / "panoptic.json").write_text(content)
    with pytest.raises(DataError, match=told):
        source({1: "person"}, **DATA).ids()


def test_names_and_ids_that_occur_twice_are_refused(tmp_path, write, write_json, source):
    """Two images with one file of segments would both get the segments of the later."""
    write(a=([[7]], {7: 1}), b=([[7]], {7: 44}))
    content = json.loads((tmp_path / "panoptic.json").read_text("utf-8"))
    content["annotations"][1]["file_name"] = "./a.png"
    content["annotations"][0]["segments_info"] *= 2
    content["images"].append({"id": 0, "file_name": "c.jpg"})
    write_json(tmp_path / "panoptic.json", content)
    (problem,) = source({1: "person", 44: "bottle"}, **DATA).check()
    assert "annotations that name one file of segments: a.png" in problem
    assert "images of one id: 0" in problem
    content["annotations"][1]["file_name"] = "./b.png"
    content["images"].pop()
    write_json(tmp_path / "panoptic.json", content)
    with pytest.raises(DataError, match=r"segments of one id: a\.png \(7\)"):
        source({1: "person", 44: "bottle"}, **DATA).ids()
    content["annotations"][0]["segments_info"].pop()
    write_json(tmp_path / "panoptic.json", content)
    assert source({1: "person", 44: "bottle"}, **DATA).load("b").mask.tolist() == [[44]]


def test_a_list_chooses_samples(tmp_path, write, source):
    write(a=([[7]], {7: 1}), b=([[7]], {7: 1}), c=([[7]], {7: 1}))
    (tmp_path / "list.txt").write_text("c\nimages/a.jpg\n")
    assert source({1: "person"}, labeled="list.txt", **DATA).ids() == ("c", "a")
    (tmp_path / "list.txt").write_text("c\nnone\nc\n")
    problems = source({1: "person"}, labeled="list.txt", **DATA).check()
    assert any("do not exist: 1x: none (line 2)" in p for p in problems)
    assert any("listed twice: 1x: c (line 3)" in p for p in problems)


@given(st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=12))
@settings(max_examples=30)
def test_every_24_bit_id_is_read_from_its_colour(ids):
    assert segment_ids(np.array(colors([ids]), np.uint8)).tolist() == [ids]

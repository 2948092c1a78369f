import numpy as np
import pytest

from genaug.errors import DataError

LABELS = {0: "sky", 1: "road"}


@pytest.fixture
def write(tmp_path, picture):
    for name in ("a", "b"):
        picture(tmp_path / f"VOC/JPEGImages/{name}.jpg", np.zeros((1, 3, 3)))
        picture(tmp_path / f"VOC/SegmentationClass/{name}.png", [[0, 1, 255]])

    def write(*lines):
        (tmp_path / "list.txt").write_text("\n".join(lines), "utf-8")
        return {"format": "text-list", "root": "VOC", "list": "list.txt"}

    return write


def test_labelled_and_unlabelled_lines(write, source):
    labelled = "JPEGImages/b.jpg SegmentationClass/b.png"
    assert source(LABELS, **write(labelled)).load("b").mask.tolist() == [[0, 1, 255]]
    data = write(labelled, "JPEGImages/a.jpg None")
    read = source(LABELS, masks="optional", **data)
    assert [(s.id, s.mask is None) for s in read] == [("b", False), ("a", True)]
    assert read.check() == []
    (problem,) = source(LABELS, **data).check()
    assert "without mask: 1x: JPEGImages/a.jpg None (line 2)" in problem
    assert "masks: optional" in problem


def test_masks_of_unlabelled_lists_are_not_opened(tmp_path, write, source):
    data = write("JPEGImages/a.jpg SegmentationClass/nowhere.png", "JPEGImages/b.jpg")
    read = source(LABELS, masks="unused", **data)
    assert [s.mask for s in read] == [None, None]
    assert read.check() == []
    assert any(
        "masks that do not exist: 1x: VOC/SegmentationClass/nowhere.png" in p for p in source(LABELS, **data).check()
    )


def test_lines_that_say_something_else_are_told(write, source):
    good = "JPEGImages/a.jpg SegmentationClass/a.png"
    problems = source(LABELS, **write(good, "JPEGImages/b.jpg", "a b c", f"{good}")).check()
    assert any("not 'image mask': 2x: JPEGImages/b.jpg (line 2), a b c (line 3)" in p for p in problems)
    assert any("listed twice: 1x" in p for p in problems)
    with pytest.raises(DataError, match="no usable line"):
        source(LABELS, **write("a b c")).ids()


def test_a_tab_allows_spaces_in_names(tmp_path, write, picture, source):
    picture(tmp_path / "VOC/JPEGImages/c d.jpg", np.zeros((1, 1, 3)))
    picture(tmp_path / "VOC/SegmentationClass/c d.png", [[1]])
    data = write("JPEGImages/c d.jpg\tSegmentationClass/c d.png")
    assert source(LABELS, **data).load("c d").mask.tolist() == [[1]]

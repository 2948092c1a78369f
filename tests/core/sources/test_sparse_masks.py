"""Masks of ids with few labelled pixels, as scribbles and points are: nothing special, but told in their own words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from genaug.errors import DataError
from genaug.labels import LabelSpace
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug.sources.survey import Survey, count_ids, count_lost, find_strokes

LABELS = LabelSpace({0: "ground", 1: "tree", 2: "car"})
Write = Callable[..., Path]


def folder(root: Path, labels: LabelSpace = LABELS, **options: Any) -> FolderSource:
    return FolderSource(FolderOptions(**{"images": "images", "masks": "masks", **options}), labels, root=root)


def scribbled(*pixels: tuple[int, int, int], size: tuple[int, int] = (12, 10)) -> np.ndarray:
    """A mask with the given ``(class, y, x)`` and 255 everywhere else."""
    mask = np.full(size, 255, np.uint8)
    for class_id, y, x in pixels:
        mask[y, x] = class_id
    return mask


# ---------------------------------------------------------------------- strokes


def flooded(mask: np.ndarray, ignore: int) -> list[int]:
    """Strokes of every id, found by filling one after the other."""
    counts, left = [0] * 256, {(int(y), int(x)) for y, x in np.argwhere(mask != ignore)}
    while left:
        todo = [left.pop()]
        counts[mask[todo[0]]] += 1
        while todo:
            y, x = todo.pop()
            for there in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if there in left and mask[there] == mask[y, x]:
                    left.remove(there)
                    todo.append(there)
    return counts


@given(
    mask=hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.sampled_from([0, 3, 255])
    ),
    ignore=st.sampled_from([255, 0, 9]),
)
def test_strokes_are_what_is_connected(mask: np.ndarray, ignore: int) -> None:
    strokes = find_strokes(mask, ignore)
    if 4 * np.count_nonzero(mask != ignore) > mask.size:
        assert strokes is None
    else:
        assert strokes is not None
        assert strokes.count().tolist() == flooded(mask, ignore)


def test_a_long_winding_stroke_is_one() -> None:
    mask = np.full((101, 201), 255, np.uint8)
    mask[::5] = 7
    for start in range(0, 100, 10):
        mask[start : start + 6, 0] = mask[start + 5 : start + 10, -1] = 7
    strokes = find_strokes(mask, 255)
    assert strokes is not None
    assert strokes.count()[7] == strokes.count().sum() == 1


@settings(max_examples=40, deadline=None)
@given(
    mask=hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.sampled_from([0, 3, 255, 255])
    ),
    size=st.tuples(st.integers(1, 48), st.integers(1, 48)),
    keep=st.integers(1, 30),
)
def test_what_is_lost_is_what_torch_leaves_no_pixel_of(mask: np.ndarray, size: tuple[int, int], keep: int) -> None:
    import torch

    mask[np.arange(mask.size).reshape(mask.shape) % keep > 0] = 255
    strokes = find_strokes(mask, 255)
    lost = count_lost(mask, strokes, size)

    def left(pixels: np.ndarray) -> bool:
        there = torch.from_numpy(pixels.astype(np.uint8))[None, None]
        return bool(torch.nn.functional.interpolate(there, size, mode="nearest").any())

    assert lost.classes == tuple(int(i) for i in np.unique(mask) if not left(mask == i))
    counts = [0] * 256
    if strokes is not None:
        for first in np.unique(strokes.first):
            stroke = np.zeros_like(mask)
            own = strokes.first == first
            stroke[strokes.y[own], strokes.x[own]] = 1
            counts[mask[strokes.y[first], strokes.x[first]]] += not left(stroke)
    assert lost.strokes.tolist() == counts


def test_only_sets_with_few_labelled_pixels_are_sparse() -> None:
    def survey(labelled: int) -> Survey:
        survey, mask = Survey(), np.full((10, 10), 255, np.uint8)
        mask.ravel()[:labelled] = 1
        strokes = find_strokes(mask, 255)
        counts = None if strokes is None else strokes.count()
        survey.add(image=True, size=mask.shape, pixels=count_ids(mask), strokes=counts)
        return survey

    assert [survey(n).is_sparse(255) for n in (0, 1, 25, 26, 100)] == [False, True, True, False, False]
    assert not Survey().is_sparse(255)
    dense, sparse = survey(40), survey(4)
    for one in (dense, sparse):
        one.note_single_class(["a"], 255)
        one.note_single_class([], 255)
    assert (len(dense.notes), len(sparse.notes)) == (0, 1)


# ---------------------------------------------------------------------- folders of scribbles


def test_index_files_that_are_nearly_all_ignored_are_read_as_they_are(write_pairs: Write) -> None:
    masks = {"a": scribbled((0, 0, 0), (1, 11, 9)), "b": scribbled((2, 5, 5), (2, 6, 6), (0, 0, 9))}
    source = folder(write_pairs(masks))
    survey = source.survey()
    assert (survey.problems, survey.notes, survey.is_sparse(255)) == ([], [], True)
    assert survey.strokes[[0, 1, 2, 255]].tolist() == [2, 1, 1, 0]
    assert survey.masks_with[[0, 1, 2]].tolist() == [2, 1, 1]
    for name, mask in masks.items():
        loaded = source.load(name)
        np.testing.assert_array_equal(loaded.mask, mask)
        assert loaded.image is not None


def test_colours_work_too_with_one_for_unlabelled(write_pairs: Write) -> None:
    from PIL import Image

    masks = {"a": scribbled((0, 0, 0), (1, 11, 9))}
    root = write_pairs(masks)
    labels = LabelSpace(LABELS.names, colors={0: (0, 0, 255), 1: (0, 99, 0), 2: (9, 9, 9), 255: (255, 255, 255)})
    Image.fromarray(labels.colorize(masks["a"])).save(root / "masks" / "a.png")
    source = folder(root, labels, color_map=True)
    assert source.check() == []
    np.testing.assert_array_equal(source.load("a").mask, masks["a"])


def test_an_image_without_scribble_is_noted_and_a_set_without_any_a_problem(write_pairs: Write) -> None:
    root = write_pairs({"a": scribbled((0, 0, 0), (1, 1, 5)), "b": scribbled()})
    survey = folder(root).survey()
    assert survey.problems == []
    assert list(map(str, survey.notes)) == ["masks whose every pixel is ignored (id 255): 1x: masks/b.png."]
    (line,) = folder(write_pairs({"a": scribbled()})).check()
    assert line.startswith("every pixel of every mask is ignored, so there is nothing to learn from: 2x: masks/a.png")


def test_scribbles_of_one_class_only_are_noted(write_pairs: Write) -> None:
    masks = {"a": scribbled((0, 0, 0), (1, 1, 5)), "b": scribbled((2, 0, 0), (2, 8, 8)), "c": scribbled((1, 3, 3))}
    survey = folder(write_pairs(masks)).survey()
    assert survey.problems == []
    (note,) = map(str, survey.notes)
    assert note.startswith("scribbles of one class only: 2x: masks/b.png, masks/c.png. Beside the other classes")
    dense = folder(
        write_pairs({"a": np.zeros((12, 10), np.uint8), "b": np.ones((12, 10), np.uint8)}), labeled="use.txt"
    )
    (dense.layout.root / "use.txt").write_text("a\nb\n")
    assert dense.survey().notes == []


def test_masks_that_lose_a_class_are_named_where_a_generator_says_how_small_it_sees_them(write_pairs: Write) -> None:
    # Of every third row and column of 12 x 9 pixels the first is seen.
    masks = {
        "a": scribbled((0, 0, 0), (1, 1, 3), (1, 1, 4), (2, 4, 4), size=(12, 9)),
        "b": scribbled((0, 3, 3), (0, 4, 7), (1, 5, 5), (1, 9, 6), size=(12, 9)),
    }
    source = folder(write_pairs(masks))
    plain = source.survey()
    assert (plain.notes, plain.lost, plain.lost_strokes) == ([], {}, None)
    source.seen_at = lambda size: (size[0] // 3, size[1] // 3)
    survey = source.survey()
    assert survey.problems == []
    assert survey.lost == {"masks/a.png": (1, 2)}
    assert survey.lost_strokes is not None
    assert survey.lost_strokes[[0, 1, 2, 255]].tolist() == [1, 2, 1, 0]
    assert survey.strokes[[0, 1, 2]].tolist() == [3, 3, 1]
    (note,) = map(str, survey.notes)
    assert note.startswith("classes of which no pixel is left at the size of the images to make: 1x: masks/a.png (tree")
    assert "(tree, car). They are no labels of those images." in note


def test_dense_masks_lose_classes_too_and_unknown_ids_are_nothing_to_lose(write_pairs: Write) -> None:
    mask = np.zeros((12, 9), np.uint8)
    mask[1, 1], mask[2, 2], mask[4, 4] = 1, 77, 255
    source = folder(write_pairs({"a": mask}))
    source.seen_at = lambda _: (4, 3)
    survey = source.survey()
    assert survey.lost == {"masks/a.png": (1, 77, 255)}
    assert survey.lost_strokes is not None
    assert not survey.lost_strokes.any()
    (note,) = map(str, survey.notes)
    assert "1x: masks/a.png (tree). They" in note


def test_one_class_in_the_whole_set_is_a_problem(write_pairs: Write) -> None:
    (line,) = folder(write_pairs({"a": scribbled((0, 0, 0)), "b": scribbled((0, 3, 3))})).check()
    assert "one class would remain" in line


def test_a_scribble_of_another_size_than_its_image_is_a_problem(write_pairs: Write) -> None:
    from PIL import Image

    root = write_pairs({"a": scribbled((0, 0, 0), (1, 1, 5)), "b": scribbled((0, 0, 0), (1, 1, 5))})
    Image.fromarray(scribbled((0, 0, 0), (1, 12, 5), size=(13, 10))).save(root / "masks" / "b.png")
    (line,) = folder(root).check()
    assert "image and mask differ in size (width x height): 1x: images/b.png (10x12) and masks/b.png (10x13)" in line
    with pytest.raises(DataError, match="differ in size"):
        folder(root).load("b")

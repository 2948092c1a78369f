"""What class ids tell of a data set: ignored pixels, ids outside the table, tables that start elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genaug.errors import DataError
from genaug.labels import LabelSpace
from genaug.sources import checked
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource

LABELS = LabelSpace({0: "ground", 1: "tree", 2: "car"})
Write = Callable[..., Path]


def folder(root: Path, labels: LabelSpace = LABELS, **options: Any) -> FolderSource:
    return FolderSource(FolderOptions(**{"images": "images", "masks": "masks", **options}), labels, root=root)


def mask(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


# ---------------------------------------------------------------------- the ignore index


def test_black_and_white_masks_are_caught(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0, 255, 255, 255), "b": mask(0, 0, 0, 0)})
    two = LabelSpace({0: "ground", 1: "tree"})
    (line,) = folder(root, two).check()
    assert "the masks hold 0 and 255 only, and 255 (38% of the pixels) is the ignore index" in line
    assert "names {0: ..., 255: ...}, ignore_index 254" in line
    (line,) = folder(root, LabelSpace({0: "ground", 1: "tree"}, ignore_index=254)).check()
    assert "If 255 means the foreground" in line
    assert folder(root, LabelSpace({0: "ground", 255: "tree"}, ignore_index=254)).check() == []


def test_the_ignore_index_beside_two_classes_is_no_problem(write_pairs: Write) -> None:
    assert folder(write_pairs({"a": mask(0, 255), "b": mask(1, 255)})).check() == []


def test_data_without_any_labelled_pixel_are_a_problem(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(255, 255), "b": mask(255)})
    (line,) = folder(root).check()
    assert line == (
        "every pixel of every mask is ignored, so there is nothing to learn from: 2x: masks/a.png, masks/b.png. "
        "Ignored is the id 255. If it means something that is seen, make it a class: names {0: ..., 255: ...}, "
        "ignore_index 254."
    )
    zero = LabelSpace({1: "ground"}, ignore_index=0)
    (line,) = folder(write_pairs({"a": mask(0, 0), "b": mask(0)}), zero).check()
    assert "Ignored is the id 0. If it means something that is seen, make it a class and name another" in line
    unreadable = write_pairs({"a": mask(0), "b": mask(0)})
    for name in "ab":
        (unreadable / "masks" / f"{name}.png").write_bytes(b"torn")
    assert len(folder(unreadable, zero).check()) == 1


def test_some_masks_without_a_labelled_pixel_are_noted(write_pairs: Write, caplog: pytest.LogCaptureFixture) -> None:
    root = write_pairs({"a": mask(255, 255), "b": mask(0, 1, 255)})
    survey = folder(root).survey()
    told = "masks whose every pixel is ignored (id 255): 1x: masks/a.png."
    assert (survey.problems, list(map(str, survey.notes))) == ([], [told])
    checked(folder(root))
    assert caplog.messages == [f"data: {told}"]


# ---------------------------------------------------------------------- ids outside the table that may be ignored


def forgiving(root: Path, labels: LabelSpace = LABELS) -> FolderSource:
    options = FolderOptions(images="images", masks="masks")
    return FolderSource(options, labels, root=root, ignore_unknown_ids=True)


def test_unknown_ids_may_be_ignored_but_never_silently(write_pairs: Write, caplog: pytest.LogCaptureFixture) -> None:
    root = write_pairs({"a": mask(0, 77, 78), "b": mask(1, 255, 77), "c": mask(0, 1, 2)})
    source = checked(forgiving(root))
    survey = source.survey()
    notes = [
        "id 77 is not in the class table: 2x: masks/a.png, masks/b.png. Ignored, as the recipe's generator asks "
        "(set to 255).",
        "id 78 is not in the class table: 1x: masks/a.png. Ignored, as the recipe's generator asks (set to 255).",
    ]
    assert (survey.problems, list(map(str, survey.notes))) == ([], notes)
    assert caplog.messages == [f"data: {note}" for note in notes]
    assert survey.pixels[[0, 1, 2, 77, 78, 255]].tolist() == [2, 2, 1, 0, 0, 4]
    assert [source.load(i).mask.tolist() for i in "abc"] == [  # type: ignore[union-attr]
        [[0, 255, 255]],
        [[1, 255, 255]],
        [[0, 1, 2]],
    ]
    with pytest.raises(DataError, match=r"ids outside the class table \(77, 78\)"):
        folder(root).load("a")


def test_many_unknown_ids_are_one_note_and_nothing_else_left_is_a_problem(write_pairs: Write) -> None:
    survey = forgiving(write_pairs({"a": np.arange(200, dtype=np.uint8)[None]})).survey()
    (note,) = map(str, survey.notes)
    assert "197 ids outside the class table (3-199): 1x: masks/a.png. Ignored, as the recipe's" in note
    survey = forgiving(write_pairs({"a": mask(77, 78)})).survey()
    assert "every pixel of every mask is ignored" in str(survey.problems[0])
    assert len(survey.notes) == 2


# ---------------------------------------------------------------------- tables that start at another id


def test_ade_masks_as_released_and_lowered_by_one_fit_their_own_table_only(write_pairs: Write) -> None:
    released, lowered = LabelSpace.from_config("ade150"), LabelSpace.from_config("ade150-zero")
    root = write_pairs({"a": mask(0, 1, 3, 5), "b": mask(150, 2)})
    assert folder(root, released).check() == []
    loaded = folder(root, released).load("a").mask
    assert loaded is not None
    assert [released.names[int(i)] for i in loaded[0, 1:]] == ["wall", "sky", "tree"]
    (line,) = folder(root, lowered).check()
    assert line.startswith("id 150 is not in the class table: 1x: masks/b.png. Allowed: 0-149 and the ignore index 255")
    assert line.endswith("number the classes from 1, with ignore_index 0 (labels: ade150).")
    root = write_pairs({"a": mask(255, 0, 2, 4), "b": mask(149, 1)})
    assert folder(root, lowered).check() == []
    (line,) = folder(root, released).check()
    assert line.startswith("id 255 is not in the class table: 1x: masks/a.png. Allowed: 1-150 and the ignore index 0.")
    assert line.endswith("number the classes from 0, with ignore_index 255 (labels: ade150-zero).")


def test_own_tables_one_id_off_get_the_same_advice_without_a_named_set(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0, 1, 2, 3)})
    (line,) = folder(root, LABELS).check()
    assert line.endswith("number the classes from 1, with ignore_index 0.")

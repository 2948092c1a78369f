"""Whole folders: what belongs together, what lists may say, what is told of a data set."""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from genaug.errors import DataError
from genaug.labels import LabelSpace
from genaug.sources import checked
from genaug.sources.base import Source
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug.sources.listing import below, read_list, strip_suffix
from genaug.sources.survey import Finding, summarize
from genaug.types import Sample

LABELS = LabelSpace({0: "ground", 1: "tree", 2: "car"})
Write = Callable[..., Path]


def folder(root: Path, labels: LabelSpace = LABELS, **options: Any) -> FolderSource:
    return FolderSource(FolderOptions(**{"images": "images", "masks": "masks", **options}), labels, root=root)


def mask(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L" if "mask" in name or "gtFine" in name else "RGB", (2, 1)).save(root / name)
    return root


# ---------------------------------------------------------------------- without a list


def test_ids_are_sorted_and_hidden_files_do_not_count(write_pairs: Write) -> None:
    root = write_pairs({"b": mask(0, 1), "a": mask(0, 2), "c": mask(1, 255)})
    (root / "images" / "._a.png").write_bytes(b"left by a file manager")
    (root / "images" / "notes.txt").write_text("mine")
    source = folder(root)
    assert list(source.ids()) == ["a", "b", "c"]
    survey = source.survey()
    assert (survey.problems, survey.samples, survey.images, survey.masks) == ([], 3, 3, 3)
    assert (survey.ids, dict(survey.sizes)) == ((0, 1, 2, 255), {(1, 2): 3})
    assert survey.pixels[[0, 1, 2, 255]].tolist() == [2, 2, 1, 1]
    assert survey.masks_with[[0, 1, 2, 255]].tolist() == [2, 2, 1, 1]


def test_every_problem_is_told_at_once(write_pairs: Write) -> None:
    root = write_pairs({name: mask(0, 1) for name in "abcdefgh"})
    Image.new("L", (4, 4)).save(root / "masks" / "a.png")
    Image.new("L", (5, 1)).save(root / "masks" / "b.png")
    Image.fromarray(mask(7, 9)).save(root / "masks" / "c.png")
    Image.fromarray(mask(7, 1)).save(root / "masks" / "d.png")
    (root / "masks" / "e.png").unlink()
    (root / "images" / "f.png").unlink()
    Image.new("RGB", (2, 1)).save(root / "images" / "g.jpg")
    (root / "images" / "h.png").write_bytes(b"")
    problems = folder(root).check()
    assert len(problems) == 7
    expected = [
        "image and mask differ in size (width x height): 2x: images/a.png (2x1) and masks/a.png (4x4), "
        "images/b.png (2x1) and masks/b.png (5x1). Resize",
        "id 7 is not in the class table: 2x: masks/c.png, masks/d.png. Allowed: 0-2 and the ignore index 255.",
        "id 9 is not in the class table: 1x: masks/c.png.",
        "images without mask: 1x: images/e.png. Add the files, or name the samples to use in a list file",
        "masks without image: 1x: masks/f.png.",
        "images that share a name: 1x: g (images/g.jpg, images/g.png).",
        "the file cannot be read: 1x: images/h.png (not a picture).",
    ]
    for line in expected:
        assert any(problem.startswith(line) for problem in problems), line


def test_a_check_gate_lists_all_problems_or_passes_the_source_on(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0, 1), "b": mask(3, 3)})
    with pytest.raises(DataError, match="data: 1 problem in the data") as error:
        checked(folder(root))
    assert len(error.value.problems) == 1
    good = folder(write_pairs({"b": mask(0, 2)}))
    assert checked(good) is good


def test_long_lists_of_files_are_cut(write_pairs: Write) -> None:
    root = write_pairs({f"s{i:02}": mask(9, 0) for i in range(12)})
    (problem,) = folder(root).survey().problems
    assert str(problem).startswith(
        "id 9 is not in the class table: 12x: masks/s00.png, masks/s01.png, masks/s02.png and 9 more."
    )
    every = tuple(f"masks/s{i:02}.png" for i in range(12))
    assert problem.subjects == every
    assert ", ".join(every) in problem.text(None)
    with pytest.raises(DataError, match="'genaug check RECIPE --all' names every file"):
        checked(folder(root))


def test_many_foreign_ids_are_one_problem(write_pairs: Write) -> None:
    (line,) = folder(write_pairs({"a": np.arange(200, dtype=np.uint8)[None]})).check()
    assert "the masks hold 197 ids outside the class table (3-199): 1x: masks/a.png" in line


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"images": "nowhere"}, "the folder of images nowhere does not exist"),
        ({"masks": "images/a.png"}, "the folder of masks images/a.png is no folder"),
        (
            {"image_suffixes": [".gif"]},
            r"images holds no image that ends in \.gif \(found: 1 \.png\)\. Set image_suffixes",
        ),
        ({"mask_suffix": "_label.png"}, r"masks holds no mask that ends in _label\.png \(found: 1 \.png\)"),
        ({"labeled": "gone.txt"}, "the list .*gone.txt cannot be read"),
    ],
)
def test_folders_that_hold_nothing_are_one_clear_error(write_pairs: Write, options: dict[str, Any], told: str) -> None:
    root = write_pairs({"a": mask(0)})
    with pytest.raises(DataError, match=told):
        folder(root, **options).ids()
    (line,) = folder(root, **options).check()
    assert re.search(told, line)


def test_images_alone_and_masks_alone(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0, 1)})
    images, masks = folder(root, masks=None), folder(root, images=None)
    assert images.load("a").mask is None
    assert masks.load("a").image is None
    assert images.check() == masks.check() == []
    assert (images.survey().masks, masks.survey().images) == (0, 0)
    with pytest.raises(ValidationError, match="name a folder of images, of masks, or both"):
        FolderOptions()
    with pytest.raises(ValidationError, match="no folder of masks is named"):
        FolderOptions(images="a", color_map=True)


def test_one_folder_for_both_and_long_endings(tmp_path: Path) -> None:
    touch(tmp_path, "all/a.png", "all/a_mask.png", "all/b.png", "all/b_mask.png")
    source = folder(tmp_path, images="all", masks="all", mask_suffix="_mask.png")
    assert (list(source.ids()), source.check()) == (["a", "b"], [])


def test_linked_sub_folders_count_once(tmp_path: Path) -> None:
    """A city may lie on another disk; links to what was seen, or back to the top, add nothing."""
    root = touch(tmp_path / "set", "images/a/x.png", "masks/a/x.png")
    store = touch(tmp_path / "store", "images/y.png", "masks/y.png")
    for kind in ("images", "masks"):
        (root / kind / "b").symlink_to(store / kind)
        (root / kind / "a/top").symlink_to(root / kind)
        (root / kind / "0").symlink_to(root / kind / "a")
        (store / kind / "again").symlink_to(".")
    source = folder(root, recursive=True)
    assert (list(source.ids()), source.check()) == (["x", "y"], [])
    assert source.load("x").meta["image_file"] == "images/a/x.png"
    assert source.load("y").meta["mask_file"] == "masks/b/y.png"
    (root / "list.txt").write_text("b/y.png\n")
    assert (list(folder(root, recursive=True, labeled="list.txt").ids()), source.check()) == (["y"], [])
    with pytest.raises(DataError, match="recursive: true"):
        folder(root).ids()


def test_cityscapes_as_it_comes(tmp_path: Path) -> None:
    for stem in ("aachen/aachen_000_019", "bonn/bonn_000_007"):
        touch(tmp_path, f"leftImg8bit/train/{stem}_leftImg8bit.png", f"gtFine/train/{stem}_gtFine_labelTrainIds.png")
        touch(tmp_path, f"gtFine/train/{stem}_gtFine_color.png")
    options: dict[str, Any] = {
        "images": "leftImg8bit/train",
        "masks": "gtFine/train",
        "image_suffixes": ["_leftImg8bit.png"],
        "mask_suffix": "_gtFine_labelTrainIds.png",
    }
    source = folder(tmp_path, recursive=True, **options)
    assert (list(source.ids()), source.check()) == (["aachen_000_019", "bonn_000_007"], [])
    with pytest.raises(DataError, match="recursive: true"):
        folder(tmp_path, **options).ids()
    stem = "aachen/aachen_000_019"
    line = f"leftImg8bit/train/{stem}_leftImg8bit.png gtFine/train/{stem}_gtFine_labelTrainIds.png"
    (tmp_path / "labeled.txt").write_text(line)
    listed = folder(tmp_path, labeled="labeled.txt", **options)
    assert (list(listed.ids()), listed.check()) == (["aachen_000_019"], [])
    (tmp_path / "labeled.txt").write_text(f"{stem}_leftImg8bit.png")  # the mask's folder mirrors the image's
    listed = folder(tmp_path, labeled="labeled.txt", **options)
    assert (list(listed.ids()), listed.check()) == (["aachen_000_019"], [])


@pytest.mark.parametrize(("kind", "partner"), [("images", "masks"), ("masks", "images")])
def test_links_to_nothing_are_told_before_load_stumbles(write_pairs: Write, kind: str, partner: str) -> None:
    """git-annex, datalad and DVC leave such links where content was not fetched."""
    root = write_pairs({"a": mask(0), "b": mask(1)})
    (root / kind / "b.png").unlink()
    (root / kind / "b.png").symlink_to("../.git/annex/objects/b.png")
    (root / kind / "loop.png").symlink_to("loop.png")
    (root / kind / "notes.txt").symlink_to("nowhere.txt")  # no picture's ending: none of ours
    source = folder(root)
    linked, alone = source.check()
    assert linked.startswith(f"links to nothing, or other entries that are no file: 2x: {kind}/b.png, {kind}/loop.png.")
    assert "git annex get" in linked
    assert "dvc pull" in linked
    assert f"{kind} without {partner[:-1]}: 1x: {kind}/loop.png" in alone
    with pytest.raises(DataError, match=f"sample b: {kind}/b.png: the file does not exist"):
        source.load("b")
    (root / "list.txt").write_text("b\n")
    (listed,) = folder(root, labeled="list.txt").check()
    assert "b (line 1)" in listed
    assert "dvc pull" in listed


# ---------------------------------------------------------------------- lists


@pytest.mark.parametrize(
    "text",
    [
        "b\na\n",
        "\ufeff# the labelled ones\n\nb  \n  a\n",
        "b.png\na.png\n",
        "images/b.png\nimages/a.png\n",
        "images/b.png masks/b.png\nimages/a.png masks/a.png\n",
        "b.png\tb.png\na.png\ta.png\n",
        "b a.png\na a.png\n",
    ],
)
def test_lists_name_samples_in_their_order(write_pairs: Write, text: str) -> None:
    root = write_pairs({"a": mask(0, 1), "b": mask(0, 1), "unlisted": mask(77, 77)})
    (root / "list.txt").write_text(text, "utf-8")
    source = folder(root, labeled="list.txt")
    assert (list(source.ids()), source.check()) == (["b", "a"], [])


def test_stems_may_hold_spaces_and_dots(write_pairs: Write) -> None:
    root = write_pairs({"my street 1": mask(0), "v1.2": mask(1)})
    (root / "list.txt").write_text("my street 1\nv1.2\n")
    source = folder(root, labeled="list.txt")
    assert (list(source.ids()), source.check()) == (["my street 1", "v1.2"], [])


def test_lists_of_unlabelled_images_may_name_their_masks(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0), "b": mask(0)})
    (root / "list.txt").write_text("images/a.png masks/gone.png\nimages/b.png None\n")
    assert folder(root, masks=None, labeled="list.txt").check() == []
    problems = folder(root, labeled="list.txt").check()
    assert len(problems) == 1
    assert "listed samples without mask file: 2x" in problems[0]


def test_masks_alone_can_be_listed_by_their_images(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0), "b": mask(1), "c": mask(9)})
    (root / "list.txt").write_text("images/b.jpg\na\n")
    source = folder(root, images=None, labeled="list.txt")
    assert (list(source.ids()), source.check()) == (["b", "a"], [])


def test_wrong_lists_are_told_with_their_lines(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0), "b": mask(0)})
    (root / "masks" / "b.png").unlink()
    (root / "list.txt").write_text("a\n# more\na\nb\nc\none two three\n")
    problems = folder(root, labeled="list.txt").check()
    for told in (
        "samples listed twice: 1x: a (line 3)",
        "listed samples without mask file: 2x: b (line 4), c (line 5). Looked in masks",
        "listed samples without image file: 1x: c (line 5). Looked in images; mend list.txt or the",
        "list lines of more than two columns: 1x: one two three (line 6)",
    ):
        assert any(problem.startswith(told) for problem in problems), told
    assert len(problems) == 4
    with pytest.raises(DataError, match="sample c: c: there is no image file"):
        folder(root, labeled="list.txt").load("c")


@pytest.mark.parametrize("text", ["", "\n# only comments\n"])
def test_empty_lists_are_refused(write_pairs: Write, text: str) -> None:
    root = write_pairs({"a": mask(0)})
    (root / "list.txt").write_text(text)
    with pytest.raises(DataError, match=r"the list .*list\.txt names no sample"):
        folder(root, labeled="list.txt").ids()


def test_lists_in_another_encoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("straße".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read: 'utf-8' codec"):
        read_list(tmp_path / "list.txt")


@given(st.lists(st.sampled_from("abc"), max_size=4), st.lists(st.sampled_from("abc"), min_size=1, max_size=4))
def test_the_longest_overlap_of_folder_and_entry_counts(own: list[str], entry: list[str]) -> None:
    expected = next(
        [*own, *entry[n:]] for n in range(min(len(own), len(entry) - 1), -1, -1) if own[len(own) - n :] == entry[:n]
    )
    assert below(Path(*own), "/".join(entry)) == Path(*expected)


def test_absolute_entries_stay_as_they_are() -> None:
    assert below(Path("data/images"), "/elsewhere/a.png") == Path("/elsewhere/a.png")


def test_the_longest_ending_decides_what_the_id_is() -> None:
    assert strip_suffix("a_leftImg8bit.PNG", [".png", "_leftImg8bit.png"]) == "a"
    assert strip_suffix(".png", [".png"]) is None
    assert strip_suffix("a.tar", [".png"]) is None


def test_an_interrupted_check_does_not_read_the_rest(write_pairs: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    source, calls = folder(write_pairs({f"s{i:02}": mask(0) for i in range(60)})), []

    def interrupted(entry: object, *, missing: bool) -> None:
        calls.append(entry)
        if len(calls) == 1:
            raise KeyboardInterrupt
        threading.Event().wait(0.2)

    monkeypatch.setattr(source, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.check()
    assert len(calls) <= 2 * min(8, os.cpu_count() or 1) + 1


# ---------------------------------------------------------------------- sources of others


def test_sources_need_no_more_than_ids_and_load() -> None:
    class Counting(Source):
        def ids(self) -> list[str]:
            return ["a", "b"]

        def load(self, sample_id: str) -> Sample:
            if sample_id == "b":
                raise DataError("torn", where=sample_id)
            return Sample("a", mask=mask(3, 3))

    survey = Counting().survey()
    assert [str(p) for p in survey.problems] == Counting().check() == ["b: torn."]
    assert (survey.samples, survey.masks, survey.ids, len(Counting())) == (2, 1, (3,), 2)


def test_problems_are_told_commonest_first() -> None:
    findings = [Finding("rare", "a"), Finding("common", "b", "Mend it"), Finding("common", "c", "Mend it")]
    assert [str(r) for r in summarize(findings)] == ["common: 2x: b, c. Mend it.", "rare: 1x: a."]

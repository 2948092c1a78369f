"""Prompts from files and from masks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genaug import LabelSpace, Sample
from genaug.errors import ConfigError, DataError
from genaug.recipe import load_recipe
from genaug.sources.base import Source
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug_text2image.class_prompts import ClassPrompts, densified
from genaug_text2image.config import ClassPromptsOptions
from genaug_text2image.prompt_file import PromptFile
from genaug_text2image.sizes import sampling_size


class Masks(Source):
    """Masks of rows: one row of pixels for every id."""

    def __init__(self, *shown: list[int]) -> None:
        self.shown = {f"m{n}": ids for n, ids in enumerate(shown)}

    def ids(self):
        return list(self.shown)

    def load(self, sample_id):
        ids = self.shown[sample_id]
        return Sample(sample_id, mask=np.repeat(np.array(ids, np.uint8)[:, None], 10 + len(ids), 1))


class Bare(Masks):
    def __init__(self) -> None:
        super().__init__([1])

    def load(self, sample_id):
        return Sample(sample_id, np.zeros((2, 2, 3), np.uint8))


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8")
    return path


# ---------------------------------------------------------------------- files


def test_prompts_are_read_in_order_and_named_like_their_images(tmp_path) -> None:
    rows = [
        {"file_name": "aachen/b.x_leftImg8bit.PNG", "text": " A street.\n", "more": 1},
        "",
        {"file_name": "a", "text": "B"},
    ]
    source = PromptFile(write(tmp_path / "p.jsonl", *rows), size=(7, 9))
    assert list(source.ids()) == ["b.x_leftImg8bit", "a"]
    sample = source.load("b.x_leftImg8bit")
    assert (sample.prompt.text, sample.size) == ("A street.", (7, 9))
    assert sample.meta["file_name"] == "aachen/b.x_leftImg8bit.PNG"
    with pytest.raises(DataError, match="no prompt is called 'c'"):
        source.load("c")


def test_sizes_come_from_the_images_of_the_same_names(tmp_path) -> None:
    masks = Masks([1], [1, 2])
    path = write(tmp_path / "p.jsonl", *({"file_name": f"m{n}.png", "text": "a"} for n in (1, 0, 2)))
    source = PromptFile(path, source=masks)
    assert [source.load(i).size for i in ("m1", "m0")] == [(2, 12), (1, 11)]
    with pytest.raises(DataError, match="no image is called 'm2'"):
        source.load("m2")
    assert len(source.check()) == 1


def test_the_sources_own_endings_of_images_are_no_part_of_ids(tmp_path) -> None:
    folder = tmp_path / "leftImg8bit/train/aachen"
    folder.mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(folder / "aachen_000000_000019_leftImg8bit.png")
    options = FolderOptions(images="leftImg8bit", image_suffixes=("_leftImg8bit.png",), recursive=True)
    images = FolderSource(options, LabelSpace({0: "road"}), root=tmp_path)
    row = {"file_name": "aachen_000000_000019_leftImg8bit.png", "text": "a street"}
    source = PromptFile(write(tmp_path / "p.jsonl", row, {**row, "file_name": "b.png"}), source=images)
    assert source.ids() == ("aachen_000000_000019", "b")
    assert source.load("aachen_000000_000019").size == (4, 6)
    with pytest.raises(DataError, match="no image is called 'b'"):
        source.load("b")
    twice = write(tmp_path / "p.jsonl", row, {**row, "file_name": "aachen_000000_000019.png"})
    with pytest.raises(DataError, match="two prompts for 'aachen_000000_000019'"):
        PromptFile(twice, source=images).ids()


def test_all_wrong_lines_are_listed(tmp_path) -> None:
    path = write(
        tmp_path / "p.jsonl", "{", [1], {"file_name": "a.png"}, {"file_name": "a.png", "text": " "},
        {"file_name": "b.png", "text": "x"}, {"file_name": "c/b.jpg", "text": "y"},
    )  # fmt: skip
    with pytest.raises(DataError, match="5 lines cannot be used") as caught:
        PromptFile(path).ids()
    assert [p.split(":")[0] for p in caught.value.problems] == [f"line {n}" for n in (1, 2, 3, 4, 6)]
    assert "a second prompt for 'b'" in caught.value.problems[-1]
    with pytest.raises(DataError, match="no prompt in it"):
        PromptFile(write(tmp_path / "e.jsonl", "")).ids()
    with pytest.raises(DataError, match="cannot be read"):
        PromptFile(tmp_path / "none.jsonl").ids()


# ---------------------------------------------------------------------- classes that occur together


def test_a_prompt_names_the_classes_of_a_mask_readably(labels) -> None:
    options = ClassPromptsOptions(
        dense=0, order="id", templates=("With {classes} {x}.",), names={"tree": "many trees"}, min_share=0.3
    )
    source = ClassPrompts(Masks([0, 1, 5], [7, 7, 5, 5, 1], [2, 255, 255, 255]), labels, options)
    texts = {s.meta["mask"]: s.prompt.text for s in source}
    assert texts == {  # braces of other kinds are the user's
        "m0": "With sky and traffic sign {x}.",
        "m1": "With traffic sign and many trees {x}.",
        "m2": "With road {x}.",
    }
    assert {s.meta["mask"]: s.size for s in source} == {"m0": (3, 13), "m1": (5, 15), "m2": (4, 14)}
    listed = ClassPromptsOptions(dense=0, order="id", templates=("{classes}",), separator=" ", last_separator=None)
    assert ClassPrompts(Masks([1, 2, 5, 7]), labels, listed).load("scene_000000").prompt.text == (
        "sky road traffic sign tree"
    )


def test_sparse_masks_get_classes_that_are_seen_beside_theirs(labels) -> None:
    # Class 7 is never seen beside another one, so it cannot be made dense; 1 alone is seen beside 2 and 5.
    source = ClassPrompts(Masks([1], [1, 2, 5], [1, 2], [7]), labels, ClassPromptsOptions(dense=1.0, count=400))
    named = Counter((s.meta["mask"], tuple(sorted(s.meta["classes"]))) for s in source)
    assert set(named) == {("m0", (1, 2, 5)), ("m1", (1, 2, 5)), ("m2", (1, 2, 5)), ("m3", (7,))}
    assert set(named.values()) == {100}  # every mask begins as many prompts


def test_what_is_added_follows_how_often_it_is_seen(labels) -> None:
    # Beside 1: class 2 in three masks of four, class 5 in one; two classes are the quantile.
    source = ClassPrompts(
        Masks([1, 2], [1, 2], [1, 2], [1, 5], [1]), labels, ClassPromptsOptions(dense=0.5, count=2000)
    )
    added = Counter(tuple(set(s.meta["classes"]) - {1}) for s in source if s.meta["mask"] == "m4")
    assert sum(added.values()) == 400
    assert abs(added[(2,)] / 400 - 0.75) < 4 * (0.75 * 0.25 / 400) ** 0.5


@settings(max_examples=20)
@given(st.lists(st.sets(st.sampled_from([0, 1, 2, 5, 7]), min_size=1), min_size=1, max_size=5), st.integers(0, 9))
def test_a_prompt_depends_on_its_number_and_seed_alone(shown, seed) -> None:
    labels = LabelSpace({0: "background", 1: "sky", 2: "road", 5: "traffic_sign", 7: "tree"})
    if all(ids == {0} for ids in shown):
        return
    masks = Masks(*(sorted(ids) for ids in shown))
    few, many = (ClassPrompts(masks, labels, ClassPromptsOptions(seed=seed, count=n)) for n in (2, 5))
    for sample_id in reversed(few.ids()):
        one, other = few.load(sample_id), many.load(sample_id)
        assert (one.prompt, one.meta) == (other.prompt, other.meta)
        begun = set(shown[int(one.meta["mask"][1:])]) - {0}
        assert begun <= set(one.meta["classes"]) <= {1, 2, 5, 7}
        assert all(labels.names[i].replace("_", " ") in one.prompt.text for i in one.meta["classes"])


def test_densified_adds_nothing_where_nothing_was_seen_together() -> None:
    together = np.diag([3, 2, 1])
    present = np.array([False, True, False])
    assert densified(present, together, 3, np.random.default_rng(0)).tolist() == [False, True, False]


def test_wrong_options_are_named(labels) -> None:
    with pytest.raises(ConfigError, match=r"conditions\.names: no class is called 'trees'\. Did you mean 'tree'\?"):
        ClassPrompts(Masks([1]), labels, ClassPromptsOptions(names={"trees": "x"}))
    with pytest.raises(DataError, match="no mask shows a class to name"):
        ClassPrompts(Masks([0]), labels).ids()
    with pytest.raises(DataError, match="the samples have no masks to take classes from"):
        ClassPrompts(Bare(), labels).ids()
    recipe = {"labels": {1: "a"}, "data": {"masks": "m"}, "generator": {"use": "text2image"}}
    with pytest.raises(ConfigError, match=r"write .classes. once"):
        load_recipe({**recipe, "conditions": {"format": "class-prompts", "templates": ["a photo"]}})
    with pytest.raises(ConfigError, match=r"conditions\.source\.wrong: unknown key"):
        load_recipe({**recipe, "conditions": {"format": "class-prompts", "source": {"images": "i", "wrong": 1}}})
    with pytest.raises(ConfigError, match="height and width"):
        load_recipe({**recipe, "conditions": {"format": "class-prompts", "size": [0, 3]}})


# ---------------------------------------------------------------------- sizes


@given(
    st.tuples(st.integers(1, 4000), st.integers(1, 4000)), st.sampled_from([1, 8, 16]),
    st.one_of(st.none(), st.integers(16, 1024)),
)  # fmt: skip
def test_sampling_sizes(size, multiple, resolution) -> None:
    found = sampling_size(size, multiple=multiple, resolution=resolution, max_pixels=1 << 20)
    area = min(size[0] * size[1] if resolution is None else resolution**2, 1 << 20)
    for side, asked in zip(found, size, strict=True):
        exact = asked * (area / (size[0] * size[1])) ** 0.5
        assert side % multiple == 0
        assert side >= multiple
        assert abs(side - max(exact, multiple)) <= max(multiple / 2 + 1e-6, 1)
    if resolution is None and area < 1 << 20 and all(s % multiple == 0 for s in size):
        assert found == size

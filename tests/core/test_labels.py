import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genaug.errors import ConfigError
from genaug.labels import LabelSpace, default_color, named_sets

ids = st.integers(0, 255)
names = st.text(min_size=1).filter(str.strip)


def slow_voc_color(class_id: int) -> tuple[int, ...]:
    """The palette of the VOC development kit: bit j of id // 8**i becomes bit 7 - i of channel j."""
    return tuple(sum(((class_id >> (3 * i + j)) & 1) << (7 - i) for i in range(3)) for j in range(3))


def test_default_colours_are_the_voc_palette_and_all_differ() -> None:
    assert [default_color(i) for i in range(256)] == [slow_voc_color(i) for i in range(256)]
    assert default_color(15) == (192, 128, 128)  # person
    assert len({default_color(i) for i in range(256)}) == 256


@given(st.dictionaries(ids, names, min_size=1, max_size=20), st.data())
def test_tables_come_back_from_json(table: dict[int, str], data: st.DataObject) -> None:
    ignore = data.draw(ids.filter(lambda i: i not in table))
    colors = {i: default_color(i) for i in data.draw(st.sets(st.sampled_from(sorted(table))))}
    space = LabelSpace(table, ignore, colors)
    assert LabelSpace.from_config(json.loads(json.dumps(space.to_dict()))) == space
    assert space.ids == tuple(sorted(table))


@pytest.mark.parametrize("name", named_sets())
def test_shipped_tables_are_sound(name: str) -> None:
    count = {"ade150": 150, "ade150-zero": 150, "camvid11": 11, "cityscapes19": 19, "voc21": 21}[name]
    space = LabelSpace.from_config(name)
    first, ignored = (1, 0) if name == "ade150" else (0, 255)
    assert space.ids == tuple(range(first, first + count))
    assert space.ignore_index == ignored
    assert len({space.color(i) for i in (*space.ids, ignored)}) == count + 1


def test_both_ade_tables_name_the_same_classes_one_id_apart() -> None:
    released, lowered = LabelSpace.from_config("ade150"), LabelSpace.from_config("ade150-zero")
    assert {i - 1: name for i, name in released.names.items()} == dict(lowered.names)
    assert (released.names[1], released.names[4], released.names[150]) == ("wall", "floor", "flag")


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_tables_come_from_files_relative_to_the_recipe(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"table{suffix}").write_text(json.dumps({"names": {"4": "car", "1": "road"}, "ignore_index": 0}))
    space = LabelSpace.from_config(f"table{suffix}", root=tmp_path)
    assert (dict(space.names), space.ignore_index) == ({1: "road", 4: "car"}, 0)


def test_a_list_counts_from_zero_and_a_set_can_be_given_another_ignore_index() -> None:
    assert dict(LabelSpace.from_config(["sky", "road"]).names) == {0: "sky", 1: "road"}
    assert LabelSpace.from_config({"names": "voc21", "ignore_index": 254}).ignore_index == 254
    assert LabelSpace.from_config({"names": {0: "no", 255: "yes"}, "ignore_index": 254}).ids == (0, 255)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "no classes"),
        ({256: "a"}, r"id 256\. Allowed: a whole number in 0\.\.255"),
        ({-1: "a"}, "id -1"),
        ({True: "a"}, "id True"),
        ({"x": "a"}, "key 'x'"),
        ({1: "a", "1": "b"}, "id 1 appears twice"),
        ({0: " "}, "class 0 is called ' '"),
        ({0: False}, "Quote it"),
        ({0: "a", 255: "b"}, "Binary masks stored as 0 and 255 need another ignore index"),
        ({"names": {0: "a"}, "ignore_index": 0}, "0 is also the class 'a'"),
        ({"names": {0: "a"}, "ignore_index": None}, "labels.ignore_index: id None"),
        ({"names": {0: "a"}, "ignore_indx": 3}, "Did you mean 'ignore_index'?"),
        ({"names": {0: "a"}, "colors": {1: [0, 0, 0]}}, "a colour for id 1, which has no name"),
        ({"names": {0: "a"}, "colors": {0: 5}}, "colour 5 of id 0"),
        ({"names": {0: "a"}, "colors": {0: [0, 0, 256]}}, r"colour \[0, 0, 256\] of id 0"),
        ({"names": ["a", "b"], "colors": [[1, 1, 1], [1, 1, 1]]}, "ids 0 and 1 share"),
        ("voc20", "Did you mean 'voc21'"),
        ("nowhere.yaml", "nowhere.yaml: cannot be read"),
        (3, "a int"),
    ],
)
def test_wrong_tables_are_refused_in_words(value: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        LabelSpace.from_config(value)


def test_errors_in_a_file_name_the_file_and_files_do_not_chain(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("{0: road, 300: car}")
    with pytest.raises(ConfigError, match=r"bad\.yaml, labels\.names: id 300"):
        LabelSpace.from_config("bad.yaml", root=tmp_path)
    (tmp_path / "loop.yaml").write_text("loop.yaml")
    with pytest.raises(ConfigError, match=r"holds the text 'loop\.yaml'"):
        LabelSpace.from_config("loop.yaml", root=tmp_path)

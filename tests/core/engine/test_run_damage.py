"""Damaged notes of a finished store, and components that the system refuses: said in words, and nothing is lost."""

import errno
import json

import pytest
from noise_helpers import FULL, assert_same_tree, genaug, go, tree, write_recipe

from genaug.errors import AdapterError, StoreError


def half(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def other_options(file):
    file.write_text(file.read_text().replace("127.3", "120.5"))


def strange(file):
    file.write_text("[1, 2]")


@pytest.mark.parametrize("damage", [half, other_options, strange])
def test_a_damaged_record_of_a_filter_is_damage_not_other_options(whole, tmp_path, damage):
    go(tmp_path, **FULL)
    file = tmp_path / "out/filters/dark/filter.json"
    damage(file)
    before = tree(tmp_path / "out")
    with pytest.raises(StoreError, match=r"dark/filter\.json: damaged: .*--redo-filters") as caught:
        go(tmp_path, **FULL)
    assert "other options" not in str(caught.value)
    assert tree(tmp_path / "out") == before
    report = go(tmp_path, redo_filters=True, **FULL)
    judged = {name: part["judged"] for name, part in report["stages"]["filter"]["filters"].items()}
    assert judged["dark"] > 0
    assert judged["rows"] == 0
    assert_same_tree(tmp_path / "out", whole / "out")


def test_a_lost_record_of_a_filter(whole, tmp_path):
    go(tmp_path, **FULL)
    (tmp_path / "out/filters/rows/filter.json").unlink()
    with pytest.raises(StoreError, match=r"rows/filter\.json: the file is missing.*'rows' judge again"):
        go(tmp_path, **FULL)
    go(tmp_path, redo_filters=True, **FULL)
    assert_same_tree(tmp_path / "out", whole / "out")


@pytest.mark.parametrize("damage", [half, strange, lambda file: file.write_text("{}")])
def test_a_damaged_note_of_the_labelled_samples(whole, tmp_path, damage):
    go(tmp_path, **FULL)
    file = tmp_path / "out/adapter/labelled.json"
    damage(file)
    before = tree(tmp_path / "out")
    with pytest.raises(AdapterError, match=r"labelled\.json: damaged: .*delete this file: what was learned stays"):
        go(tmp_path, **FULL)
    assert tree(tmp_path / "out") == before
    file.unlink()  # as the hint says
    assert go(tmp_path, **FULL)["stages"]["adapt"]["adapter"]["reused"] is True
    assert_same_tree(tmp_path / "out", whole / "out")


def test_changes_are_noticed_again_after_a_note_was_lost(tmp_path):
    changes = {**FULL, "data": {"changed": "flag"}}
    go(tmp_path, stages=["adapt"], **changes)
    (tmp_path / "out/adapter/labelled.json").unlink()
    go(tmp_path, stages=["adapt"], **changes)
    assert json.loads((tmp_path / "out/adapter/labelled.json").read_text())["samples"] == 4
    (tmp_path / "flag").touch()
    with pytest.raises(AdapterError, match="learned from 4 labelled samples that are not"):
        go(tmp_path, stages=["adapt"], **changes)


def test_any_component_on_a_full_disk_is_told_in_words(whole, tmp_path, monkeypatch):
    import genaug_noise

    real = genaug_noise._write

    def full(path, data):
        if path.name == "step2.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(genaug_noise, "_write", full)
        with pytest.raises(StoreError, match=r"step2\.json: cannot write what is learned: the disk is full"):
            go(tmp_path, **FULL)
    go(tmp_path, **FULL)
    assert_same_tree(tmp_path / "out", whole / "out")


def test_a_probe_before_the_first_run_is_no_foreign_file(whole, tmp_path):
    (tmp_path / "out/probe").mkdir(parents=True)
    go(tmp_path, **FULL)
    assert_same_tree(tmp_path / "out", whole / "out")


def test_the_command_line_ends_with_a_line_and_code_2(tmp_path):
    recipe = write_recipe(tmp_path, **FULL)
    assert genaug("adapt", recipe).returncode == 0
    half(tmp_path / "out/adapter/labelled.json")
    result = genaug("adapt", recipe)
    assert result.returncode == 2
    assert "labelled.json: damaged" in result.stderr
    assert "Traceback" not in result.stderr

"""Runs that meet damage, changed data, failing batches, Ctrl-C and full disks: a clear error, nothing lost."""

import logging
import os

import pytest
from noise_helpers import FILTERS, FULL, assert_same_tree, go, tree

from genaug.errors import StoreError
from genaug.store import SampleStore


def test_missing_files_are_made_again(whole, tmp_path):
    go(tmp_path, **FULL)
    for name in ("images/m_0_1.png", "masks/m_2_0.png", "conditions/m_3.png", "metadata.jsonl"):
        (tmp_path / "out" / name).unlink()
    report = go(tmp_path, **FULL)
    assert report["stages"]["generate"]["made"] == 2
    assert_same_tree(tmp_path / "out", whole / "out")


@pytest.mark.parametrize("name", ["images/m_0_1.png", "masks/m_2_0.png"])
def test_damaged_files_stop_a_run_until_repaired(whole, tmp_path, name):
    go(tmp_path, **FULL)
    file = tmp_path / "out" / name
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    before = tree(tmp_path / "out")
    with pytest.raises(StoreError, match=rf"{name}: 1 sample is damaged.*--repair"):
        go(tmp_path, **FULL)
    assert tree(tmp_path / "out") == {**before}
    go(tmp_path, repair=True, **FULL)
    assert_same_tree(tmp_path / "out", whole / "out")


def test_a_damaged_manifest_line(whole, tmp_path):
    go(tmp_path, **FULL)
    manifest = tmp_path / "out/manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join([*lines[:3], b"\x00" * 40 + b"\n", *lines[4:]]))
    with pytest.raises(StoreError, match=r"manifest\.jsonl, line 4: damaged"):
        go(tmp_path, **FULL)
    go(tmp_path, repair=True, **FULL)
    assert_same_tree(tmp_path / "out", whole / "out")


def test_changed_masks_are_refused(tmp_path):
    go(tmp_path, data={"changed": "flag"})
    before = tree(tmp_path / "out")
    (tmp_path / "flag").touch()
    with pytest.raises(StoreError, match="m_0_0 was made from another mask than m_0 has now"):
        go(tmp_path, data={"changed": "flag"})
    after = tree(tmp_path / "out")
    assert {n for n in before if after[n] != before[n]} <= {"conditions/m_0.png"}
    (tmp_path / "flag").unlink()
    go(tmp_path, data={"changed": "flag"})
    assert tree(tmp_path / "out") == before


def test_more_data_goes_on_and_less_data_is_refused(tmp_path, monkeypatch):
    ids = ["m_0", "m_1"]
    monkeypatch.setattr("genaug_noise.NoiseMasks.ids", lambda self: ids)
    go(tmp_path / "a")
    ids.insert(1, "m_2")
    report = go(tmp_path / "a")
    assert report["stages"]["generate"]["made"] == 3
    assert SampleStore.open(tmp_path / "a/out").keys() == (
        "m_0_0",
        "m_0_1",
        "m_0_2",
        "m_2_0",
        "m_2_1",
        "m_2_2",
        "m_1_0",
        "m_1_2",
    )
    ids.pop()
    with pytest.raises(StoreError, match=r"3 samples are of conditions that the data no longer has, e\.g\. m_1_0"):
        go(tmp_path / "a")


# ---------------------------------------------------------------------- failures


def test_failing_batches_are_reported_and_tried_again(tmp_path, caplog):
    changes = {"generator": {"fail": "failing", "refuse": []}, "filters": FILTERS}
    (tmp_path / "failing").write_text("m_1_0 m_2_2")
    report = go(tmp_path, **changes)
    assert report["failed"] == 6
    assert not report["complete"]
    assert "filter" not in report["stages"]
    generate = report["stages"]["generate"]
    assert (generate["made"], generate["failed"]) == (6, 6)
    assert [f["samples"] for f in generate["failures"]] == [["m_1_0", "m_1_1", "m_1_2", "m_2_0"], ["m_2_1", "m_2_2"]]
    assert generate["failures"][0]["error"] == "RuntimeError: this batch fails"
    assert "this batch fails" in caplog.text
    (tmp_path / "failing").write_text("m_2_2")
    report = go(tmp_path, **changes)
    assert (report["stages"]["generate"]["made"], report["failed"]) == (4, 2)
    (tmp_path / "failing").write_text("")
    assert go(tmp_path, **changes)["stages"]["filter"]["samples"] == 12
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh/failing").write_text("")
    go(tmp_path / "fresh", **changes)
    assert_same_tree(tmp_path / "out", tmp_path / "fresh/out")


@pytest.mark.parametrize("failing", ["m_0_0", "m_1_0 m_2_0 m_3_0"])
def test_a_run_gives_up_on_the_first_batch_or_the_third_in_a_row(tmp_path, failing):
    (tmp_path / "failing").write_text(failing)
    with pytest.raises(RuntimeError, match="this batch fails"):
        go(tmp_path, data={"odd_every": 0}, generator={"fail": "failing", "images_per_mask": 2, "batch_size": 2})
    made = len(SampleStore.open(tmp_path / "out").index)
    assert made == (0 if failing == "m_0_0" else 2)


def test_ctrl_c_leaves_a_store_that_goes_on(whole, tmp_path, monkeypatch):
    import genaug_noise

    original = genaug_noise.Noise._generate
    calls = []

    def interrupted(self, draws):
        calls.append(len(draws))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, draws)

    with monkeypatch.context() as patch:
        patch.setattr(genaug_noise.Noise, "_generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path, **FULL)
    assert 0 < len(SampleStore.open(tmp_path / "out").index) < 12
    go(tmp_path, **FULL)
    assert_same_tree(tmp_path / "out", whole / "out")


@pytest.mark.parametrize("after", range(0, 60, 4))
def test_a_full_disk_loses_nothing(whole, tmp_path, monkeypatch, after):
    real = os.fsync
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > after:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"the disk is full.*run the same command again"):
            go(tmp_path, **FULL)
    names = list(tree(tmp_path))
    assert not [n for n in names if ".tmp-" in n]
    if "out/dataset.json" in names:
        store = SampleStore.open(tmp_path / "out")
        assert all(store[key].image.size for key in store.keys())  # noqa: SIM118 -- a store iterates over samples
    go(tmp_path, **FULL)
    assert_same_tree(tmp_path / "out", whole / "out")


def test_a_small_disk_is_told_before(tmp_path, monkeypatch, caplog):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with caplog.at_level(logging.WARNING, "genaug"):
        go(tmp_path)
    assert "12 samples may need up to" in caplog.text

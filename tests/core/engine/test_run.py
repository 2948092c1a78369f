"""Runs in this process: what is made, what is reused, what is refused and what that looks like."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from noise_helpers import FILTERS, FULL, OFFLINE, assert_same_tree, environment, go, make_recipe, registry, tree

from genaug.engine import preview, run
from genaug.engine.device import resolve_device
from genaug.errors import AdapterError, ConfigError, DataError, StoreError
from genaug.hookspecs import hookimpl
from genaug.recipe import load_recipe
from genaug.store import SampleStore, Shard


def test_report(tmp_path):
    report = go(tmp_path, **FULL)
    assert report["complete"]
    assert report["failed"] == 0
    stages = report["stages"]
    assert stages["adapt"] == {"adapter": {"reused": False, "steps": 4}}
    counts = {"conditions": 4, "planned": 12, "made": 11, "reused": 0, "refused": 1, "failed": 0}
    assert stages["generate"] == {**counts, "failures": [], "complete": True}
    rows = [json.loads(line) for line in (tmp_path / "out/filters/dark/verdicts.jsonl").read_text().splitlines()]
    assert stages["filter"]["filters"]["dark"]["dropped"] == sum(not r["keep"] for r in rows) > 0
    assert stages["filter"]["kept"] == sum(r["keep"] for r in rows)
    assert stages["filter"]["filters"]["rows"]["judged"] == 11
    json.dumps(report)


def test_a_second_run_does_nothing(whole, tmp_path):
    before = tree(whole / "out")
    stages = go(whole, **FULL)["stages"]
    assert stages["adapt"] == {"adapter": {"reused": True}}
    assert (stages["generate"]["made"], stages["generate"]["reused"]) == (0, 12)
    assert [f["judged"] for f in stages["filter"]["filters"].values()] == [0, 0]
    assert tree(whole / "out") == before
    go(tmp_path, **FULL)
    assert_same_tree(tmp_path / "out", whole / "out")


def test_single_stages_end_with_the_same_files(whole, tmp_path):
    with pytest.raises(AdapterError, match=r"has not learned.*genaug adapt"):
        go(tmp_path, stages=["generate"], **FULL)
    go(tmp_path, stages=["adapt"], **FULL)
    with pytest.raises(StoreError, match=r"0 of an unknown number of samples are made.*genaug generate"):
        go(tmp_path, stages=["filter"], **FULL)
    go(tmp_path, stages=["generate"], **FULL)
    assert 'kept":null' in (tmp_path / "out/metadata.jsonl").read_text()
    with pytest.raises(StoreError, match="has not judged"):
        SampleStore.open(tmp_path / "out").training_view()
    go(tmp_path, stages=["filter"], **FULL)
    assert_same_tree(tmp_path / "out", whole / "out")


def test_a_sample_depends_on_nothing_but_its_condition_k_and_seed(tmp_path):
    """Other batches, sizes together, more images, more conditions: the same pixels (its low bits aside, see Noise)."""

    def images(root, **changes):
        go(root, stages=["generate"], **changes)
        return {key: SampleStore.open(root / "out")[key].image & 0xFC for key in ("m_0_0", "m_2_1", "m_3_2")}

    expected = images(tmp_path / "0")
    for number, changes in enumerate(
        [
            {"generator": {"batch_size": 1}},
            {"generator": {"batch_size": 50, "square": True}},
            {"generator": {"images_per_mask": 5}},
            {"data": {"count": 7}},
        ]
    ):
        found = images(tmp_path / str(number + 1), **changes)
        assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_data_problems_come_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match="m_0: a problem"):
        go(tmp_path, data={"problem": True})
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- filters


def test_changed_filter_options(tmp_path):
    go(tmp_path, **FULL)
    before = tree(tmp_path / "out")
    changed = [{**FILTERS[0], "below": 0}, {**FILTERS[1], "ignore_row": -1}]
    for stages in (OFFLINE, ["filter"]):
        with pytest.raises(
            StoreError, match=r"'dark' judged with other options: below is 0.0, was 127.3.*--redo-filters"
        ):
            go(tmp_path, stages=stages, **{**FULL, "filters": changed})
        assert tree(tmp_path / "out") == before
    report = go(tmp_path, redo_filters=True, **{**FULL, "filters": changed})
    assert report["stages"]["filter"]["kept"] == 11
    go(tmp_path / "fresh", **{**FULL, "filters": changed})
    assert_same_tree(tmp_path / "out", tmp_path / "fresh/out")


def test_a_further_filter_judges_alone(tmp_path):
    go(tmp_path, **{**FULL, "filters": FILTERS[:1]})
    report = go(tmp_path, **FULL)
    assert {n: f["judged"] for n, f in report["stages"]["filter"]["filters"].items()} == {"dark": 0, "rows": 11}
    kept = report["stages"]["filter"]["kept"]
    # A filter taken out of the recipe is not asked any more; what it said stays on disk.
    report = go(tmp_path, **{**FULL, "filters": FILTERS[1:]})
    assert report["stages"]["filter"]["kept"] == 11 > kept
    assert (tmp_path / "out/filters/dark/verdicts.jsonl").exists()
    assert len(SampleStore.open(tmp_path / "out").training_view()) == 11


def test_verdicts_on_replaced_samples_are_given_again(tmp_path):
    """Repairing on other hardware may give other bytes: the verdicts of that group are void, those of others stay."""
    from genaug.store.files import encode_image, file_record
    from genaug.store.journal import Index, Journal

    go(tmp_path, **FULL)
    out = tmp_path / "out"
    index = Index([Journal(out / "manifest.jsonl")])
    data = encode_image(np.zeros((32, 48, 3), np.uint8))
    (out / "images/m_0_0.png").write_bytes(data)
    index.append([{**index["m_0_0"], "image": file_record("images/m_0_0.png", data)}])
    with pytest.raises(StoreError, match="judged other files than the present ones of sample m_0_0"):
        SampleStore.open(out).training_view()
    report = go(tmp_path, **FULL)
    assert report["stages"]["filter"]["filters"]["dark"]["judged"] == 3
    assert "m_0_0" not in SampleStore.open(out).training_view().keys


# ---------------------------------------------------------------------- shards


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_one_after_the_other_equal_one_process(whole, tmp_path, order):
    for position, index in enumerate(order):
        report = go(tmp_path, shard=Shard(index, 3), **FULL)
        assert report["complete"] == (position == 2)
        assert ("filter" in report["stages"]) == (position == 2)
    assert_same_tree(tmp_path / "out", whole / "out")
    assert go(tmp_path, shard=Shard(2, 3), **FULL)["stages"]["filter"]["kept"] > 0
    assert_same_tree(tmp_path / "out", whole / "out")


def test_the_number_of_shards_may_change_in_between(whole, tmp_path):
    go(tmp_path, shard=Shard(2, 3), **FULL)
    go(tmp_path, shard=Shard(1, 2), **FULL)
    (tmp_path / "out/images/m_2_1.png").unlink(missing_ok=True)
    report = go(tmp_path, **FULL)
    assert report["stages"]["generate"]["reused"] > 0
    assert_same_tree(tmp_path / "out", whole / "out")


@pytest.mark.parametrize("stages", [["adapt"], ["adapt", "generate"]])
def test_what_was_learned_from_other_samples_is_not_used(tmp_path, stages):
    changes = {"data": {"changed": "flag"}, "generator": {"needs_adapter": True}}
    go(tmp_path, stages=stages, **changes)
    before = tree(tmp_path / "out")
    assert json.loads(before["adapter/labelled.json"])["samples"] == 4
    (tmp_path / "flag").touch()
    with pytest.raises(AdapterError, match=r"the 4 of today.*out/adapter|out/adapter.*the 4 of today") as caught:
        go(tmp_path, stages=stages, **changes)
    assert "another folder" in str(caught.value)
    assert tree(tmp_path / "out") == before
    shutil.rmtree(tmp_path / "out/adapter")  # the way out that the error names
    assert go(tmp_path, stages=["adapt"], **changes)["stages"]["adapt"]["adapter"]["reused"] is False


def test_one_shard_adapts_alone_although_a_launcher_promises_others(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    go(tmp_path, stages=["adapt"], shard=Shard(1, 2), **FULL)
    assert json.loads((tmp_path / "out/adapter/learned.json").read_text()) == {"launcher": []}
    assert os.environ["WORLD_SIZE"] == "2"


def test_more_shards_than_batches(whole, tmp_path):
    for index in range(1, 8):
        go(tmp_path, shard=Shard(index, 7), **FULL)
    assert_same_tree(tmp_path / "out", whole / "out")


# ---------------------------------------------------------------------- around it


def test_preview_writes_nothing(tmp_path):
    plan = preview(make_recipe(tmp_path, **FULL), device="cpu", shard=Shard(2, 3))
    assert not (tmp_path / "out").exists()
    assert (plan["samples"], plan["batches"], plan["done"]) == (12, 4, 0)
    assert plan["sizes"] == {"48x32": 6, "24x32": 6}
    assert (plan["shard"], plan["shard_samples"]) == ("2/3", 2)
    assert len(plan["to_adapt"]) == 1
    assert plan["filters"] == ["dark", "rows"]
    go(tmp_path, **FULL)
    before = tree(tmp_path / "out")
    plan = preview(make_recipe(tmp_path, **FULL), device="cpu")
    assert (plan["done"], plan["to_adapt"]) == (12, [])
    assert plan["bytes"] >= sum(len(v) for n, v in before.items() if n.startswith(("images", "masks")))
    assert tree(tmp_path / "out") == before


def test_the_resolved_recipe_runs_again(whole, tmp_path):
    text = (whole / "out/recipe.resolved.yaml").read_text()
    assert "start at .." in text.splitlines()[0]
    again = load_recipe(yaml.safe_load(text), root=tmp_path, registry=registry())
    run(again, device="cpu", stages=OFFLINE)
    assert_same_tree(tmp_path / "out", whole / "out")


def test_nothing_in_a_store_tells_where_or_when(whole):
    for name, data in tree(whole / "out").items():
        assert str(whole).encode() not in data, name


def test_observers_hear_of_every_stage(tmp_path):
    heard = []

    class Observer:
        @hookimpl
        def genaug_stage_finished(self, stage, report):
            heard.append((stage, sorted(report)))

    recipe = make_recipe(tmp_path, **FULL)
    recipe.registry._manager.register(Observer())
    run(recipe, device="cpu", stages=OFFLINE)
    assert [stage for stage, _ in heard] == ["adapt", "generate", "filter"]
    assert heard[2][1] == ["filters", "kept", "nothing_left", "samples"]


def test_unknown_stages_and_devices(tmp_path):
    with pytest.raises(ConfigError, match=r"no stage is called 'filtre'. Did you mean 'filter'"):
        go(tmp_path, stages=["filtre"])
    with pytest.raises(ConfigError, match="--device: 'gpu'"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match=r"torch sees \d+ CUDA devices"):
        resolve_device("cuda:99")
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto").partition(":")[0] in {"cpu", "cuda", "mps"}
    assert not (tmp_path / "out").exists()


MEMORY = """
import sys, tracemalloc
from pathlib import Path
from noise_helpers import make_recipe
from genaug.engine import run

def peak(count):
    recipe = make_recipe(
        Path(sys.argv[1]) / str(count),
        data={"count": count // 2, "height": 160, "width": 160, "odd_every": 0},
        generator={"images_per_mask": 2, "batch_size": 8},
    )
    tracemalloc.start()
    run(recipe, device="cpu", stages=["generate"])
    result = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result

peak(18)  # imports and caches
print(peak(20), peak(200))
"""


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    """20 against 200 samples: a peak within 10 %. In a process with a string table of its own."""
    arguments = [sys.executable, "-c", MEMORY, str(tmp_path)]
    result = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=True)
    small, large = map(int, result.stdout.split())
    assert small > 160 * 160 * 3 * 8  # a batch of images was really seen
    assert large < 1.1 * small

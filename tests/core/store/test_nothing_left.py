"""Samples of which the filters leave no labelled pixel: kept by every filter, and nothing to train on."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_helpers import OFFLINE, make_recipe, tree

from genaug.engine import run
from genaug.labels import LabelSpace
from genaug.store import SampleStore
from genaug.store.views import NOTHING_LEFT, nothing_left
from genaug.types import Sample

HALVES = [{"use": "dark", "name": f"half{i}", "below": 0, "ignore_rows": [16 * i, 16 * i + 16]} for i in (0, 1)]


def test_samples_without_a_labelled_pixel_are_not_in_the_training_view(tmp_path):
    """No half drops a sample and neither ignores all of one; together they leave nothing."""
    recipe = make_recipe(tmp_path, filters=HALVES)
    report = run(recipe, device="cpu", stages=OFFLINE)["stages"]["filter"]
    assert (report["samples"], report["kept"], report["nothing_left"]) == (11, 0, 11)
    assert [part["dropped"] for part in report["filters"].values()] == [0, 0]
    store = SampleStore.open(tmp_path / "out")
    view = store.training_view()
    assert (view.keys, view.nothing_left, view.changed) == ((), store.keys(), {})
    for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert (row["kept"], row["reason"], row["ignored_fraction"]) == (False, NOTHING_LEFT, 1.0)
        assert all(v["keep"] and v["reason"] == "" for v in row["verdicts"])
    # One of the halves alone leaves the other one.
    assert store.training_view(["half0"]).keys == store.keys()
    assert store.training_view(["half0"]).nothing_left == ()
    before = tree(tmp_path / "out")
    run(recipe, device="cpu", stages=OFFLINE)
    assert tree(tmp_path / "out") == before


def test_one_filter_may_leave_nothing_of_some_samples(tmp_path):
    filters = [
        {"use": "dark", "name": "all", "below": 0, "ignore_rows": [0, 32], "only": "m_2_1"},
        {"use": "dark", "below": 127.3},
    ]
    report = run(make_recipe(tmp_path, filters=filters), device="cpu", stages=OFFLINE)["stages"]["filter"]
    store = SampleStore.open(tmp_path / "out")
    view = store.training_view()
    bright = [sample.id for sample in store if sample.image.mean() >= 127.3]
    assert view.keys == tuple(key for key in bright if key != "m_2_1")
    # A sample that a filter drops is not counted twice.
    assert view.nothing_left == (("m_2_1",) if "m_2_1" in bright else ())
    assert (report["kept"], report["nothing_left"]) == (len(view), len(view.nothing_left))
    rows = {r["key"]: r for r in map(json.loads, (tmp_path / "out/metadata.jsonl").read_text().splitlines())}
    assert {key for key, row in rows.items() if row["kept"]} == set(view.keys)
    for key, row in rows.items():
        dark = row["verdicts"][1]
        expected = "" if dark["keep"] else f"dark: {dark['reason']}"
        assert row["reason"] == (expected or (NOTHING_LEFT if key == "m_2_1" else ""))


def test_a_generator_that_ignores_everything_leaves_nothing_either(tmp_path, monkeypatch):
    def ignored(draws):
        image, mask = np.zeros((32, 24, 3), np.uint8), np.full((32, 24), 255, np.uint8)
        return [Sample(d.key, image, mask) for d in draws]

    monkeypatch.setattr("genaug_noise.Noise._generate", lambda self, draws: ignored(draws))
    report = run(make_recipe(tmp_path, data={"odd_every": 0}), device="cpu", stages=OFFLINE)["stages"]["filter"]
    assert (report["samples"], report["kept"], report["nothing_left"]) == (12, 0, 12)
    view = SampleStore.open(tmp_path / "out").training_view()
    assert (len(view), len(view.nothing_left)) == (0, 12)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), height=st.integers(1, 5), width=st.integers(1, 5), filters=st.integers(0, 4))
def test_nothing_left_is_what_counting_says(data, height, width, filters):
    class Store:
        labels = LabelSpace({0: "a"}, ignore_index=200)
        read = 0

        def mask(self, record):
            self.read += 1
            return record

    def record(base):
        wanted = data.draw(st.lists(st.booleans(), min_size=base.size, max_size=base.size))
        return np.where(np.array(wanted).reshape(base.shape), 200, base).astype(np.uint8)

    store = Store()
    original = record(np.zeros((height, width), np.uint8))
    masks = [record(original) if data.draw(st.booleans()) else None for _ in range(filters)]
    row = {"size": [height, width], "ignored": float(np.mean(original == 200)), "mask": original}
    verdicts = [{"mask": m, "ignored": row["ignored"] if m is None else float(np.mean(m == 200))} for m in masks]
    left = {(y, x) for y in range(height) for x in range(width)}
    for mask in (original, *(m for m in masks if m is not None)):
        left -= {(y, x) for y in range(height) for x in range(width) if mask[y, x] == 200}
    assert nothing_left(store, row, verdicts) == (not left)
    if sum(m is not None for m in masks) < 2:
        assert store.read == 0  # the recorded shares tell

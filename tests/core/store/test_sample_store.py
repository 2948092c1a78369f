"""A store as its readers and its writer see it."""

import json
import shutil

import numpy as np
import pytest
from noise_helpers import FILTERS, OFFLINE, make_recipe, tree

from genaug.engine import run
from genaug.errors import ConfigError, StoreError
from genaug.store import SampleStore, Shard, open_writer
from genaug.types import Draw, Refused, Sample


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Root of a finished run: 4 conditions, K = 3, one refused draw, two filters."""
    root = tmp_path_factory.mktemp("filled")
    run(make_recipe(root, filters=FILTERS), device="cpu", stages=OFFLINE)
    return root


@pytest.fixture
def copy(filled, tmp_path):
    shutil.copytree(filled / "out", tmp_path / "out")
    return tmp_path / "out"


def draw(name="a", k=0, seed=5, mask=None):
    mask = np.full((4, 6), 1, np.uint8) if mask is None else mask
    return Draw(Sample(name, mask=mask), k, seed)


def made(d, value=7, **meta):
    return Sample(d.key, np.full((*d.condition.size, 3), value, np.uint8), d.condition.mask.copy(), meta)


# ---------------------------------------------------------------------- reading


def test_reading(filled):
    store = SampleStore.open(filled / "out")
    recipe = make_recipe(filled, filters=FILTERS)
    source = recipe.source()
    assert store.complete
    assert store.planned == 12
    assert len(store) == len(store.keys()) == 11
    assert store.keys()[:5] == ("m_0_0", "m_0_1", "m_0_2", "m_1_0", "m_1_2")
    assert [row["key"] for row in store.rows()][4] == "m_1_1"
    assert store.labels == recipe.labels
    assert store.filters == ("dark", "rows")
    sample = store["m_1_2"]
    assert sample.id == store[4].id == "m_1_2"
    assert np.array_equal(sample.mask, source.load("m_1").mask)
    assert sample.image.shape == (32, 24, 3)
    assert sample.meta["mean"] == pytest.approx(sample.image.mean())
    row = store.row("m_1_2")
    assert (row["id"], row["k"], row["size"], row["synthetic"]) == ("m_1", 2, [32, 24], True)
    assert row["seed"] == recipe.rng.child("generate", "m_1", 2).integer()
    assert row["generator"] == {"component": "noise", "learned": None}
    assert row["ignored"] == 3 / (32 * 24)
    assert store.verify() == []


def test_unknown_and_refused_samples(filled):
    store = SampleStore.open(filled / "out")
    with pytest.raises(StoreError, match="no sample 'm_9_0'"):
        store.sample("m_9_0")
    with pytest.raises(StoreError, match=r"m_1_1: there is no image: told to"):
        store.sample("m_1_1")
    with pytest.raises(IndexError):
        store[11]


def test_groups_hold_all_samples_of_a_condition(filled):
    store = SampleStore.open(filled / "out")
    source = make_recipe(filled).source()
    groups = list(store.groups())
    assert [(g.id, g.ks) for g in groups] == [
        ("m_0", (0, 1, 2)),
        ("m_1", (0, 2)),
        ("m_2", (0, 1, 2)),
        ("m_3", (0, 1, 2)),
    ]
    for group, (condition_id, condition) in zip(groups, store.conditions(), strict=True):
        assert condition_id == group.id
        assert np.array_equal(group.condition, condition)
        assert np.array_equal(group.condition, source.load(group.id).mask)
        for sample, k in zip(group.samples, group.ks, strict=True):
            assert np.array_equal(sample.image, store[f"{group.id}_{k}"].image)


def test_training_view_combines_all_filters(filled):
    store = SampleStore.open(filled / "out")
    view = store.training_view()
    kept = [sample.id for sample in store if sample.image.mean() >= 127.3]
    assert 0 < len(kept) < 11
    assert view.keys == tuple(kept)
    assert len(view) == len(list(view)) == len(kept)
    for key, sample in zip(kept, view, strict=True):
        expected = store[key].mask.copy()
        expected[2] = 255
        assert np.array_equal(sample.mask, expected)
        assert np.array_equal(sample.image, store[key].image)
        assert store[key].mask[2].max() == 4  # the original stays
    assert [s.id for s in view[1:3]] == kept[1:3]
    assert view[-1].id == kept[-1]


def test_metadata_describes_every_image(filled):
    out = filled / "out"
    store = SampleStore.open(out)
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert [r["key"] for r in rows] == list(store.keys())
    kept = {r["key"] for r in rows if r["kept"]}
    assert kept == set(store.training_view().keys)
    for row in rows:
        assert (out / row["file_name"]).is_file()
        assert row["mask_file_name"] == f"filters/rows/masks/{row['key']}.png"
        assert row["ignored_fraction"] == pytest.approx((3 + row["width"]) / (row["width"] * row["height"]))
        assert [v["filter"] for v in row["verdicts"]] == ["dark", "rows"]
        dark = row["verdicts"][0]
        assert dark["keep"] or dark["reason"].startswith("mean ")
        assert json.loads(dark["scores"])["mean"] == pytest.approx(json.loads(row["meta"])["mean"], abs=1e-4)
    assert len({tuple(sorted(r)) for r in rows}) == 1


def test_several_changed_masks_are_combined(tmp_path):
    filters = [{"use": "dark", "name": f"row{i}", "below": 0, "ignore_row": i} for i in (3, 6)]
    run(make_recipe(tmp_path, filters=filters), device="cpu", stages=OFFLINE)
    out = tmp_path / "out"
    view = SampleStore.open(out).training_view()
    for line, sample in zip((out / "metadata.jsonl").read_text().splitlines(), view, strict=True):
        row = json.loads(line)
        assert row["mask_file_name"] == f"combined/{row['key']}.png"
        from PIL import Image

        with Image.open(out / row["mask_file_name"]) as picture:
            assert np.array_equal(np.asarray(picture), sample.mask)
        assert (sample.mask[[3, 6]] == 255).all()
        assert row["ignored_fraction"] == pytest.approx((sample.mask == 255).mean())
    # One filter less: nothing is left to combine, and the leftovers go.
    run(make_recipe(tmp_path, filters=filters[:1]), device="cpu", stages=["filter"])
    assert list((out / "combined").iterdir()) == []
    assert (SampleStore.open(out).training_view()[0].mask[6] != 255).any()


def test_a_condition_without_a_mask(tmp_path):
    """A prompt: the sample brings its mask, the group shows nothing but the ignore index."""
    prompt = Draw(Sample("p", image=np.zeros((4, 6, 3), np.uint8)), 0, 9)
    result = Sample("p_0", np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 4, np.uint8))
    with open_writer(make_recipe(tmp_path)) as writer:
        writer.put_condition(prompt.condition)
        writer.add([prompt], [result], {})
    store = SampleStore.open(tmp_path / "out")
    (group,) = store.groups()
    assert (group.condition == 255).all()
    assert store.row("p_0")["condition"] is None
    assert store.verify() == []


# ---------------------------------------------------------------------- trust


@pytest.mark.parametrize("place", ["images/m_2_1.png", "masks/m_2_1.png", "conditions/m_2.png"])
@pytest.mark.parametrize("damage", ["byte", "cut", "gone"])
def test_damage_is_found_and_named(copy, place, damage):
    file = copy / place
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data if damage == "byte" else data[: len(data) // 2])
    store = SampleStore.open(copy)
    with pytest.raises(StoreError, match=place.replace(".", r"\.")):
        list(store.groups())
    problems = store.verify()
    assert len(problems) == 1
    assert place in problems[0]


def test_verify_sees_verdict_masks_and_strangers(copy):
    (copy / "filters/rows/masks/m_0_0.png").write_bytes(b"")
    shutil.copy(copy / "images/m_0_0.png", copy / "images/stranger.png")
    problems = SampleStore.open(copy).verify()
    assert len(problems) == 2
    assert "filters/rows/masks/m_0_0.png" in problems[0]
    assert "stranger.png: no row" in problems[1]
    with pytest.raises(StoreError, match=r"filters/rows/masks/m_0_0\.png"):
        list(SampleStore.open(copy).training_view())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "genaug-store", "version": 1}'])
def test_a_damaged_dataset_file(copy, content):
    (copy / "dataset.json").write_text(content)
    with pytest.raises(StoreError, match=r"dataset\.json: damaged"):
        SampleStore.open(copy)


def test_stores_of_others(copy, tmp_path):
    info = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps({**info, "version": 2}))
    with pytest.raises(StoreError, match="Upgrade genaug"):
        SampleStore.open(copy)
    (copy / "dataset.json").write_text(json.dumps({**info, "format": "other"}))
    with pytest.raises(StoreError, match="of format 'other'"):
        SampleStore.open(copy)
    (copy / "dataset.json").unlink()
    with pytest.raises(StoreError, match=r"no dataset\.json"):
        SampleStore.open(copy)
    with pytest.raises(StoreError, match="no such folder"):
        SampleStore.open(tmp_path / "nowhere")


def test_training_needs_every_verdict(copy):
    verdicts = copy / "filters/dark/verdicts.jsonl"
    lines = verdicts.read_bytes().splitlines(keepends=True)
    verdicts.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(StoreError, match=r"filter 'dark' has not judged sample m_3_2.*genaug filter"):
        SampleStore.open(copy).training_view()
    verdicts.unlink()
    with pytest.raises(StoreError, match="has not judged sample m_0_0"):
        SampleStore.open(copy).training_view()


def test_an_unfinished_store_says_so(tmp_path):
    with open_writer(make_recipe(tmp_path)) as writer:
        writer.plan(4, 1, missing=4)
        writer.add([draw()], [made(draw())], {})
    store = SampleStore.open(tmp_path / "out")
    assert not store.complete
    with pytest.warns(UserWarning, match="1 of 4 samples"):
        assert len(store.training_view()) == 1


# ---------------------------------------------------------------------- writing


def test_a_sample_appears_only_with_its_row(tmp_path, monkeypatch):
    recipe = make_recipe(tmp_path)
    with open_writer(recipe) as writer:
        writer.add([draw()], [made(draw())], {"component": "x"})
        before = tree(tmp_path / "out")
        monkeypatch.setattr("genaug.store.journal.Journal.append", lambda *_: (_ for _ in ()).throw(StoreError("no")))
        with pytest.raises(StoreError, match="no"):
            writer.add([draw(k=1)], [made(draw(k=1))], {})
    after = tree(tmp_path / "out")
    assert set(after) - set(before) == {"images/a_1.png", "masks/a_1.png"}
    assert SampleStore.open(tmp_path / "out").keys() == ("a_0",)


def test_meta_that_is_no_json_leaves_no_files(tmp_path):
    with open_writer(make_recipe(tmp_path)) as writer:
        with pytest.raises(StoreError, match=r"meta of sample a_0: not JSON"):
            writer.add([draw()], [made(draw(), bad=object())], {})
        writer.add([draw(k=1), draw(k=2)], [made(draw(k=1)), Refused("why")], {})
    assert [p.name for p in (tmp_path / "out/images").iterdir()] == ["a_1.png"]
    store = SampleStore.open(tmp_path / "out")
    assert store.row("a_2")["refused"] == "why"
    assert len(store) == 1


def test_reopening_clears_what_a_crash_left(tmp_path):
    recipe = make_recipe(tmp_path)
    out = tmp_path / "out"
    with open_writer(recipe) as writer:
        writer.add([draw()], [made(draw())], {})
    clean = tree(out)
    for folder in (out, out / "images", out / "masks", out / "conditions"):
        (folder / ".tmp-all-0123").write_bytes(b"half")
    (out / "note.txt").write_text("the user's own")
    with (out / "manifest.jsonl").open("ab") as file:
        file.write(b'{"key": "a_1", "half a li')
    with open_writer(recipe) as writer:
        assert list(writer.store.index) == ["a_0"]
    assert tree(out) == {**clean, "note.txt": b"the user's own"}


def test_a_shard_leaves_the_others_alone(tmp_path):
    recipe = make_recipe(tmp_path)
    with open_writer(recipe, shard=Shard(1, 2)) as one:
        one.add([draw()], [made(draw())], {})
        (tmp_path / "out/images/.tmp-1-of-2-aa").write_bytes(b"being written")
        with open_writer(recipe, shard=Shard(2, 2)) as two:
            assert (tmp_path / "out/images/.tmp-1-of-2-aa").exists()
            assert list(two.store.index) == ["a_0"]
            two.add([draw(k=1)], [made(draw(k=1))], {})
        with pytest.raises(StoreError, match="already writing"), open_writer(recipe, shard=Shard(1, 2)):
            raise AssertionError
        with pytest.raises(StoreError, match="already writing"), open_writer(recipe):
            raise AssertionError
    assert sorted(SampleStore.open(tmp_path / "out").keys()) == ["a_0", "a_1"]
    with pytest.raises(StoreError, match="a shard cannot repair"), open_writer(recipe, shard=Shard(1, 2), repair=True):
        raise AssertionError
    with open_writer(recipe) as writer:  # alone, it folds the shards in
        assert sorted(writer.store.index) == ["a_0", "a_1"]
    assert [p.name for p in (tmp_path / "out").glob("*.jsonl")] == ["manifest.jsonl"]


def test_another_recipe_is_refused(tmp_path):
    with open_writer(make_recipe(tmp_path)) as writer:
        writer.add([draw()], [made(draw())], {})
    before = tree(tmp_path / "out")
    for change, text in [
        ({"seed": 4}, "seed is 4, was 3"),
        ({"generator": {"images_per_mask": 2}}, "generator.images_per_mask is 2, was 3"),
        ({"labels": {1: "grass", 4: "path"}}, "labels.names.4 is 'path', was 'road'"),
    ]:
        with pytest.raises(StoreError, match=text), open_writer(make_recipe(tmp_path, **change)):
            raise AssertionError
    assert tree(tmp_path / "out") == before
    # Filters and names do not decide samples.
    with open_writer(make_recipe(tmp_path, filters=FILTERS, name="other")) as writer:
        assert list(writer.store.index) == ["a_0"]
    assert SampleStore.open(tmp_path / "out").filters == ("dark", "rows")


def test_a_store_without_samples_takes_another_recipe(tmp_path):
    with open_writer(make_recipe(tmp_path)):
        pass
    with open_writer(make_recipe(tmp_path, seed=4)) as writer:
        writer.add([draw()], [made(draw())], {})
    assert SampleStore.open(tmp_path / "out").info["recipe"]["seed"] == 4


def test_folders_of_others_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("x")
    with (
        pytest.raises(StoreError, match=r"no sample store \(it holds 'thesis.tex'\)"),
        open_writer(make_recipe(tmp_path)),
    ):
        raise AssertionError
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["thesis.tex"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file"), open_writer(make_recipe(tmp_path, output="file")):
        raise AssertionError
    with pytest.raises(StoreError, match="create the folder"), open_writer(make_recipe(tmp_path, output="file/below")):
        raise AssertionError


def test_a_lost_dataset_file_can_be_repaired(copy):
    root = copy.parent
    recipe = make_recipe(root, filters=FILTERS)
    before = tree(copy)
    for damage in ("lost", "damaged"):
        if damage == "lost":
            (copy / "dataset.json").unlink()
        else:
            (copy / "dataset.json").write_text("{")
        with pytest.raises(StoreError, match=r"no sample store|damaged"):
            run(recipe, device="cpu", stages=["generate"])
        with pytest.raises(StoreError, match="seed is 8, was 3"):
            run(make_recipe(root, seed=8), device="cpu", stages=["generate"], repair=True)
        run(recipe, device="cpu", stages=["generate"], repair=True)
        assert tree(copy) == before


def test_filter_names_are_folders(tmp_path):
    filters = [{"use": "dark", "name": "../../etc"}]
    with pytest.raises(ConfigError, match=r"a filter called '\.\./\.\./etc'"):
        run(make_recipe(tmp_path, filters=filters), device="cpu", stages=OFFLINE)
    assert not (tmp_path / "out").exists()

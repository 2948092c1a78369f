"""Stores as datasets: what arrives is a store again, the Hub's own loader reads it, and no path travels along."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hub_folders import tree, write_store
from loopback import Entry
from PIL import Image

from genaug import SampleStore
from genaug.cli import group
from genaug.errors import StoreError
from genaug.hub.card import split_card
from genaug.hub.errors import HubError
from genaug.hub.pull import fetch, pull
from genaug.hub.push import push
from genaug.hub.reference import HubRef
from genaug.store.files import decode_png


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def published(hub, store):
    push(store, "me/noise", license="cc0-1.0", version="v1", tags=["noise"])
    return hub


def test_a_store_comes_back_as_it_was(published, store, tmp_path) -> None:
    report = pull("me/noise", tmp_path / "here")  # no model of that name: the dataset
    assert report["type"] == "dataset"
    here, there = SampleStore.open(tmp_path / "here"), SampleStore.open(store)
    assert here.verify() == []
    assert (here.keys(), here.info["samples_hash"]) == (there.keys(), there.info["samples_hash"])
    one, two = here.training_view(), there.training_view()
    assert one.keys == two.keys
    assert len(one) > 0
    for mine, theirs in zip(one, two, strict=True):
        assert np.array_equal(mine.image, theirs.image)
        assert np.array_equal(mine.mask, theirs.mask)
    images = {name: data for name, data in tree(store).items() if name.endswith(".png") and "report" not in name}
    assert {name: data for name, data in tree(tmp_path / "here").items() if name in images} == images
    assert pull("datasets/me/noise@v1", tmp_path / "here")["unchanged"]


def test_a_push_repeated_does_nothing_and_another_store_replaces(published, store, tmp_path) -> None:
    before = published.repos["dataset", "me/noise"].refs["main"]
    again = push(store, "me/noise", license="cc0-1.0", tags=["noise"])
    assert (again["unchanged"], again["commit"]) == (True, before)
    other = write_store(tmp_path / "other", seed=9, data={"odd_every": 2})
    report = push(other, "me/noise", license="cc0-1.0")
    assert not report["unchanged"]
    pull("datasets/me/noise", tmp_path / "here")
    assert SampleStore.open(tmp_path / "here").verify() == []


def test_a_dataset_of_somebody_elses_is_not_mixed_with_ours(hub, store) -> None:
    hub.put("me/photos", {"images/a.png": b"theirs"}, kind="dataset")
    with pytest.raises(HubError, match=r"files that genaug did not write, e.g. images/a.png"):
        push(store, "me/photos", license="mit")
    assert list(hub.repos["dataset", "me/photos"].files) == ["images/a.png"]


def test_a_store_where_a_path_is_taken(published, store) -> None:
    opened = SampleStore.open("hf-hub:datasets/me/noise@v1")
    assert opened.keys() == SampleStore.open(store).keys()
    assert opened[0].image is not None


def test_hosts_that_take_a_store(published, store) -> None:
    from genaug_albumentations import SyntheticSwap
    from genaug_torch import StoreDataset, UnlabeledImages

    name = "hf-hub:datasets/me/noise@v1"
    keys = SampleStore.open(store).training_view().keys
    assert StoreDataset(name).keys == keys
    images = UnlabeledImages(name)
    assert images.ids == keys
    assert np.array_equal(images[0].numpy(), UnlabeledImages(store)[0].numpy())
    swap = SyntheticSwap(store=name, labels=SampleStore.open(store).labels.to_dict(), draw="random", p=1.0)
    image, mask = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.uint8)
    assert swap(image=image, mask=mask)["image"].any()


def test_verbs_that_take_a_store(published, tmp_path) -> None:
    name, out = "hf-hub:datasets/me/noise@v1", str(tmp_path / "out")
    kept = len(SampleStore.open(name).training_view())
    exported = CliRunner().invoke(group, ["export", name, out, "--to", "coco-panoptic", "--dry-run", "--json"])
    assert json.loads(exported.stdout)["samples"] == kept
    reported = CliRunner().invoke(group, ["report", name, "--output", out, "--json"])
    assert reported.exit_code == 0, reported.output
    assert (tmp_path / "out/index.html").is_file()
    assert not list((tmp_path / "hf").rglob("index.html"))
    refused = CliRunner().invoke(group, ["report", name])
    assert (refused.exit_code, "Name a folder with --output" in refused.stderr) == (2, True)


def test_the_card_and_what_is_beside_it(published, store) -> None:
    files = published.repos["dataset", "me/noise"].files
    meta, text = split_card(files["README.md"].data.decode(), where="card")
    assert meta["license"] == "cc0-1.0"
    assert meta["tags"] == ["genaug", "synthetic", "noise"]
    assert meta["genaug"]["class_names"] == {1: "grass", 4: "road"}
    assert meta["genaug"]["ignore_index"] == 255
    assert "| 1 | grass |" in text
    assert json.loads(files["id2label.json"].data) == {"1": "grass", "4": "road"}
    opened = SampleStore.open(store)
    dropped = sum(
        not json.loads(line)["keep"] for line in (store / "filters/dark/verdicts.jsonl").read_text().splitlines()
    )
    assert f"| dropped by the filter dark | {dropped} | `genaug filter recipe.resolved.yaml` |" in text
    assert f"{len(opened)} **synthetic** images" in text
    assert yaml.safe_load(files["recipe.resolved.yaml"].data)["generator"]["use"] == "noise"
    assert Image.open(io.BytesIO(files["pictures/preview.png"].data)).width > opened[0].size[1]


PAGE = Path(__file__).resolve().parents[3] / "docs/how-to/publish.md"
#: After the lines of the page, which leave `rows`.
DIGESTS = """
import hashlib, json
import numpy as np
digest = lambda image: hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
print(json.dumps([[row["key"], row["kept"], digest(row["image"]), digest(row["mask"])] for row in rows]))
"""


def test_datasets_streams_it(published, store, tmp_path, monkeypatch) -> None:
    """As files and packed; in a process of its own: the library keeps what it read of the environment."""
    monkeypatch.setattr("genaug.hub.shards.MAX_PICTURES", 5)
    monkeypatch.setattr("genaug.hub.shards.SHARD_BYTES", 30_000)
    push(store, "me/packed", license="cc0-1.0")
    environment = {**os.environ, **published.environment(tmp_path / "other")}
    shown = next(
        text for text in re.findall(r"^```text\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S) if "datasets" in text
    )
    code = "".join(shown.replace("me/town", repo) + DIGESTS for repo in ("me/noise", "me/packed"))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    opened = SampleStore.open(store)
    trained_on = {sample.id: sample for sample in opened.training_view()}
    expected = [
        [key, key in trained_on, digest(opened[key].image), digest(trained_on[key].mask) if key in trained_on else None]
        for key in opened.keys()  # noqa: SIM118  (a store is no mapping)
    ]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(found) == 2
    for rows in found:
        assert [[*row[:3], row[3] if row[1] else None] for row in rows] == expected


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def test_no_path_of_this_machine_leaves_it(hub, store, tmp_path) -> None:
    copy = tmp_path / "store"
    for name, data in tree(store).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
    info = json.loads((copy / "dataset.json").read_text())
    info["recipe"]["data"]["images"] = "/home/somebody/photos/train"
    info["recipe"]["filters"][0]["predictor"] = {"path": "~/runs/base line"}
    (copy / "dataset.json").write_text(json.dumps(info))
    manifest = (copy / "manifest.jsonl").read_text().replace('"generator":{', '"generator":{"base":"/srv/models/sd",')
    (copy / "manifest.jsonl").write_text(manifest)
    rows = [json.loads(line) for line in (copy / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        row["generator"] = json.dumps({**json.loads(row["generator"]), "base": "/srv/models/sd"})
    (copy / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = push(copy, "me/noise", license="mit")
    sent = b"".join(entry.data for entry in hub.repos["dataset", "me/noise"].files.values() if not entry.large)
    for leak in (b"/home", b"somebody", b"photos", b"/srv", b"~/", str(tmp_path).encode()):
        assert leak not in sent
    assert b"<removed>/train" in sent
    assert b"<removed>/sd" in sent
    assert "2 paths of this machine are cut down" in report["notes"][0]
    pull("datasets/me/noise", tmp_path / "here")
    assert len(SampleStore.open(tmp_path / "here").training_view()) > 0


def test_unfinished_and_damaged_stores_are_not_published(store, tmp_path) -> None:
    from noise_helpers import go

    go(tmp_path / "a", stages=("generate",), filters=[{"use": "dark", "below": 1}])
    with pytest.raises(StoreError, match="has not judged"):
        push(tmp_path / "a/out", "me/x", license="mit", dry_run=True)
    info = json.loads((tmp_path / "a/out/dataset.json").read_text())
    (tmp_path / "a/out/dataset.json").write_text(json.dumps({**info, "complete": False}))
    with pytest.raises(StoreError, match=r"samples are made\. Run 'genaug run' to finish"):
        push(tmp_path / "a/out", "me/x", license="mit", dry_run=True)


# ---------------------------------------------------------------------- stores of people who mean harm


def tampered(hub, **changes) -> None:
    """Replace texts in the files of the published store."""
    repo = hub.repos["dataset", "me/noise"]
    files = dict(repo.files)
    for name, (old, new) in changes.items():
        place = {"manifest": "manifest.jsonl", "info": "dataset.json", "metadata": "metadata.jsonl"}[name]
        assert old in files[place].data
        files[place] = Entry(files[place].data.replace(old, new, 1), large=False)
    repo.commit(files)


@pytest.mark.parametrize(
    ("place", "old", "new", "message"),
    [
        ("manifest", b'"file":"images/m_0_0.png"', b'"file":"../../../../etc/passwd"', "are not in it, e.g. '../"),
        ("manifest", b'"id":"m_0"', b'"id":"../../x"', "are not in it"),
        ("manifest", b'"image":{', b'"image":3,"was":{', "a row has another form"),
        ("metadata", b'"mask_file_name":"', b'"mask_file_name":"/etc/', "are not in it, e.g. '/etc/"),
        ("info", b'"filters": [', b'"filters": ["../../x", ', "a filter called"),
        ("info", b'"version": 1', b'"version": 99', "store version 99. Allowed: at most 1"),
        ("manifest", b'"sha256":"', b'"sha256":"0', "its content is not what was written"),
    ],
)
def test_tables_that_speak_of_other_files(published, tmp_path, place, old, new, message) -> None:
    tampered(published, **{place: (old, new)})
    for call in (
        lambda: pull("datasets/me/noise", tmp_path / "here"),
        lambda: fetch(HubRef("me/noise", None, "dataset")),
    ):
        with pytest.raises(Exception, match=message) as error:
            call()
        assert "\n" not in str(error.value)
        assert type(error.value).__module__.startswith("genaug")
    assert not list(tmp_path.glob("here*"))


def header(width: int, height: int, kind: bytes) -> bytes:
    """A PNG that has a size and no pixels."""
    chunks = {b"IHDR": struct.pack(">II", width, height) + kind + bytes(3), b"IDAT": b"", b"IEND": b""}
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("part", "data", "message"),
    [
        ("image", header(100_000, 100_000, b"\x08\x02"), "a picture of 100,000 x 100,000 pixels. Allowed: at most"),
        ("mask", header(100_000, 100_000, b"\x08\x00"), "a picture of 100,000 x 100,000 pixels. Allowed: at most"),
        ("image", b"PK\x03\x04" + bytes(99), "no PNG"),
        ("mask", header(4, 4, b"\x08\x02"), "a PNG of 8 bits and colour type 2. Allowed: mode L"),
        ("image", header(4, 4, b"\x08\x02"), "a picture of 4 x 4 pixels, where its row speaks of another size"),
    ],
)
def test_pictures_that_are_not_what_they_are_called(published, store, tmp_path, part, data, message) -> None:
    repo = published.repos["dataset", "me/noise"]
    old = SampleStore.open(store).row("m_0_0")[part]
    new = {**old, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    rows = [json.loads(line) for line in repo.files["manifest.jsonl"].data.splitlines()]
    rows = [{**row, part: new} if row["key"] == "m_0_0" else row for row in rows]
    manifest = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    entry = Entry(data, large=True)
    published.blobs[entry.sha256] = data
    repo.commit({**repo.files, old["file"]: entry, "manifest.jsonl": Entry(manifest, large=False)})
    with pytest.raises(StoreError, match=message) as error:
        pull("datasets/me/noise", tmp_path / "here")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("here*"))


def test_a_picture_too_large_for_pillow_is_an_error_of_ours(tmp_path) -> None:
    for kind, mode in ((b"\x08\x02", "RGB"), (b"\x08\x00", "L")):
        with pytest.raises(StoreError, match="a picture too large for Pillow"):
            decode_png(header(100_000, 100_000, kind), mode, where=tmp_path / "x.png")


@pytest.mark.parametrize(
    ("place", "key", "value", "message"),
    [
        ("dataset.json", "labels", None, "it has no class names"),
        ("dataset.json", "labels", 5, "it has no class names"),
        ("dataset.json", "labels", "../x", "it has no class names"),
        ("dataset.json", "labels", {"names": "/etc/x.json"}, "it has no class names"),
        ("dataset.json", "filters", 5, "has another form"),
        ("dataset.json", "planned", "all", "has another form"),
        ("dataset.json", "recipe", [], "has another form"),
        ("filters/dark/filter.json", None, [], "damaged: cannot be read"),
        ("filters/dark/filter.json", None, {}, "damaged: cannot be read"),
    ],
)
def test_tables_of_another_form(published, tmp_path, place, key, value, message) -> None:
    repo = published.repos["dataset", "me/noise"]
    content = value if key is None else {**json.loads(repo.files[place].data), key: value}
    repo.commit({**repo.files, place: Entry(json.dumps(content).encode(), large=False)})
    with pytest.raises(StoreError, match=message) as error:
        pull("datasets/me/noise", tmp_path / "here")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("here*"))


@pytest.mark.parametrize(
    ("limit", "ids", "told"),
    [
        (10_000, ["m_0", "M_0"], "files 'conditions/M_0.png' and 'conditions/m_0.png', which are one where case"),
        (2, ["m_0", "M_0"], "files 'images/m_0_0.png' and 'images/M_0_0.png', which are one where case"),
        (2, ["m_0", "m:1"], "a file called 'images/m:1_0.png'"),
    ],
)
def test_samples_that_a_pull_refuses_are_not_published(hub, tmp_path, monkeypatch, limit, ids, told) -> None:
    """As files and packed: the message says which, and nothing is asked of the Hub."""
    monkeypatch.setattr("genaug_noise.NoiseMasks.ids", lambda _: ids)
    monkeypatch.setattr("genaug.hub.shards.MAX_PICTURES", limit)
    store = write_store(tmp_path, generator={"refuse": [], "images_per_mask": 1})
    for dry_run in (True, False):
        with pytest.raises(HubError, match=r"'genaug pull' would refuse it: .*the file it is made from") as error:
            push(store, "me/odd", license="mit", dry_run=dry_run)
        assert told in str(error.value)
    assert hub.log == []


def test_a_store_larger_than_allowed(published, tmp_path) -> None:
    with pytest.raises(HubError, match="--max-size"):
        pull("datasets/me/noise", tmp_path / "here", max_bytes=1000)


def test_a_reference_to_a_store_larger_than_allowed_says_what_to_do(published, monkeypatch) -> None:
    monkeypatch.setattr("genaug.hub.pull.MAX_BYTES", 1000)
    told = "If it is right, run 'genaug pull hf-hub:datasets/me/noise FOLDER --max-size GIB' once and name that folder"
    with pytest.raises(HubError, match=told):
        SampleStore.open("hf-hub:datasets/me/noise")

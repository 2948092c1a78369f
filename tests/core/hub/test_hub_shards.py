"""Stores with more pictures than the Hub takes files: packed in shards, sent one by one, made a store again."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow
import pytest
from hub_folders import tree, write_store
from loopback import Entry
from pyarrow import parquet

from genaug import SampleStore
from genaug.errors import ConfigError, GenaugError, MissingDependencyError
from genaug.hub import shards
from genaug.hub.card import split_card
from genaug.hub.errors import HubError
from genaug.hub.pull import fetch, pull
from genaug.hub.push import push
from genaug.hub.reference import cached_path, local_path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(shards, "MAX_PICTURES", 5)
    monkeypatch.setattr(shards, "SHARD_BYTES", 30_000)
    monkeypatch.setattr(shards, "GROUP", 2)


@pytest.fixture
def packed(hub, store, small_limits):
    push(store, "me/noise", license="mit")
    return hub


def pictures_of(folder) -> dict[str, bytes]:
    """What the store's tables speak of; a run's report is not published."""
    return {
        n: d for n, d in tree(folder).items() if n.endswith(".png") and n.split("/")[0] not in ("report", "pictures")
    }


def names_of(hub) -> set[str]:
    return set(hub.repos["dataset", "me/noise"].files)


def test_a_packed_store_comes_back_as_it_was(packed, store, tmp_path) -> None:
    repo = packed.repos["dataset", "me/noise"]
    assert not any(name.endswith(".png") for name in repo.files if name != "pictures/preview.png")
    kinds = [name.split("/")[1].split("-")[0] for name in repo.files if name.startswith("shards/")]
    assert kinds.count("train") > 1
    assert kinds.count("files") >= 1
    assert len(repo.commits) == 2  # the Hub's first, and one for everything
    report = pull("datasets/me/noise", tmp_path / "here")
    assert pictures_of(tmp_path / "here") == pictures_of(store)
    assert not (tmp_path / "here/shards").exists()
    assert SampleStore.open(tmp_path / "here").verify() == []
    assert not report["unchanged"]
    packed.log.clear()
    assert pull("datasets/me/noise", tmp_path / "here")["unchanged"]
    assert not packed.requests("resolve")
    next((tmp_path / "here/images").iterdir()).write_bytes(b"mine")
    with pytest.raises(ConfigError, match="holds something else"):
        pull("datasets/me/noise", tmp_path / "here")


def test_into_an_empty_folder_also_after_a_cut(packed, store, tmp_path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("genaug.hub.arrival.shutil.rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pull("datasets/me/noise", tmp_path / "here")
    pull("datasets/me/noise", tmp_path / "here")
    assert pictures_of(tmp_path / "here") == pictures_of(store)


def test_a_packed_push_repeated_does_nothing(packed, store, monkeypatch) -> None:
    packed.log.clear()
    assert push(store, "me/noise", license="mit")["unchanged"]
    assert packed.requests("PUT|/commit/|/preupload/") == []
    monkeypatch.setattr(shards, "MAX_PICTURES", 10_000)
    assert push(store, "me/noise", license="mit")["sent"] > 5
    assert not any(name.startswith("shards/") for name in names_of(packed))
    monkeypatch.setattr(shards, "MAX_PICTURES", 5)
    before = push(store, "me/noise", license="mit", dry_run=True)
    push(store, "me/noise", license="mit")
    assert names_of(packed) == {file["path"] for file in before["files"]} | {".gitattributes"}
    assert "pictures are packed in" in before["notes"][-1]


def test_a_push_that_broke_off_sends_only_what_is_missing(hub, store, small_limits, monkeypatch) -> None:
    sent: list[str] = []
    find = hub.fault

    def note(request: str):
        if request.startswith("PUT /_lfs/"):
            sent.append(request)
            if len(sent) == 3:
                hub.fail("PUT /_lfs/", 403, times=1)
        return find(request)

    monkeypatch.setattr(hub, "fault", note)
    with pytest.raises(HubError):
        push(store, "me/noise", license="mit")
    assert names_of(hub) == {".gitattributes"}  # nothing half-published
    arrived = set(sent[:2])
    push(store, "me/noise", license="mit")
    assert arrived.isdisjoint(sent[3:])
    assert "dataset.json" in names_of(hub)


def test_a_proposal_may_be_packed(hub, store, small_limits) -> None:
    theirs = hub.put("org/noise", {"x.txt": b""}, kind="dataset")
    report = push(store, "org/noise", license="mit", create_pr=True)
    assert list(theirs.files) == ["x.txt"]
    proposed = theirs.commits[theirs.refs["refs/pr/1"]]
    assert report["sent"] == len(report["files"]) == len(proposed) - 1
    assert "shards/train-00000.parquet" in proposed
    hub.log.clear()
    again = push(store, "org/noise", license="mit", create_pr=True)
    assert (again["unchanged"], again["pull_request"]) == (True, f"{hub.url}/datasets/org/noise/discussions/1")
    assert not hub.requests("PUT|preupload|/commit/")


def test_what_the_viewer_is_told(packed, store) -> None:
    files = packed.repos["dataset", "me/noise"].files
    meta, _ = split_card(files["README.md"].data.decode(), where="card")
    assert meta["configs"][0]["data_files"] == [{"split": "train", "path": ["shards/train-*.parquet"]}]
    names = sorted(name for name in files if name.startswith("shards/train"))
    tables = [parquet.read_table(io.BytesIO(files[name].data)) for name in names]
    assert len({table.schema for table in tables}) == 1
    features = json.loads(tables[0].schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}, "mask": {"_type": "Image"}}
    rows = [row for table in tables for row in table.to_pylist()]
    expected = [json.loads(line) for line in (store / "metadata.jsonl").read_text().splitlines()]
    for row, known in zip(rows, expected, strict=True):
        assert row["image"] == {"bytes": (store / known["file_name"]).read_bytes(), "path": known["file_name"]}
        assert row["mask"]["path"] == known["mask_file_name"]
        assert (row["key"], row["kept"], row["verdicts"]) == (known["key"], known["kept"], known["verdicts"])


def test_a_reference_to_a_packed_store_unpacks_it_once(packed, store, tmp_path, monkeypatch) -> None:
    commit = packed.repos["dataset", "me/noise"].refs["main"]
    packed.repos["dataset", "me/noise"].tags["v1"] = commit
    opened = SampleStore.open("hf-hub:datasets/me/noise")
    assert opened.verify() == []
    assert pictures_of(opened.path) == pictures_of(store)
    assert opened.path.is_relative_to(tmp_path / "hf/assets")  # the client's folder for what is made of its files
    assert not (opened.path / "shards").exists()
    packed.log.clear()
    fetch.cache_clear()
    for name in ("hf-hub:datasets/me/noise", f"hf-hub:datasets/me/noise@{commit}", "hf-hub:datasets/me/noise@v1"):
        assert local_path(name) == opened.path
    assert not packed.requests("resolve")
    monkeypatch.setattr(shards, "is_installed", lambda module: module != "pyarrow")  # not needed any more
    fetch.cache_clear()
    assert local_path("hf-hub:datasets/me/noise") == opened.path
    assert [path.name for path in opened.path.parents[1].iterdir() if path.name not in ("commits", "refs")] == []


def test_an_unpacked_store_is_there_offline_and_while_the_hub_is_down(packed, monkeypatch, caplog) -> None:
    opened = SampleStore.open("hf-hub:datasets/me/noise")
    commit = packed.repos["dataset", "me/noise"].refs["main"]
    packed.log.clear()
    fetch.cache_clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("hf-hub:datasets/me/noise", "hf-hub:datasets/me/noise@main", f"hf-hub:datasets/me/noise@{commit}"):
        assert local_path(name) == cached_path(name) == opened.path
    for revision in ("v2", "commits", "refs", "a/b", f"{commit}/images"):
        with pytest.raises(HubError, match="not in the local cache, and HF_HUB_OFFLINE"):
            local_path(f"hf-hub:datasets/me/noise@{revision}")
    assert packed.log == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    packed.fail("GET /api/", 503)
    fetch.cache_clear()
    assert local_path("hf-hub:datasets/me/noise") == opened.path
    assert "Using the copy of an earlier download" in caplog.text


def test_a_branch_that_is_packed_no_more(packed, store, monkeypatch) -> None:
    """Offline it is what it was when it was fetched last, in whichever form."""

    def fetched() -> list[Path]:
        found = []
        for offline in ("0", "1"):
            monkeypatch.setenv("HF_HUB_OFFLINE", offline)
            fetch.cache_clear()
            found.append(local_path("hf-hub:datasets/me/noise"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        return found

    first, kept = fetched()
    assert first == kept
    with monkeypatch.context() as patch:
        patch.setattr(shards, "MAX_PICTURES", 10_000)
        push(store, "me/noise", license="mit")
    plain, kept = fetched()
    assert plain == kept != first


def test_unpacking_for_a_reference_goes_on_after_a_cut(packed, store, monkeypatch) -> None:
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("genaug.hub.arrival.unpack_store", cut)
        with pytest.raises(KeyboardInterrupt):
            local_path("hf-hub:datasets/me/noise")
    assert cached_path("hf-hub:datasets/me/noise") is None
    packed.log.clear()
    assert pictures_of(local_path("hf-hub:datasets/me/noise")) == pictures_of(store)
    assert not packed.requests("GET /_lfs")  # the shards had arrived


def test_without_the_library_nothing_is_sent_or_fetched(packed, store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shards, "is_installed", lambda module: module != "pyarrow")
    packed.log.clear()
    with pytest.raises(MissingDependencyError, match=r"pip install 'genaug\[data\]'"):
        push(store, "me/noise", license="mit")
    assert packed.log == []
    with pytest.raises(MissingDependencyError, match=r"pip install 'genaug\[data\]'"):
        pull("datasets/me/noise", tmp_path / "here")
    with pytest.raises(MissingDependencyError, match=r"pip install 'genaug\[data\]'"):
        local_path("hf-hub:datasets/me/noise")
    assert not packed.requests("resolve")


def shard(name: str, data: bytes = b"x", **how) -> bytes:
    table = pyarrow.table({"file": [{"bytes": data, "path": name}]})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, **{"compression": "none", "use_dictionary": False, **how})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (shard("../../up.png"), "'../../up.png', which no table"),
        (shard("images/more.png"), "which no table of the store speaks of"),
        (shard("images/m_0_0.png"), "m_0_0.png: damaged: 1 bytes"),
        (shard("images/m_0_0.png", bytes(10**6), compression="zstd"), "packed otherwise"),
        (shard("images/m_0_0.png", use_dictionary=True), "packed otherwise"),
        (b"PAR1 and no more", "damaged"),
        (parquet.ParquetFile, "damaged"),
    ],
)
def test_shards_of_people_who_mean_harm(packed, tmp_path, data, message) -> None:
    if not isinstance(data, bytes):  # a picture that is no table
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.table({"file": [3]}), buffer, compression="none", use_dictionary=False)
        data = buffer.getvalue()
    repo = packed.repos["dataset", "me/noise"]
    entry = Entry(data, large=True)
    packed.blobs[entry.sha256] = data
    repo.commit({**repo.files, "shards/train-99999.parquet": entry})
    for call in (lambda: pull("datasets/me/noise", tmp_path / "here"), lambda: local_path("hf-hub:datasets/me/noise")):
        with pytest.raises(GenaugError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "hf") == []
    assert not [path for path in (tmp_path / "hf/assets").rglob("*") if path.is_file()]


def test_a_full_disk_keeps_what_was_fetched(packed, store, tmp_path, monkeypatch) -> None:
    def full(*arguments, **more) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards.Packed, "write", full)
        with pytest.raises(GenaugError, match="the disk is full"):
            push(store, "me/other", license="mit")
    monkeypatch.setattr(shards.Path, "write_bytes", full)
    with pytest.raises(GenaugError, match="the disk is full"):
        pull("datasets/me/noise", tmp_path / "here")
    assert list((tmp_path / "here.partial/shards").iterdir())

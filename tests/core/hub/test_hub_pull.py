"""Fetching through the real client: by revision, again, after a cut; from the cache, offline; and what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hub_folders import tree, write_adapter
from loopback import TOKENS, Entry

from genaug import LabelSpace, Registry
from genaug.errors import AdapterError, ConfigError
from genaug.hub.errors import HubError, NotOnHubError
from genaug.hub.pull import cached, fetch, pull
from genaug.hub.push import push
from genaug.hub.reference import HubRef, local_path
from genaug.recipe import BuildContext, predictor_of


@pytest.fixture
def adapter(tmp_path):
    return write_adapter(tmp_path / "adapter")


@pytest.fixture
def published(hub, adapter):
    push(adapter, "me/scenes", license="mit", version="v1")
    hub.log.clear()
    return hub


# ---------------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", HubRef("org/name")),
        ("hf-hub:org/name@v1", HubRef("org/name", "v1")),
        ("hf-hub:datasets/org/name", HubRef("org/name", None, "dataset")),
        ("datasets/org/name@refs/pr/3", HubRef("org/name", "refs/pr/3", "dataset")),
    ],
)
def test_references(text, expected) -> None:
    assert HubRef.parse(text) == expected
    assert HubRef.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["name", "a/b/c", "a/b@", "a/b@../x", "a/b@-x", "../b", "a/b@x y", "a/b@x/../y", "/a/b"]
)
def test_what_is_no_reference(text) -> None:
    with pytest.raises(ConfigError):
        HubRef.parse(text)


def test_a_revision_is_said_once() -> None:
    assert HubRef.parse("a/b", revision="v1").revision == "v1"
    assert HubRef.parse("a/b@v1", revision="v1").revision == "v1"
    with pytest.raises(ConfigError, match="one revision"):
        HubRef.parse("a/b@v1", revision="v2")


def test_paths_stay_paths(tmp_path) -> None:
    assert local_path("a/b", tmp_path) == tmp_path / "a/b"
    assert local_path("~/x") == Path.home() / "x"


# ---------------------------------------------------------------------- a folder of one's own


def test_pull_brings_what_was_pushed(published, adapter, tmp_path) -> None:
    report = pull("me/scenes", tmp_path / "here")
    files = tree(tmp_path / "here")
    assert sorted(files) == sorted(f["path"] for f in report["files"])
    assert files["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    assert (report["type"], report["skipped"]) == ("model", [".gitattributes"])
    assert sorted(p.name for p in tmp_path.iterdir() if "here" in p.name) == ["here"]  # no leftovers
    published.log.clear()
    again = pull("me/scenes", tmp_path / "here")
    assert again["unchanged"]
    assert not published.requests("resolve")
    (tmp_path / "here/README.md").write_text("mine")
    with pytest.raises(ConfigError, match="the folder holds something else"):
        pull("me/scenes", tmp_path / "here")
    assert (tmp_path / "here/README.md").read_text() == "mine"


def test_pull_into_the_current_folder(published, tmp_path, monkeypatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    inode = Path.cwd().stat().st_ino
    report = pull("me/scenes", ".")
    assert Path.cwd().stat().st_ino == inode  # the shell's own folder, not another of its name
    assert sorted(tree(Path())) == sorted(f["path"] for f in report["files"])
    assert not Path(".genaug-partial").exists()
    assert pull("me/scenes", ".")["unchanged"]
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_a_folder_that_was_cut_while_it_was_filled_is_filled_again(published, tmp_path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    move, moved = Path.replace, []

    def cut(path: Path, place: Path) -> None:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(move(path, place))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            pull("me/scenes", tmp_path / "here")
    files = {f["path"] for f in pull("me/scenes", tmp_path / "here")["files"]}
    assert set(tree(tmp_path / "here")) == files
    (tmp_path / "here/.genaug-partial").mkdir()
    (tmp_path / "here/README.md").write_text("mine")
    with pytest.raises(ConfigError, match="the folder holds something else"):
        pull("me/scenes", tmp_path / "here")
    assert (tmp_path / "here/README.md").read_text() == "mine"


def test_what_was_refused_leaves_an_empty_folder_empty(published, tmp_path) -> None:
    repo = published.repos["model", "me/scenes"]
    repo.commit({**repo.files, "genaug_config.json": Entry(b"[]", large=False)})
    (tmp_path / "here").mkdir()
    with pytest.raises(AdapterError):
        pull("me/scenes", tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


def test_links_as_folders(published, tmp_path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="gone: a link that leads nowhere"):
        pull("me/scenes", tmp_path / "gone")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    pull("me/scenes", tmp_path / "link")
    assert (tmp_path / "real/README.md").is_file()
    assert (tmp_path / "link").is_symlink()


def test_an_organisation_called_like_the_prefix_of_datasets(hub, adapter, tmp_path) -> None:
    push(adapter, "me/scenes", license="mit")
    hub.put("mydatasets/scenes", dict(hub.repos["model", "me/scenes"].files), kind="dataset")
    assert pull("mydatasets/scenes", tmp_path / "here", dry_run=True)["type"] == "dataset"


def test_revisions(published, adapter, tmp_path) -> None:
    first = published.repos["model", "me/scenes"].refs["main"]
    push(adapter, "me/scenes", license="apache-2.0")
    for name, revision in (("tag", "v1"), ("commit", first)):
        assert pull("me/scenes", tmp_path / name, revision=revision)["commit"] == first
        assert "license: mit" in (tmp_path / name / "README.md").read_text()
    pull("me/scenes@main", tmp_path / "now")
    assert "license: apache-2.0" in (tmp_path / "now/README.md").read_text()
    with pytest.raises(HubError, match=r"no revision 'v9'\. Allowed: a branch, a tag or a commit"):
        pull("me/scenes@v9", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_dry_run_writes_nothing(published, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = pull("me/scenes", dry_run=True)
    assert report["folder"] == "scenes"
    assert not Path("scenes").exists()
    assert not published.requests("resolve")


def test_a_cut_transfer_goes_on_where_it_was(published, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    weights = published.repos["model", "me/scenes"].files["adapter_model.safetensors"]
    published.fail(f"GET /_lfs/{weights.sha256}", kind="cut", after=1000, times=1)
    pull("me/scenes", tmp_path / "here")
    assert [status for _, status, _ in published.requests(weights.sha256)] == [200, 206]  # the rest, by its range
    assert (tmp_path / "here/adapter_model.safetensors").read_bytes() == weights.data


def test_a_pull_that_failed_fetches_only_what_is_missing(published, tmp_path) -> None:
    weights = published.repos["model", "me/scenes"].files["adapter_model.safetensors"]
    published.fail(f"GET /_lfs/{weights.sha256}", kind="cut", after=0)
    with pytest.raises(HubError, match=r"the connection to the Hub failed .*Run the same command again") as error:
        pull("me/scenes", tmp_path / "here")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "here").exists()
    published.faults.clear()
    published.log.clear()
    pull("me/scenes", tmp_path / "here")
    fetched = {name for name, _, _ in published.requests("GET /(_lfs|me/scenes/resolve)")}
    assert f"GET /_lfs/{weights.sha256}" in fetched
    assert not any("genaug_config.json" in name for name in fetched)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("there", ["README.md/old/x.json", "old.json/x.json", "pictures"])
def test_what_another_commit_left_is_not_in_the_way_and_goes(published, tmp_path, there) -> None:
    """A folder where there is a file now, one that is not there any more, a file where there is a folder now."""
    path = tmp_path / "here.partial" / there
    path.parent.mkdir(parents=True)
    path.write_text("old")
    report = pull("me/scenes", tmp_path / "here")
    places = {p.relative_to(tmp_path / "here").as_posix() for p in (tmp_path / "here").rglob("*")}
    assert places == {file["path"] for file in report["files"]} | {"pictures"}


def test_damaged_bytes_are_noticed(published, tmp_path) -> None:
    weights = published.repos["model", "me/scenes"].files["adapter_model.safetensors"]
    published.fail(f"GET /_lfs/{weights.sha256}", kind="corrupt", times=1)
    with pytest.raises(HubError, match=r"adapter_model.safetensors arrived damaged.*only this file is fetched"):
        pull("me/scenes", tmp_path / "here")
    assert not (tmp_path / "here").exists()
    pull("me/scenes", tmp_path / "here")
    published.fail(f"GET /_lfs/{weights.sha256}", kind="corrupt", times=1)
    with pytest.raises(HubError, match="arrived damaged"):
        fetch(HubRef("me/scenes"))
    assert (fetch(HubRef("me/scenes")) / "adapter_model.safetensors").is_file()


def test_a_link_in_the_way_is_not_followed(published, tmp_path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "here.partial").mkdir()
    (tmp_path / "here.partial/pictures").symlink_to(outside)
    with pytest.raises(ConfigError, match="a link, which may lead anywhere"):
        pull("me/scenes", tmp_path / "here")
    assert list(outside.iterdir()) == []


def test_private_repositories(hub, adapter, tmp_path, monkeypatch) -> None:
    push(adapter, "me/hidden", license="mit", private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(NotOnHubError, match=r"no such repository, or a private one.*log in with 'hf auth login'"):
        pull("me/hidden", tmp_path / "here")
    pull("me/hidden", tmp_path / "here", token=TOKENS["me"])
    assert (tmp_path / "here/README.md").is_file()
    monkeypatch.setenv("HF_TOKEN", TOKENS["me"])
    fetch(HubRef("me/hidden"))
    assert not any(TOKENS["me"].encode() in data for data in tree(tmp_path).values())  # the caches' notes included


def test_repositories_of_nothing_of_ours(hub, tmp_path) -> None:
    hub.put("org/other", {"README.md": b"x", "model.safetensors": b"x"})
    with pytest.raises(HubError, match="no adapter and no store of genaug"):
        pull("org/other", tmp_path / "here")


# ---------------------------------------------------------------------- hf-hub: where a path is taken


def test_a_reference_is_fetched_once_and_kept_for_offline(published, adapter, monkeypatch) -> None:
    folder = local_path("hf-hub:me/scenes@v1")
    assert (folder / "adapter_model.safetensors").read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()
    assert str(folder).startswith(os.environ["HF_HOME"])
    assert not (folder / ".gitattributes").exists()
    assert local_path("hf-hub:me/scenes") == folder  # the same commit
    published.log.clear()
    fetch.cache_clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert local_path("hf-hub:me/scenes@v1") == local_path("hf-hub:me/scenes@main") == folder
    assert published.log == []
    with pytest.raises(HubError, match=r"not in the local cache, and HF_HUB_OFFLINE keeps"):
        local_path("hf-hub:me/scenes@v2")
    for call in (lambda: pull("me/scenes"), lambda: push(adapter, "me/scenes", license="mit")):
        with pytest.raises(HubError, match="HF_HUB_OFFLINE keeps genaug from asking the Hub"):
            call()
    assert published.log == []


def test_a_hub_that_is_down_does_not_stop_who_has_a_copy(published, caplog) -> None:
    folder = local_path("hf-hub:me/scenes")
    fetch.cache_clear()
    published.fail("GET /api/", 503)
    assert local_path("hf-hub:me/scenes") == folder
    assert "the Hub has trouble of its own (503)" in caplog.text
    assert "Using the copy of an earlier download" in caplog.text
    with pytest.raises(HubError, match=r"trouble of its own \(503\)"):
        local_path("hf-hub:me/others")


def test_looking_for_a_copy_asks_nobody(published) -> None:
    assert cached(HubRef("me/scenes")) is None
    local_path("hf-hub:me/scenes")
    published.log.clear()
    assert cached(HubRef("me/scenes")) is not None
    assert published.log == []


def test_models_that_are_no_adapters_come_without_pickles_and_code(hub) -> None:
    from hub_folders import weights

    files = {
        "config.json": b"{}",
        "model.safetensors": weights(),
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"code",
    }
    hub.put("org/segmenter", files)
    assert sorted(tree(local_path("hf-hub:org/segmenter"))) == ["config.json", "model.safetensors"]
    assert not hub.requests("bin|modeling")
    context = BuildContext(Path(), LabelSpace({0: "a"}), Registry([]))
    assert predictor_of(context.path("hf-hub:org/segmenter"), "filters.0.predictor") == "transformers"

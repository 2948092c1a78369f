"""Publishing an adapter through the real client: what arrives, what never leaves, and what a second push does."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import yaml
from hub_folders import tree, write_adapter
from loopback import TOKENS, Entry
from PIL import Image

from genaug.errors import AdapterError, ConfigError
from genaug.hub.card import split_card
from genaug.hub.errors import HubError
from genaug.hub.licenses import LICENSES
from genaug.hub.push import push


@pytest.fixture
def adapter(tmp_path):
    return write_adapter(tmp_path / "adapter")


def test_a_push_arrives_whole_in_one_commit(hub, adapter) -> None:
    before = tree(adapter)
    report = push(adapter, "me/scenes", license="cc-by-4.0", version="v1")
    repo = hub.repos["model", "me/scenes"]
    assert sorted(repo.files) == [
        ".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "genaug_config.json",
        "pictures/losses.png", "pictures/preview.png",
    ]  # fmt: skip
    assert repo.files["adapter_model.safetensors"].data == before["adapter_model.safetensors"]
    assert repo.files["adapter_model.safetensors"].large
    assert not repo.files["README.md"].large
    assert len(repo.commits) == 2  # the Hub's first, and this one
    assert (report["sent"], report["unchanged"], report["commit"]) == (6, False, repo.refs["main"])
    assert repo.tags == {"v1": report["commit"]}
    assert tree(adapter) == before
    # The newest preview, not an older one.
    assert Image.open(io.BytesIO(repo.files["pictures/preview.png"].data)).getpixel((0, 0)) == (70, 0, 0)


def test_a_push_repeated_does_nothing(hub, adapter) -> None:
    first = push(adapter, "me/scenes", license="cc-by-4.0", version="v1")
    hub.log.clear()
    again = push(adapter, "me/scenes", license="cc-by-4.0", version="v1")
    assert (again["unchanged"], again["sent"], again["commit"]) == (True, 0, first["commit"])
    assert hub.requests("/commit/|/preupload/|lfs|/tag/") == []
    (adapter / "losses.png").unlink()
    third = push(adapter, "me/scenes", license="mit")
    assert (third["sent"], third["removed"], third["unchanged"]) == (1, 1, False)
    assert "pictures/losses.png" not in hub.repos["model", "me/scenes"].files


def test_the_token_goes_to_the_hub_only_and_is_kept_nowhere(hub, adapter, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    report = push(adapter, "me/scenes", license="mit", token=TOKENS["me"])
    for request, status, with_token in hub.log:
        assert status < 400
        assert with_token != request.startswith("PUT /_lfs/")
    assert TOKENS["me"] not in json.dumps(report)
    assert not any(TOKENS["me"].encode() in data for data in tree(tmp_path).values())
    assert not any(TOKENS["me"].encode() in entry.data for entry in hub.repos["model", "me/scenes"].files.values())


def test_private_is_private_or_an_error(hub, adapter) -> None:
    push(adapter, "me/hidden", license="mit", private=True)
    assert hub.repos["model", "me/hidden"].private
    hub.put("me/open", {"x.txt": b""})
    with pytest.raises(HubError, match="there already, and it is public"):
        push(adapter, "me/open", license="mit", private=True)
    assert list(hub.repos["model", "me/open"].files) == ["x.txt"]


def test_a_proposal_leaves_the_main_branch_alone(hub, adapter) -> None:
    theirs = hub.put("org/scenes", {"x.txt": b""})
    report = push(adapter, "org/scenes", license="mit", create_pr=True)
    assert list(theirs.files) == ["x.txt"]
    assert "adapter_model.safetensors" in theirs.commits[theirs.refs["refs/pr/1"]]
    assert report["pull_request"] == f"{hub.url}/org/scenes/discussions/1"
    assert hub.requests("create$") == []
    with pytest.raises(ConfigError, match="a version of a proposal"):
        push(adapter, "org/scenes", license="mit", create_pr=True, version="v1")


def test_a_proposal_repeated_does_nothing(hub, adapter) -> None:
    theirs = hub.put("org/scenes", {"x.txt": b""})
    for license in ("mit", "apache-2.0"):
        push(adapter, "org/scenes", license=license, create_pr=True)
    theirs.proposals.insert(0, {**theirs.proposals[0], "num": 9, "title": "somebody's words", "status": "open"})
    commits = len(theirs.commits)
    for license, number in (("mit", 1), ("apache-2.0", 2)):
        again = push(adapter, "org/scenes", license=license, create_pr=True)
        assert (again["unchanged"], again["sent"], again["removed"]) == (True, 0, 0)
        assert again["pull_request"] == f"{hub.url}/org/scenes/discussions/{number}"
        assert again["commit"] == theirs.refs[f"refs/pr/{number}"]
    assert len(theirs.commits) == commits
    assert not hub.requests("refs/pr/9")  # not one of ours
    theirs.proposals[1]["status"] = "closed"
    assert not push(adapter, "org/scenes", license="mit", create_pr=True)["unchanged"]


def test_a_proposal_that_leaves_something_more_is_another_one(hub, adapter) -> None:
    theirs = hub.put("org/scenes", {"x.txt": b""})
    push(adapter, "org/scenes", license="mit", create_pr=True)
    push(adapter, "org/scenes", license="mit", create_pr=True, pictures=False)
    assert len(theirs.proposals) == 2
    proposed = theirs.commits[theirs.refs["refs/pr/1"]]
    theirs.commit({**theirs.files, **proposed})  # merged, without the proposal's page being closed
    assert push(adapter, "org/scenes", license="mit", create_pr=True, pictures=False)["pull_request"].endswith("/2")
    hub.fail("GET .*/discussions", 403, headers={"X-Error-Message": "discussions are disabled"})
    with pytest.raises(HubError, match="discussions are disabled"):
        push(adapter, "org/scenes", license="mit", create_pr=True)


def test_a_version_stays_what_it_is(hub, adapter) -> None:
    push(adapter, "me/scenes", license="mit", version="v1")
    with pytest.raises(HubError, match=r"version 'v1' is another commit already\. Others rely on it"):
        push(adapter, "me/scenes", license="apache-2.0", version="v1")


def test_an_adapter_of_another_method_is_not_written_over(hub, adapter, tmp_path) -> None:
    push(adapter, "me/scenes", license="mit")
    other = write_adapter(tmp_path / "other", method="scribblegen")
    with pytest.raises(HubError, match=r"it holds an adapter of 'matchmask'. Choose another name"):
        push(other, "me/scenes", license="mit")


def test_what_genaug_did_not_write_is_not_written_over(hub, adapter) -> None:
    hub.put("me/lora", {"README.md": b"theirs", "adapter_model.safetensors": b"theirs"})
    with pytest.raises(HubError, match=r"files that genaug did not write, e.g. adapter_model.safetensors\. Choose"):
        push(adapter, "me/lora", license="mit")
    assert hub.repos["model", "me/lora"].files["adapter_model.safetensors"].data == b"theirs"
    push(adapter, "me/scenes", license="mit")
    repo = hub.repos["model", "me/scenes"]
    repo.commit({**repo.files, "pictures/mine.png": Entry(b"mine", True), "notes.md": Entry(b"mine", False)})
    push(adapter, "me/scenes", license="apache-2.0", pictures=False)
    assert {"pictures/mine.png", "notes.md"} < set(repo.files)
    assert "pictures/preview.png" not in repo.files


def test_a_dry_run_asks_nobody(adapter, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    report = push(adapter, "me/scenes", license="mit", dry_run=True)
    assert report["dry_run"]
    assert "commit" not in report
    assert {file["path"]: file["bytes"] for file in report["files"]}["adapter_model.safetensors"] > 19_000
    assert report["card"].startswith("---\nlicense: mit\n")


# ---------------------------------------------------------------------- what a card says


def test_the_card(hub, adapter, tmp_path) -> None:
    figures = tmp_path / "figures.yaml"
    figures.write_text(yaml.safe_dump([{"name": "mIoU", "value": 51.5, "command": "genaug quickstart"}]))
    card = push(adapter, "me/scenes", license="mit", tags=["roads"], figures=figures, dry_run=True)["card"]
    meta, text = split_card(card, where="card")
    assert meta == {
        "license": "mit",
        "library_name": "peft",
        "base_model": "some/base",
        "base_model_relation": "adapter",
        "tags": ["genaug", "lora", "matchmask", "roads"],
    }
    assert text.startswith("# For some/base\n\nWords.\n")
    assert "| 1 | grass |\n| 4 | road\\|way |" in text
    assert "![preview.png](pictures/preview.png)" in text
    assert "| mIoU | 51.5 | `genaug quickstart` |" in text
    assert "| training steps | 70 | `genaug adapt RECIPE` |" in text
    assert "Base model: `some/base`, revision `abc`" in text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe["generator"] == {"use": "matchmask", "base": "some/base", "adapter": "hf-hub:me/scenes"}


def test_pictures_are_told_of_and_may_stay_at_home(adapter) -> None:
    assert any("labelled images" in note for note in push(adapter, "me/x", license="mit", dry_run=True)["notes"])
    report = push(adapter, "me/x", license="mit", pictures=False, dry_run=True)
    assert not any("pictures" in file["path"] for file in report["files"])
    assert "## Pictures" not in report["card"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "no list of figures"),
        ("[{name: a, value: 1}]", r"figures.yaml.0.command: is missing"),
        ("[{name: a, value: 1, command: python /srv/team/x.py}]", "holds a path of this machine"),
    ],
)
def test_figures_without_a_command_are_refused(adapter, tmp_path, text, message) -> None:
    path = tmp_path / "figures.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        push(adapter, "me/x", license="mit", figures=path, dry_run=True)


# ---------------------------------------------------------------------- what is refused before anything is sent


def test_the_license_has_no_default(adapter) -> None:
    with pytest.raises(
        ConfigError, match=r"license: no license was chosen. Allowed: apache-2.0, mit, .*Choose it"
    ) as error:
        push(adapter, "me/x", license=None)
    assert all(name in str(error.value) for name in LICENSES)
    with pytest.raises(ConfigError, match=r"'apache2'.*Did you mean 'apache-2.0'"):
        push(adapter, "me/x", license="apache2")


def test_an_adapter_is_no_dataset(hub, adapter) -> None:
    with pytest.raises(ConfigError, match=r"is a dataset, and the folder holds an adapter. Adapters are .* me/scenes"):
        push(adapter, "datasets/me/scenes", license="mit")
    assert hub.log == []


@pytest.mark.parametrize("repo", ["x", "a/b/c", "me/../x", "me/a--b..c", "me/" + "x" * 97, "me/x y"])
def test_names_that_no_repository_has(adapter, repo) -> None:
    with pytest.raises(ConfigError, match="is no name of a repository"):
        push(adapter, repo, license="mit", dry_run=True)


def test_folders_that_are_neither(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no such folder.*genaug_config.json.*dataset.json"):
        push(tmp_path / "nowhere", "me/x", license="mit")
    with pytest.raises(ConfigError, match="neither an adapter nor a store"):
        push(tmp_path, "me/x", license="mit")


def test_a_base_that_only_this_machine_has(hub, tmp_path) -> None:
    adapter = write_adapter(tmp_path / "a", base=f"{tmp_path}/models/sd")
    with pytest.raises(ConfigError, match=r"is a folder of this machine.*--base org/name"):
        push(adapter, "me/x", license="mit", dry_run=True)
    push(adapter, "me/x", license="mit", base="org/sd", base_revision="v5")
    files = hub.repos["model", "me/x"].files
    config = json.loads(files["genaug_config.json"].data)
    assert (config["base"], config["revision"]) == ("org/sd", "v5")
    peft = json.loads(files["adapter_config.json"].data)
    assert (peft["base_model_name_or_path"], peft["revision"]) == ("org/sd", "v5")
    assert not any(str(tmp_path).encode() in entry.data for entry in files.values())
    assert files["README.md"].data.count(b"org/sd") >= 4


def test_no_path_of_this_machine_leaves_it(hub, tmp_path) -> None:
    record = {"samples": 3, "data": "/home/somebody/photos/list.txt", "cache": "C:\\Users\\x\\y", "note": "see ~/a/b"}
    adapter = write_adapter(tmp_path / "a", training=record, source="file:///srv/data")
    (adapter / "README.md").write_text("Made from /mnt/disk one/x and /mnt/disk/two.\nhttps://x.org/a/b 1/16 and/or\n")
    report = push(adapter, "me/x", license="mit")
    files = hub.repos["model", "me/x"].files
    sent = b"".join(entry.data for entry in files.values())
    for leak in (b"/home", b"somebody", b"photos", b"Users", b"/srv", b"/mnt", b"~/a"):
        assert leak not in sent
    config = json.loads(files["genaug_config.json"].data)
    assert config["training"]["data"] == "<removed>/list.txt"
    assert b"https://x.org/a/b 1/16 and/or" in files["README.md"].data
    assert sum("path of this machine" in note for note in report["notes"]) == 4


def test_weights_that_name_a_path_are_refused(tmp_path) -> None:
    from safetensors.numpy import save

    data = save({"a": np.zeros(2, np.float32)}, metadata={"trained_on": "/home/somebody/photos"})
    adapter = write_adapter(tmp_path / "a", data=data)
    with pytest.raises(AdapterError, match="it holds a path of this machine"):
        push(adapter, "me/x", license="mit", dry_run=True)


def test_links_out_of_the_folder_are_not_followed(tmp_path, adapter) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (2, 2)).save(secret)
    (adapter / "losses.png").unlink()
    (adapter / "losses.png").symlink_to(secret)
    with pytest.raises(ConfigError, match="a link that leads out of the folder"):
        push(adapter, "me/x", license="mit", dry_run=True)


def test_a_picture_that_is_none(adapter) -> None:
    (adapter / "losses.png").write_bytes(b"no picture")
    with pytest.raises(AdapterError, match=r"losses.png: no picture .*--no-pictures"):
        push(adapter, "me/x", license="mit", dry_run=True)
    push(adapter, "me/x", license="mit", pictures=False, dry_run=True)


def test_names_that_a_pull_refuses(hub, tmp_path, adapter) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "a:b.safetensors")
    for dry_run in (True, False):
        with pytest.raises(
            HubError, match=r"'genaug pull' would refuse it: a file called 'a:b.safetensors'\. Allowed: na"
        ):
            push(adapter, "me/x", license="mit", dry_run=dry_run)
    assert hub.log == []
    (adapter / "a:b.safetensors").rename(adapter / ".weights.safetensors")
    with pytest.raises(HubError, match=r"'\.weights\.safetensors', which is hidden"):
        push(adapter, "me/x", license="mit")
    assert hub.log == []


def test_names_that_clash_with_what_is_there(hub, adapter) -> None:
    theirs = hub.put("me/x", {"Readme.MD": b"theirs", "Readme.md": b"theirs", "run.PY": b"", "run.py": b""})
    with pytest.raises(HubError, match=r"files 'README.md' and 'Readme.md', which are one where case") as error:
        push(adapter, "me/x", license="mit")
    assert "run" not in str(error.value)  # of a type that is never fetched
    assert len(theirs.commits) == 1
    repo = hub.put("me/y", {"a:b.txt": b"theirs"})
    with pytest.raises(HubError, match=r"hf-hub:me/y: 'genaug pull' would refuse it: a file called 'a:b.txt'"):
        push(adapter, "me/y", license="mit")
    assert list(repo.files) == ["a:b.txt"]


def test_unfinished_damaged_and_nan_adapters_are_not_published(tmp_path, adapter) -> None:
    from hub_folders import weights

    (adapter / "adapter_model.safetensors").write_bytes(weights()[:-1])
    with pytest.raises(AdapterError, match="missing or damaged: weights"):
        push(adapter, "me/x", license="mit", dry_run=True)
    bad = write_adapter(tmp_path / "b", data=weights(x=np.array([1.0, np.nan])))
    with pytest.raises(AdapterError, match="'x' holds NaN or infinity"):
        push(bad, "me/x", license="mit", dry_run=True)
    old = write_adapter(tmp_path / "c", weights_sha256=None)
    with pytest.raises(AdapterError, match=r"records no weights. Adapt again"):
        push(old, "me/x", license="mit", dry_run=True)

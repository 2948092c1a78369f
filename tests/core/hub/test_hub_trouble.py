"""Every way the Hub can say no, or break off: one line that says what to do, and nothing half-written."""

from __future__ import annotations

import re

import pytest
from hub_folders import tree, write_adapter
from loopback import TOKENS

from genaug.hub.errors import HubError
from genaug.hub.pull import pull
from genaug.hub.push import push

SECRET = TOKENS["me"]


@pytest.fixture
def adapter(tmp_path):
    return write_adapter(tmp_path / "adapter")


def refused(call) -> str:
    """One line, and not a word of the token."""
    with pytest.raises(HubError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert SECRET not in text
    assert text.startswith("hf-hub:")
    return text


CREATE, UPLOAD, LARGE, COMMIT = "POST /api/repos/create", "POST .*/preupload", "PUT /_lfs/", "POST .*/commit/"


BATCH, VERIFY, TREE = "POST .*/objects/batch", "POST /_lfs/verify", "GET .*/tree"
TROUBLE = "the Hub has trouble of its own .503.*Run the same command again"
FORBIDDEN = "this account may not do that .*--create-pr"


@pytest.mark.parametrize(
    ("step", "status", "message"),
    [
        (COMMIT, 401, "the Hub does not accept the token"),
        (COMMIT, 403, FORBIDDEN),
        (COMMIT, 404, "the Hub refused"),
        (COMMIT, 409, "changed by somebody else meanwhile .*Run the same command again"),
        (COMMIT, 413, "the Hub refused .413"),
        (COMMIT, 429, "too many requests .* Wait"),
        (COMMIT, 503, TROUBLE),
        (CREATE, 429, "too many requests"),
        (CREATE, 503, TROUBLE),
        (TREE, 503, TROUBLE),
        (UPLOAD, 401, "the Hub does not accept the token"),
        (UPLOAD, 403, FORBIDDEN),
        (UPLOAD, 503, TROUBLE),
        (BATCH, 403, FORBIDDEN),
        (BATCH, 503, TROUBLE),
        (LARGE, 403, FORBIDDEN),
        (LARGE, 503, TROUBLE),
        (VERIFY, 404, "the Hub refused"),
    ],
)
def test_a_push_that_is_refused_changes_nothing(hub, adapter, step, status, message) -> None:
    before = tree(adapter)
    repo = hub.put("me/scenes", {"x.txt": b"theirs"})
    hub.fail(step, status)
    text = refused(lambda: push(adapter, "me/scenes", license="mit"))
    assert re.search(message, text), text
    assert list(repo.files) == ["x.txt"]
    assert tree(adapter) == before
    hub.faults.clear()
    push(adapter, "me/scenes", license="mit")
    assert "adapter_model.safetensors" in repo.files


@pytest.mark.parametrize("step", [CREATE, UPLOAD, LARGE, COMMIT])
def test_a_connection_that_breaks_while_pushing(hub, adapter, step) -> None:
    repo = hub.put("me/scenes", {"x.txt": b"theirs"})
    hub.fail(step, kind="drop")
    text = refused(lambda: push(adapter, "me/scenes", license="mit"))
    assert "the connection to the Hub failed" in text
    assert "Check the network and HF_ENDPOINT" in text
    assert list(repo.files) == ["x.txt"]
    hub.faults.clear()
    hub.log.clear()
    push(adapter, "me/scenes", license="mit")
    assert "adapter_model.safetensors" in repo.files
    if step == COMMIT:  # what has arrived is not sent twice
        assert not hub.requests(LARGE)


def test_trouble_that_passes_is_no_trouble(hub, adapter) -> None:
    for step in (UPLOAD, LARGE):
        hub.fail(step, 503, times=1)
    hub.fail(LARGE, kind="drop", times=1)
    hub.fail("POST .*/objects/batch", 429, times=1, headers={"Retry-After": "7"})
    push(adapter, "me/scenes", license="mit")
    assert "adapter_model.safetensors" in hub.repos["model", "me/scenes"].files
    assert 8.0 in hub.waits  # as long as the Hub asks for, and a second


def test_somebody_elses_push_in_between_is_not_lost(hub, adapter, monkeypatch) -> None:
    from huggingface_hub import HfApi

    repo = hub.put("me/scenes", {"x.txt": b"theirs"})
    commit = HfApi.create_commit

    def later(self, *arguments, **options):
        repo.commit({**repo.files, "y.txt": repo.files["x.txt"]})
        return commit(self, *arguments, **options)

    monkeypatch.setattr(HfApi, "create_commit", later)
    text = refused(lambda: push(adapter, "me/scenes", license="mit"))
    assert "changed by somebody else meanwhile (412: the branch has moved)" in text
    assert sorted(repo.files) == ["x.txt", "y.txt"]


def test_somebody_elses_repository(hub, adapter, monkeypatch) -> None:
    hub.put("org/scenes", {"x.txt": b""})
    assert "this account may not do that" in refused(lambda: push(adapter, "org/scenes", license="mit"))
    monkeypatch.setenv("HF_TOKEN", TOKENS["guest"])
    assert "this account may not do that" in refused(lambda: push(adapter, "me/scenes", license="mit"))
    monkeypatch.setenv("HF_TOKEN", "hf_somethingelse1234")
    text = refused(lambda: push(adapter, "me/scenes", license="mit"))
    assert "does not accept the token, or wants one (401: Invalid credentials" in text
    assert "hf_something" not in text


def test_a_server_that_repeats_the_token_does_not_make_us_repeat_it(hub, adapter) -> None:
    hub.fail(UPLOAD, 403, headers={"X-Error-Message": f"token {SECRET} may not"}, body={"error": f"Bearer {SECRET}"})
    assert "(token)" in refused(lambda: push(adapter, "me/scenes", license="mit"))
    hub.faults.clear()
    hub.fail("GET /api/models", 403, headers={"X-Error-Message": "no pass-word42 here"})
    with pytest.raises(HubError) as error:  # of a mirror that gives tokens of another form
        pull("me/scenes", token="pass-word42")
    assert "pass-word42" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, "does not accept the token"),
        (403, {"X-Error-Code": "GatedRepo"}, "is gated, and this account was not let in. Accept its terms"),
        (404, {"X-Error-Code": "RepoNotFound"}, "no such repository, or a private one"),
        (429, {"Retry-After": "30"}, "too many requests (429). Wait 30 seconds"),
        (500, {}, "trouble of its own (500)"),
        (502, {}, "trouble of its own (502)"),
    ],
)
@pytest.mark.parametrize("step", ["GET /api/models", "GET .*/tree/"])
def test_a_pull_that_is_refused_leaves_nothing(hub, adapter, tmp_path, step, status, headers, message) -> None:
    push(adapter, "me/scenes", license="mit")
    hub.fail(step, status, headers=headers)
    assert message in refused(lambda: pull("me/scenes", tmp_path / "here"))
    assert not list(tmp_path.glob("here*"))


@pytest.mark.parametrize("status", [403, 404, 429, 500])
def test_a_file_that_cannot_be_had(hub, adapter, tmp_path, status) -> None:
    push(adapter, "me/scenes", license="mit")
    hub.fail("(GET|HEAD) .*/genaug_config.json", status)
    refused(lambda: pull("me/scenes", tmp_path / "here"))
    assert not (tmp_path / "here").exists()
    hub.faults.clear()
    pull("me/scenes", tmp_path / "here")


def test_a_gated_repository(hub, adapter, tmp_path) -> None:
    push(adapter, "me/scenes", license="mit")
    hub.repos["model", "me/scenes"].gated = True
    text = refused(lambda: pull("me/scenes", tmp_path / "here"))
    assert "gated" in text


def test_nobody_there(hub, adapter, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for call in (lambda: pull("me/scenes", tmp_path / "here"), lambda: push(adapter, "me/scenes", license="mit")):
        assert "the connection to the Hub failed" in refused(call)


@pytest.mark.parametrize("step", ["GET /api/models/me/scenes", TREE, CREATE])
@pytest.mark.parametrize("body", [{"x": "y"}, [1], b"<html>"])
def test_something_else_at_the_address(hub, adapter, tmp_path, step, body) -> None:
    hub.put("me/scenes", {"x.txt": b"theirs"})
    hub.fail(step, 200, body=body)
    call = (lambda: push(adapter, "me/scenes", license="mit")) if step == CREATE else lambda: pull("me/scenes")
    assert "does not answer as a Hub. Check HF_ENDPOINT" in refused(call)


def test_a_full_disk(hub, adapter, tmp_path, monkeypatch) -> None:
    push(adapter, "me/scenes", license="mit")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "here"))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(HubError, match=r"the disk is full\. Free some space, then run the same command again"):
        pull("me/scenes", tmp_path / "here")
    assert not (tmp_path / "here").exists()

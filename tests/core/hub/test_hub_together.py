"""Several processes that fetch the same at once, and what a killed one leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hub_folders import tree, write_adapter

from genaug.hub.pull import cached, fetch, pull
from genaug.hub.push import push
from genaug.hub.reference import HubRef

CHILD = "import sys; from genaug.hub.pull import pull; print(pull('me/scenes', sys.argv[1])['unchanged'])"


@pytest.fixture
def published(hub, tmp_path):
    push(write_adapter(tmp_path / "adapter"), "me/scenes", license="mit")
    hub.log.clear()
    return hub


def start(hub, folder) -> tuple[subprocess.Popen[str], threading.Event]:
    """Start another process that pulls into a folder, and stands still at the weights until the event is set."""
    came, go = hub.hold("GET /_lfs/")
    environment = {**os.environ, **hub.environment(folder.parent / "other")}
    command = [sys.executable, "-c", CHILD, str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert came.wait(60)
    return process, go


def test_of_two_processes_one_fetches_and_the_other_waits(published, tmp_path, monkeypatch) -> None:
    here = tmp_path / "here"
    here.mkdir()  # the harder case: the other moves its files into it meanwhile
    process, go = start(published, here)
    said: list[str] = []
    monkeypatch.setattr("genaug.hub.arrival.log.warning", lambda text, *_: (said.append(text), go.set()))
    report = pull("me/scenes", here)
    assert process.communicate(timeout=60)[0].strip() == "False"
    assert report["unchanged"]
    assert ["waiting until that is done" in text for text in said] == [True]
    assert set(tree(here)) == {file["path"] for file in report["files"]}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("here")] == ["here"]
    large = [name for name, _, _ in published.requests("GET /_lfs/")]
    assert len(large) == len(set(large)) > 0  # nothing was fetched twice


def test_after_a_process_that_was_killed(published, tmp_path) -> None:
    process, go = start(published, tmp_path / "here")
    process.kill()
    process.communicate(timeout=60)
    assert (tmp_path / "here.partial").is_dir()
    published.gates.clear()
    go.set()
    report = pull("me/scenes", tmp_path / "here")
    assert set(tree(tmp_path / "here")) == {file["path"] for file in report["files"]}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("here")] == ["here"]


def test_what_a_call_left_that_was_killed_at_its_very_end_goes(published, tmp_path) -> None:
    pull("me/scenes", tmp_path / "here")
    (tmp_path / "here/.genaug-partial/pictures").mkdir(parents=True)
    (tmp_path / "here/.genaug-partial.lock").touch()
    assert pull("me/scenes", tmp_path / "here")["unchanged"]
    assert not list((tmp_path / "here").glob(".genaug*"))


def test_two_processes_remember_what_a_branch_is(published, monkeypatch) -> None:
    """Both have written it and neither has given it its name: what processes of a training may come to."""
    both = threading.Barrier(2, timeout=30)
    monkeypatch.setattr("genaug.store.files.os.fsync", lambda _: both.wait())
    ref = HubRef("me/scenes")
    with ThreadPoolExecutor(2) as threads:
        one, two = threads.map(fetch.__wrapped__, [ref, ref])
    assert one == two == cached(ref)
    assert [path.name for path in (one.parents[1] / "refs").iterdir()] == ["main"]

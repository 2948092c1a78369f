"""``genaug push`` and ``genaug pull``: what they print, their exit codes, and that help needs no library."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from hub_folders import write_adapter
from loopback import TOKENS

from genaug.cli import group


def genaug(*arguments: object):
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


@pytest.fixture
def adapter(tmp_path):
    return write_adapter(tmp_path / "adapter")


def test_help_has_an_example_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from genaug.cli import group\n"
        "for verb in ('push', 'pull'):\n"
        "    group.main([verb, '--help'], standalone_mode=False)\n"
        "print([name for name in ('torch', 'huggingface_hub', 'numpy', 'safetensors') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("Example:\n    genaug ") == 2


def test_push_and_pull(hub, adapter, tmp_path) -> None:
    pushed = genaug("push", adapter, "me/scenes", "--license", "mit", "--version", "v1", "--tag", "roads")
    assert pushed.exit_code == 0, pushed.output
    assert "model     me/scenes, mit\n" in pushed.stdout
    assert "note      pictures/preview.png shows labelled images" in pushed.stdout
    assert f"commit    {hub.url}/me/scenes at " in pushed.stdout
    again = genaug("push", adapter, "me/scenes", "--license", "mit", "--tag", "roads", "--json")
    assert json.loads(again.stdout)["unchanged"]
    listed = genaug("pull", "me/scenes@v1", tmp_path / "here", "--dry-run")
    assert "genaug_config.json\n" in listed.stdout
    assert "nothing was written" in listed.stdout
    pulled = genaug("pull", "me/scenes@v1", tmp_path / "here")
    assert pulled.exit_code == 0, pulled.output
    assert f"folder    {tmp_path / 'here'}" in pulled.stdout
    assert "left out  1 of other types, e.g. .gitattributes" in pulled.stdout
    assert json.loads(genaug("pull", "me/scenes", tmp_path / "here", "--json").stdout)["unchanged"]


def test_a_proposal(hub, adapter) -> None:
    hub.put("org/scenes", {"x.txt": b""})
    for word in ("commit", "unchanged"):
        shown = genaug("push", adapter, "org/scenes", "--license", "mit", "--create-pr").stdout
        assert f"{word:<9} {hub.url}/org/scenes/discussions/1 at " in shown


def test_a_dry_run_shows_the_card(adapter) -> None:
    result = genaug("push", adapter, "me/scenes", "--license", "mit", "--dry-run", "--no-pictures")
    assert result.exit_code == 0
    assert "nothing was sent; README.md would be:\n\n---\nlicense: mit\n" in result.stdout
    assert "pictures" not in result.stdout
    assert json.loads(genaug("push", adapter, "me/x", "--license", "mit", "--dry-run", "--json").stdout)["dry_run"]


def test_errors_are_one_line_and_exit_code_2(hub, adapter, tmp_path) -> None:
    hub.fail("POST .*/commit/", 403, headers={"X-Error-Message": f"no {TOKENS['me']}"})
    for arguments, message in (
        (("push", adapter, "me/x"), "license: no license was chosen"),
        (("push", adapter, "me/x", "--license", "mit", "--token", TOKENS["me"]), "this account may not do that"),
        (("pull", "me/nothing", tmp_path / "here"), "no such repository"),
        (("pull", "nothing", tmp_path / "here"), "no name of a repository"),
    ):
        result = genaug(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        last = result.stderr.splitlines()[-1]  # after the client's progress
        assert last.startswith("genaug: ")
        assert message in last
        assert TOKENS["me"] not in result.stderr


@pytest.mark.parametrize("size", ["nan", "inf", "1e308", "-1"])
def test_sizes_that_are_none(size) -> None:
    result = genaug("pull", "me/x", "--max-size", size)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "Invalid value for '--max-size'" in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_a_process_follows_its_environment(loopback, adapter, tmp_path) -> None:
    """HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE as a shell sets them; not even a traceback shows the token."""
    loopback.clear()
    environment = {**os.environ, **loopback.environment(tmp_path / "hf")}
    command = [sys.executable, "-m", "genaug", "push", str(adapter), "me/scenes", "--license", "mit"]

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    assert "adapter_model.safetensors" in loopback.repos["model", "me/scenes"].files
    loopback.log.clear()
    refused = run(HF_HUB_OFFLINE="1")
    assert (refused.returncode, loopback.log) == (2, [])
    assert "HF_HUB_OFFLINE keeps genaug from asking the Hub" in refused.stderr
    loopback.fail("GET /api/models", 403, headers={"X-Error-Message": TOKENS["me"]}, body={"error": TOKENS["me"]})
    shown = run(GENAUG_DEBUG="1")
    assert "Traceback" in shown.stderr
    assert "this account may not do that (403: (token))" in shown.stderr
    assert TOKENS["me"] not in shown.stdout + shown.stderr

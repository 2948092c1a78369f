import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genaug.cli import group
from genaug.cli.doctor import examine
from genaug.registry import Registry

PLUGIN = """
from genaug import Component, hookimpl

@hookimpl
def genaug_components():
    yield Component("filter", "bright", "shine:Bright", summary="keeps what shines", requires=("no_such",), extra="ot")

@hookimpl
def genaug_recipes():
    return {"shining": "shine:shining.yaml"}
"""


@pytest.fixture
def plugins(install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three installed plugins: a good one, a broken one, a disabled one."""
    from importlib import metadata

    install("shine-dist", {"shine_plugin": PLUGIN}, {"shine": "shine_plugin"}, version="1.2")
    install("torn-dist", {"torn_plugin": "1 / 0"}, {"torn": "torn_plugin"})
    install("off-dist", {"off_plugin": "1 / 0"}, {"off": "off_plugin"})
    monkeypatch.setenv("GENAUG_DISABLE_PLUGINS", "off")
    mine = {"shine", "torn", "off"}
    entry_points = [e for e in metadata.entry_points(group="genaug") if e.name in mine]
    monkeypatch.setattr("genaug.cli.plugins.default_registry", lambda: Registry(entry_points))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(group, list(arguments))


@pytest.mark.usefixtures("plugins")
def test_plugins_lists_good_broken_and_disabled_ones() -> None:
    result = run("plugins")
    assert (result.exit_code, result.stderr) == (1, "")
    words = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert words == [
        "off (off-dist 1.0) [disabled]",
        "shine (shine-dist 1.2)",
        "filter bright keeps what shines (needs no_such: pip install 'genaug[ot]')",
        "recipe shining",
        "torn (torn-dist 1.0) [broken]",
        "ZeroDivisionError: division by zero",
    ]


@pytest.mark.usefixtures("plugins")
def test_plugins_as_json() -> None:
    off, shine, torn = json.loads(run("plugins", "--json").stdout)["plugins"]
    assert [p["status"] for p in (off, shine, torn)] == ["disabled", "ok", "broken"]
    assert shine["components"][0]["missing"] == ["no_such"]
    assert shine["recipes"] == ["shining"]
    assert torn["error"] == "ZeroDivisionError: division by zero"


@pytest.mark.usefixtures("plugins")
def test_doctor_reports_broken_plugins_as_problems() -> None:
    report = examine()
    assert report["plugins"] == ["shine"]
    assert any(line.startswith("plugin torn (torn-dist 1.0) is broken: ZeroDivision") for line in report["problems"])
    assert run("doctor").exit_code == 1


def test_doctor_never_shows_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_" + "x" * 30
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_API_KEY"):
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("HF_ENDPOINT", f"https://user:{secret}@mirror.example/hub")
    monkeypatch.setenv("UNRELATED", "unrelated value")
    for result in (run("doctor"), run("doctor", "--json")):
        assert secret not in result.output
        assert "unrelated value" not in result.output
        assert "https://mirror.example/hub" in result.stdout
    assert json.loads(run("doctor", "--json").stdout)["environment"]["HF_TOKEN"] == "set (not shown)"


def test_doctor_lists_libraries_extras_and_disk() -> None:
    report = json.loads(run("doctor", "--json").stdout)
    assert report["required"]["torch"].startswith("2.")
    assert report["extras"]["diffusion"] == {"lacks": [], "install": None}
    assert set(report["extras"]["ot"]["lacks"]) <= set(report["extras"]["all"]["lacks"])
    assert all("GiB free" in free for free in report["disk"].values())
    assert report["torch"] is None


OLD = """
import json, sys
from importlib import metadata
real = metadata.version
metadata.version = lambda name: {"numpy": "1.0", "diffusers": "0.1"}.get(name) or real(name)
from genaug.cli.doctor import examine
report = examine()
print(json.dumps([report["problems"], report["extras"]["diffusion"]]))
"""


def test_doctor_names_versions_that_do_not_fit() -> None:
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", OLD], capture_output=True, text=True, check=True)
    problems, diffusion = json.loads(result.stdout)
    assert any(p.startswith("numpy is 1.0, but >=1.26 is needed: pip install 'numpy>=1.26'") for p in problems)
    assert diffusion["install"] == "pip install 'genaug[diffusion]'"
    assert any(line.startswith("diffusers is 0.1, but ") for line in diffusion["lacks"])


def test_doctor_imports_torch_only_when_asked() -> None:
    code = "import sys; from genaug.cli.doctor import examine; examine(); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
    devices = examine(devices=True)["torch"]
    assert devices["devices"][-1] == "cpu"
    assert devices["threads"] >= 1


def test_doctor_runs_where_genaug_is_not_installed(tmp_path: Path) -> None:
    """A bare copy of the package on the path, next to the libraries but without its own metadata."""
    import genaug

    (tmp_path / "genaug").symlink_to(Path(genaug.__file__).parent)
    code = (
        "import sys; from importlib import metadata as m\n"
        "def gone(name): raise m.PackageNotFoundError(name)\n"
        "m.requires = gone\n"
        "from genaug.cli.doctor import examine; print(examine()['problems'][0])"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=env)
    assert "genaug runs from a folder without being installed" in result.stdout, result.stderr

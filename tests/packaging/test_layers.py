"""Layers are contracts that a machine checks; and the ban on heavy imports holds where it should."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
FOLDERS = [str(ROOT), str(ROOT / "plugins"), str(ROOT / "integrations")]


def lint_imports(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS)}
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-cache", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_import_contracts_are_kept() -> None:
    result = lint_imports()
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", result.stdout)


def test_a_broken_contract_would_be_seen(tmp_path: Path) -> None:
    config = tmp_path / "contracts.toml"
    config.write_text(
        "[tool.importlinter]\nroot_packages = ['genaug', 'genaug_matchmask']\n"
        "[[tool.importlinter.contracts]]\nname = 'upside down'\ntype = 'forbidden'\n"
        "source_modules = ['genaug_matchmask']\nforbidden_modules = ['genaug']\n"
    )
    result = lint_imports("--config", str(config))
    assert result.returncode == 1
    assert "upside down BROKEN" in result.stdout


def test_every_package_is_under_contract() -> None:
    packages = {Path(p).name for p in TOOL["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert packages == set(TOOL["importlinter"]["root_packages"])
    (forbidden,) = [c for c in TOOL["importlinter"]["contracts"] if c.get("source_modules") == ["genaug"]]
    assert packages - {"genaug"} == set(forbidden["forbidden_modules"])


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("genaug/recipe.py", False),
        ("genaug/store/files.py", False),
        ("genaug/batch.py", True),
        ("plugins/genaug_matchmask/plugin.py", False),
        ("plugins/genaug_matchmask/config.py", False),
        ("plugins/genaug_matchmask/relative_config.py", False),
        ("plugins/genaug_matchmask/__init__.py", False),
        ("plugins/genaug_matchmask/generator.py", True),
        ("integrations/genaug_torch/datasets.py", True),
        ("tests/core/test_rng.py", True),
    ],
)
def test_the_linter_bans_heavy_imports_where_they_are_paid_for_by_everybody(module: str, allowed: bool) -> None:
    options = ["--no-cache", "--select", "TID253", "--stdin-filename", str(ROOT / module)]
    command = [sys.executable, "-m", "ruff", "check", *options, "-"]
    result = subprocess.run(command, cwd=ROOT, input="import torch\n", capture_output=True, text=True)
    assert ("TID253" not in result.stdout) == allowed, result.stdout + result.stderr

"""The editable installation, from another folder: our names, the tree's files, and nothing else of the tree.

The test environment is itself an editable installation, so each process here starts without the ``site`` module: it
sees what is installed beside it, but no ``.pth`` file except those of the folder that this test installed into.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FOLDERS = {Path(p).name: ROOT / p for p in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the editable wheel offline with the build back end that is installed."""
    folder = tmp_path_factory.mktemp("editable")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel:editable", "-d", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def target(editable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it into an empty folder, without network."""
    folder = tmp_path_factory.mktemp("target")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(folder)]
    result = subprocess.run([*command, str(editable)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


def run(folder: Path | None, cwd: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in `cwd` with `folder` as its only site folder; None: with no installation of ours."""
    beside = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*([str(folder)] if folder else []), *beside])}
    enter = f"import site; site.addsitedir({str(folder)!r})\n" if folder else ""
    return subprocess.run([sys.executable, "-S", "-c", enter + code], cwd=cwd, env=env, capture_output=True, text=True)


def test_it_holds_no_copy_of_the_code(editable: Path) -> None:
    names = [name for name in zipfile.ZipFile(editable).namelist() if ".dist-info/" not in name]
    assert sorted(Path(name).suffix for name in names) == [".pth", ".py"]
    assert not any(name.startswith(tuple(f"{package}/" for package in FOLDERS)) for name in names)


def test_without_it_there_is_nothing_of_ours(tmp_path: Path) -> None:
    result = run(None, tmp_path, "import genaug")
    assert "No module named 'genaug'" in result.stderr  # or the tests below would prove nothing


def test_our_names_are_the_trees_from_another_folder(target: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util, json, sys; "
        f"print(json.dumps({{n: importlib.util.find_spec(n).origin for n in {sorted(FOLDERS)}}}))"
    )
    result = run(target, tmp_path, code)
    assert result.returncode == 0, result.stderr
    assert {n: Path(file).parent for n, file in json.loads(result.stdout).items()} == FOLDERS


def test_no_other_folder_of_the_tree_becomes_importable(target: Path, tmp_path: Path) -> None:
    others = [p.name for p in ROOT.iterdir() if p.is_dir() and p.name.isidentifier() and p.name not in FOLDERS]
    assert {"plugins", "integrations", "benchmarks", "tests"} <= set(others)
    code = (
        "import importlib.util as u, json; "
        f"places = {{n: list(s.submodule_search_locations or []) for n in {others} if (s := u.find_spec(n))}}; "
        "print(json.dumps(places))"
    )
    result = run(target, tmp_path, code)
    found = {n: places for n, places in json.loads(result.stdout).items() if str(ROOT / n) in places}
    assert found == {}, "an installation beside ours may bring such a name; ours must not"


def test_its_plugins_and_recipes_are_found(target: Path, tmp_path: Path) -> None:
    code = (
        "import json; from importlib import metadata; from genaug.registry import Registry; r = Registry(strict=True); "
        "from genaug.config import read_recipe; [read_recipe(n, r) for n in r.names('recipe')]; "
        "info = str(metadata.distribution('genaug').locate_file('')); "
        "print(json.dumps([sorted(p.name for p in r.plugins), r.names('recipe'), info]))"
    )
    result = run(target, tmp_path, code)
    assert result.returncode == 0, result.stderr
    names, recipes, info = json.loads(result.stdout)
    assert names == sorted(PROJECT["project"]["entry-points"]["genaug"])
    assert "matchmask" in recipes
    assert Path(info) == target


def test_the_data_files_of_the_tree_are_found(target: Path, tmp_path: Path) -> None:
    code = "from genaug_tiny.weights import model_folder; print(model_folder())"
    result = run(target, tmp_path, code)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()) == ROOT / "plugins/genaug_tiny/model"


def test_the_command_runs_and_knows_its_version(target: Path, tmp_path: Path) -> None:
    code = "from genaug.cli import main; sys.argv = ['genaug', '--version']; main()"
    result = run(target, tmp_path, f"import sys; {code}")
    assert result.stdout.strip() == f"genaug, version {PROJECT['project']['version']}", result.stderr
    assert "genaug = genaug.__main__:main" in next(target.glob("genaug-*.dist-info/entry_points.txt")).read_text(
        "utf-8"
    )

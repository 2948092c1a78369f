"""The built wheel, not the tree: what it installs and whether it works from anywhere."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = [Path(p).name for p in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel offline with the build back end that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an empty folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder),
        str(wheel),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


def run(site: Path, cwd: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` away from the tree; the installed wheel comes before everything else on the path."""
    env = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True)


def test_only_our_packages_become_importable(wheel: Path) -> None:
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert names - {n for n in names if n.endswith(".dist-info")} == set(PACKAGES)
    assert all(name.startswith("genaug") for name in PACKAGES)


def test_every_package_of_the_tree_is_shipped(wheel: Path) -> None:
    on_disk = [p.parent.name for folder in ("plugins", "integrations") for p in (ROOT / folder).glob("*/__init__.py")]
    assert sorted(["genaug", *on_disk]) == sorted(PACKAGES)
    shipped = set(zipfile.ZipFile(wheel).namelist())
    for folder in (ROOT / "genaug", *(ROOT / "plugins").iterdir(), *(ROOT / "integrations").iterdir()):
        for path in folder.rglob("*"):
            if path.suffix in {".py", ".yaml", ".jinja", ".j2", ".css", ".safetensors", ".json"}:
                assert path.relative_to(folder.parent).as_posix() in shipped
    assert "genaug/py.typed" in shipped


def test_the_wheel_works_from_another_folder(site: Path, tmp_path: Path) -> None:
    # detectron2 is not on the package index, and its integration imports nothing without it.
    names = ", ".join(name for name in PACKAGES if name != "genaug_detectron2")
    result = run(site, tmp_path, f"import {names}; print(genaug.__file__); print(genaug_matchmask.__file__)")
    assert result.returncode == 0, result.stderr
    assert all(Path(line).is_relative_to(site) for line in result.stdout.splitlines())


def test_its_plugins_and_recipes_are_found(site: Path, tmp_path: Path) -> None:
    code = (
        "import json; from genaug.registry import Registry; r = Registry(strict=True); "
        "from genaug.config import read_recipe; [read_recipe(n, r) for n in r.names('recipe')]; "
        "print(json.dumps([sorted(p.name for p in r.plugins), r.names('recipe')]))"
    )
    result = run(site, tmp_path, code)
    assert result.returncode == 0, result.stderr
    names, recipes = __import__("json").loads(result.stdout)
    assert names == sorted(PROJECT["project"]["entry-points"]["genaug"])
    assert "matchmask" in recipes


def test_the_command_runs_and_knows_its_version(site: Path, tmp_path: Path) -> None:
    result = run(site, tmp_path, "from genaug.cli import main; import sys; sys.argv = ['genaug', '--version']; main()")
    assert result.stdout.strip() == f"genaug, version {PROJECT['project']['version']}"
    entry_points = next(site.glob("genaug-*.dist-info")) / "entry_points.txt"
    assert "genaug = genaug.__main__:main" in entry_points.read_text("utf-8")

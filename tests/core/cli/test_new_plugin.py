"""``genaug new-plugin``: what it makes installs and passes its own tests at once; what it refuses leaves nothing."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genaug import __version__
from genaug.cli import group
from genaug.cli.new_plugin import KINDS
from genaug.registry import default_registry

CLI = "from genaug.cli import main; main()"


def new_plugin(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["new-plugin", *arguments])


def test_every_kind_installs_and_passes_its_tests_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        made = new_plugin(f"genaug-trial-{kind}", "--kind", kind)
        assert made.exit_code == 0, made.output
        assert made.stdout.splitlines() == sorted(
            f"genaug-trial-{kind}/{p.relative_to(tmp_path / f'genaug-trial-{kind}').as_posix()}"
            for p in (tmp_path / f"genaug-trial-{kind}").rglob("*")
            if p.is_file()
        )
    folders = sorted(path.name for path in tmp_path.iterdir())  # nothing else was left there
    assert folders == sorted(f"genaug-trial-{kind}" for kind in KINDS)

    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", "site"]
    subprocess.run([*command, *(f"./{folder}" for folder in folders)], check=True, capture_output=True)
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    options = ["-q", "-W", "error", "--import-mode=importlib", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *folders]
    result = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert result.returncode == 0, result.stdout
    assert "skipped" not in result.stdout

    listed = subprocess.run([sys.executable, "-c", CLI, "plugins", "--json"], capture_output=True, text=True, env=env)
    plugins = {p["distribution"]: p for p in json.loads(listed.stdout)["plugins"]}
    for kind in KINDS:
        (component,) = plugins[f"genaug-trial-{kind}"]["components"]
        assert (component["kind"], component["name"]) == (kind, f"trial-{kind}")
        assert component["summary"] == KINDS[kind][0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_makes_is_tidy_and_what_its_readme_says_is_true(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_plugin("fresh", "--kind", kind).exit_code == 0
    rules = ["--isolated", "--line-length", "120"]
    for command in (
        ["check", *rules, "--select", "E,F,I,UP,B,D1", "--ignore", "D10"],
        ["format", *rules, "--check"],
    ):
        ruff = [sys.executable, "-m", "ruff", *command]
        done = subprocess.run(ruff, cwd=tmp_path / "fresh", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    project = tomllib.loads((tmp_path / "fresh/pyproject.toml").read_text("utf-8"))["project"]
    assert project["dependencies"] == [f"genaug>={__version__}"]
    readme = (tmp_path / "fresh/README.md").read_text("utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "fresh"))
    options = __import__("fresh.config", fromlist=["x"])
    (model,) = [v for k, v in vars(options).items() if k.startswith("Fresh")]
    for name, field in model.model_fields.items():
        assert f"| `{name}` | {field.default} |" in readme
    assert readme.count("| `") == len(model.model_fields)
    for name in [n for n in sys.modules if n.partition(".")[0] == "fresh"]:
        del sys.modules[name]


def test_a_dry_run_tells_the_files_and_writes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = new_plugin("genaug-plan", "--kind", "mixer", "--dry-run", "--json")
    assert list(tmp_path.iterdir()) == []
    report = json.loads(planned.stdout)
    files = report.pop("files")
    expected = {"name": "genaug-plan", "kind": "mixer", "component": "plan", "folder": "genaug-plan", "dry_run": True}
    assert report == expected
    made = json.loads(new_plugin("genaug-plan", "--kind", "mixer", "--json", "--output", "deep").stdout)
    assert made == {**expected, "folder": "deep", "dry_run": False, "files": files}
    assert sorted(p.relative_to("deep").as_posix() for p in Path("deep").rglob("*") if p.is_file()) == files
    assert "Nothing was written" in new_plugin("genaug-plan", "--dry-run").stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("My-Filter", "the name 'My-Filter'. Allowed: lower-case words"),
        ("2fast", "a letter first"),
        ("a_b", "joined by hyphens"),
        ("a--b", "joined by hyphens"),
        ("genaug-", "joined by hyphens"),
        ("../up", "joined by hyphens"),
        ("é", "joined by hyphens"),
        ("a" * 61, "at most 60 characters"),
        ("json", "'json' is a name of Python's or genaug's own"),
        ("class", "Choose another"),
        ("conftest", "'conftest' is a name of Python's"),
        ("setup", "Choose another"),
        ("plugin", "Choose another"),
        ("genaug-on", "quote 'on', which YAML reads as True"),
        ("genaug-null", "which YAML reads as None"),
        ("genaug-1", "which YAML reads as 1"),
        ("genaug-0x1f", "which YAML reads as 31"),
        ("genaug-2026-01-01", "which YAML reads as datetime.date"),
        ("genaug", "Choose another"),
        ("genaug-basics", "a package 'genaug_basics' is installed here already"),
        ("numpy", "installed here already"),
        ("genaug-relative", "genaug provides a filter called 'relative'"),
    ],
)
def test_bad_names_are_refused(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "relative" in default_registry().names("filter")
    for more in ([], ["--dry-run"]):
        result = new_plugin(name, *more)
        assert result.exit_code == 2
        assert told in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_existing_and_impossible_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("mine")
    for output, told in (
        ("taken", "taken exists"),
        ("link", "link exists"),
        ("file", "file exists"),
        ("no/such/place", "no/such is no folder"),
        ("file/below", "file is no folder"),
    ):
        result = new_plugin("fine", "--output", output)
        assert (result.exit_code, told in result.stderr) == (2, True), result.output
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "link", "mine", "taken"]
    assert new_plugin("taken").exit_code == 2


def test_an_empty_folder_is_filled_even_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inode = Path.cwd().stat().st_ino
    result = new_plugin("fine", "--output", ".")
    assert result.exit_code == 0, result.output
    assert Path.cwd().stat().st_ino == inode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "fine", "pyproject.toml", "tests"]
    assert result.stderr == "Next: pip install -e '.[test]' && pytest .\n"


@pytest.mark.parametrize("folder", ['q"uo$te', "a b", "-x", "plain"])
def test_the_next_line_is_safe_to_paste(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = new_plugin("fine", f"--output={folder}").stderr
    install, _, test = line.removeprefix("Next: ").partition(" && ")
    assert install.startswith("pip install -e ")
    place = shlex.split(test)[1]
    assert shlex.split(install)[3] == f"{place}[test]"
    assert not place.startswith("-")
    assert (Path(place) / "pyproject.toml").is_file()
    shown = subprocess.run(["bash", "-c", f"printf %s {test.removeprefix('pytest ')}"], capture_output=True, text=True)
    assert shown.stdout == place


def test_a_disk_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def full(self: Path, *arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    result = new_plugin("fine")
    assert (result.exit_code, "No space left on device" in result.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "class_name"),
    [
        ("genaug-sharp-edges", "filter", "SharpEdgesFilter"),
        ("sharp-filter", "filter", "SharpFilter"),
        ("filter", "filter", "FilterFilter"),
        ("genaug-2x", "mixer", "My2xMixer"),
        ("testing-mix", "mixer", "MyTestingMixMixer"),
        ("pseudo", "labeler", "MyPseudoLabeler"),
    ],
)
def test_class_names_are_sound(name: str, kind: str, class_name: str, tmp_path: Path) -> None:
    assert new_plugin(name, "--kind", kind, "--output", str(tmp_path / "out")).exit_code == 0
    (module,) = (tmp_path / "out").glob(f"*/{kind}.py")
    assert f"\nclass {class_name}(" in module.read_text("utf-8")


def test_its_help_imports_neither_torch_nor_jinja() -> None:
    code = f"import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {CLI}"
    command = [sys.executable, "-c", code, "new-plugin", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "genaug new-plugin genaug-sharpness" in result.stdout
    assert {"torch", "numpy", "jinja2", "pydantic"}.isdisjoint(result.stderr.split())

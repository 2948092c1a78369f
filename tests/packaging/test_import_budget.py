"""Listing, help and checks stay quick: heavy libraries are absent from fresh processes that do not need them."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "diffusers", "peft", "transformers", "accelerate", "ot", "albumentations", "detectron2", "matplotlib"}


def imported_by(code: str, *arguments: str) -> set[str]:
    """Run `code` in a fresh process and return the top-level names in its ``sys.modules``."""
    report = (
        "import sys, json, atexit; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", report + code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    names = json.loads(result.stderr.splitlines()[-1])
    assert "genaug" in names, result.stderr
    return {name.partition(".")[0] for name in names}


def light_modules() -> list[str]:
    """``plugin`` and ``config`` modules of every first-party plugin, found on disk so that none is forgotten."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]["genaug"]
    files = [path for pattern in ("plugin.py", "*config.py") for path in (ROOT / "plugins").glob(f"*/{pattern}")]
    names = {f"{path.parent.name}.{path.stem}" for path in files}
    return sorted({*table.values(), *names, "genaug.sources.config"})


def test_the_package_itself_imports_nothing_but_the_standard_library() -> None:
    assert not imported_by("import genaug") & {*HEAVY, "numpy", "pydantic", "yaml", "PIL", "click", "pluggy"}


CLI = "from genaug.cli import main; main()"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_needs_no_more_than_click(arguments: list[str]) -> None:
    assert not imported_by(CLI, *arguments) & {*HEAVY, "numpy", "pydantic", "yaml", "PIL", "huggingface_hub"}


@pytest.mark.parametrize(
    "arguments", [["plugins"], ["doctor"], ["check", "no-such-recipe"], ["init", "no-such-folder"]]
)
def test_light_verbs_import_no_heavy_library(arguments: list[str]) -> None:
    assert not imported_by(CLI, *arguments) & HEAVY


@pytest.mark.parametrize("module", light_modules())
def test_the_light_half_of_every_plugin_is_light(module: str) -> None:
    assert not imported_by(f"import genaug, {module}") & HEAVY


def test_first_party_plugins_all_load() -> None:
    code = "from genaug.registry import Registry; print([(p.name, p.error) for p in Registry().plugins if p.error])"
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_checking_a_whole_data_set_needs_no_torch(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    for folder, array in (("images", np.zeros((4, 4, 3), np.uint8)), ("masks", np.eye(4, dtype=np.uint8))):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    recipe = tmp_path / "recipe.yaml"
    init = subprocess.run([sys.executable, "-c", CLI, "init", str(tmp_path), "--output", str(recipe)], check=False)
    assert init.returncode == 0
    code = f"import sys; sys.argv[1:] = ['check', {str(recipe)!r}]; {CLI}"
    imported = imported_by(code)
    assert "PIL" in imported
    assert not imported & HEAVY
    assert subprocess.run([sys.executable, "-c", CLI, "check", str(recipe)], check=False).returncode == 0

"""What the tests of stores and runs share: a tiny recipe, folders as dictionaries, the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import yaml

from genaug.engine import run
from genaug.recipe import Recipe, load_recipe
from genaug.registry import Registry

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

TABLE = {
    "seed": 3,
    "labels": {1: "grass", 4: "road"},
    "data": {"format": "noise-masks", "odd_every": 3},
    "generator": {"use": "noise", "refuse": ["m_1_1"]},
    "filters": [],
    "output": "out",
}
FILTERS = [{"use": "dark", "below": 127.3}, {"use": "dark", "name": "rows", "below": 0, "ignore_row": 2}]
OFFLINE = ("adapt", "generate", "filter")


def registry() -> Registry:
    return Registry([metadata.EntryPoint("noise", "genaug_noise", "genaug")], strict=True)


def table(**changes):
    """The tiny recipe; tables are merged one level deep."""
    result = {k: dict(v) if isinstance(v, dict) else v for k, v in TABLE.items()}
    for key, value in changes.items():
        result[key] = {**result[key], **value} if isinstance(value, dict) and key != "labels" else value
    return result


def make_recipe(root: Path, **changes) -> Recipe:
    root.mkdir(parents=True, exist_ok=True)
    return load_recipe(table(**changes), root=root, registry=registry())


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_same_tree(found: Path, expected: Path) -> None:
    one, two = tree(found), tree(expected)
    assert sorted(one) == sorted(two)
    assert [name for name in one if one[name] != two[name]] == []


def environment() -> dict[str, str]:
    paths = [ROOT, ROOT / "plugins", ROOT / "integrations", HERE, HERE / "dist"]
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    clean = {k: v for k, v in os.environ.items() if k not in launcher}
    return {**clean, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}


def write_recipe(root: Path, **changes) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(table(**changes)))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from genaug.cli import main; main()", *map(str, arguments), "--device", "cpu"]


def start(*arguments: object, **extra_environment: str) -> subprocess.Popen[str]:
    """Start ``genaug <arguments>`` as a process of its own."""
    return subprocess.Popen(
        command(*arguments),
        env={**environment(), **extra_environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def genaug(*arguments: object, **extra_environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``genaug <arguments>`` to its end."""
    return subprocess.run(
        command(*arguments),
        env={**environment(), **extra_environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


FULL = {"filters": FILTERS, "generator": {"needs_adapter": True}}


def go(root: Path, *, stages=OFFLINE, device="cpu", shard=None, repair=False, redo_filters=False, **changes):
    recipe = make_recipe(root, **changes)
    return run(recipe, stages=stages, device=device, shard=shard, repair=repair, redo_filters=redo_filters)

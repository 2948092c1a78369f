"""Two distributions of others, built and installed by pip as a stranger would: one works, one is broken.

They go into a folder of their own, which only the processes of these tests see; no network is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

THIRD_PARTY = Path(__file__).parents[1] / "third_party"
CLI = "from genaug.cli import main; main()"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of both, so that building leaves nothing in the tree."""
    folder = tmp_path_factory.mktemp("third_party")
    for name in ("genaug-example", "genaug-broken"):
        shutil.copytree(THIRD_PARTY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def site(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install both into an empty folder."""
    folder = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", str(folder)]
    result = subprocess.run([*command, *map(str, sorted(sources.iterdir()))], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


def run(site: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(site), **environment}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True)


def test_the_example_passes_its_contracts(site: Path, sources: Path) -> None:
    result = run(site, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", cwd=sources / "genaug-example",
                 GENAUG_DISABLE_PLUGINS="a-broken-one")  # fmt: skip
    assert result.returncode == 0, result.stdout
    assert "passed" in result.stdout
    assert "skipped" not in result.stdout


def test_the_broken_one_is_listed_and_everything_else_works(site: Path, tmp_path: Path) -> None:
    result = run(site, "-c", CLI, "plugins", "--json", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (1, "")
    plugins = {(p["distribution"], p["name"]): p for p in json.loads(result.stdout)["plugins"]}
    broken, example = plugins.pop(("genaug-broken", "a-broken-one")), plugins[("genaug-example", "example")]
    assert (broken["status"], broken["version"]) == ("broken", "1.2.3")
    assert "cannot import name 'something_that_does_not_exist'" in broken["error"]
    assert {p["status"] for p in plugins.values()} == {"ok"}
    assert len(plugins) > 10  # ours are all there
    assert (example["version"], example["recipes"]) == ("0.3.0", ["example-stripes"])
    assert [(c["kind"], c["name"]) for c in example["components"]] == [("filter", "exposure"), ("mixer", "stripes")]


def test_recipes_with_their_components_beside_the_broken_one(site: Path, tmp_path: Path) -> None:
    recipe = {
        "labels": {"0": "a", "1": "b"},
        "data": {"images": ".", "masks": "."},
        "generator": {"use": "matchmask"},
        "filters": [{"use": "exposure", "most": 0.1}],
    }
    code = f"""
from genaug import load_recipe
filters, online = load_recipe({recipe!r}).resolved(), load_recipe("example-stripes", ["labels=voc21"]).resolved()
print(filters["filters"][0]["most"], online["terms"][0]["mixer"]["least"])
"""
    result = run(site, "-c", code, cwd=tmp_path)
    assert result.stdout.split() == ["0.1", "0.5"], result.stderr
    assert result.stderr.count("could not be loaded") == 1  # one warning, and no more


def test_wrong_options_of_theirs_are_told_as_ours_are(site: Path, tmp_path: Path) -> None:
    code = "from genaug import load_recipe; load_recipe('example-stripes', ['labels=voc21', 'terms.0.mixer.last=1'])"
    result = run(site, "-W", "ignore", "-c", code, cwd=tmp_path)
    assert "last: unknown key. Did you mean 'least'?" in result.stderr


def test_strict_mode_names_the_broken_one_and_a_word_leaves_it_out(site: Path, tmp_path: Path) -> None:
    strict = run(site, "-c", CLI, "plugins", cwd=tmp_path, GENAUG_STRICT_PLUGINS="1")
    assert strict.returncode == 2
    assert "plugin a-broken-one (genaug-broken): ImportError" in strict.stderr
    without = run(site, "-c", CLI, "plugins", cwd=tmp_path, GENAUG_DISABLE_PLUGINS="a-broken-one")
    assert without.returncode == 0
    assert "a-broken-one  (genaug-broken 1.2.3)  [disabled]" in without.stdout

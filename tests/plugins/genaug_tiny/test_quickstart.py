"""``genaug quickstart`` by its real command, on the embedded model: every stage, small."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from genaug.cli import group
from genaug.errors import ConfigError
from genaug.store import SampleStore
from genaug_tiny.experiment import RECIPE, TEST_SEEDS, labelled_seeds, write_project
from genaug_tiny.quickstart import FULL, SHORT, Extent
from genaug_tiny.scenes import CLASSES, CONTROLNET_SEEDS
from genaug_tiny.weights import model_folder
from genaug_torch import MixedDataset, StoreDataset

SAMPLES = SHORT.scenes * SHORT.images_per_mask


def quickstart(output: Path, *more: str) -> Result:
    command = ["quickstart", "--method", "matchmask-short", "--output", str(output), "--device", "cpu", *more]
    return CliRunner().invoke(group, command, catch_exceptions=False)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Return the folder and the outcome of a first call."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("project") / "quickstart"
    result = quickstart(folder)
    assert result.exit_code == 0, result.output
    return folder, result


class _Sources(html.parser.HTMLParser):
    """Collects what a page's ``src`` attributes name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for key, value in attrs if key == "src" and value]


def test_it_ends_by_naming_the_gallery_the_table_and_the_three_lines(first: tuple[Path, Result]) -> None:
    folder, result = first
    ending = result.stdout
    (gallery,) = re.findall(r"^Gallery: (.+)$", ending, flags=re.M)
    assert Path(gallery) == folder / "synthetic/report/index.html"
    (results,) = re.findall(rf"^IoU in percent, {SHORT.test_scenes} unseen scenes, seed 0: (.+)$", ending, flags=re.M)
    assert Path(results) == folder / "results.json"
    assert "the table means nothing" in ending
    lines = [line.strip() for line in ending.rstrip().splitlines()[-3:]]
    assert ending.index("Gallery: ") < ending.index("In your own trainer:") < ending.index(lines[0])
    names: dict[str, object] = {"train_set": [("image", "mask")] * 5}
    exec("\n".join(lines), names)  # what a user would do with them
    assert isinstance(names["synthetic"], StoreDataset)
    assert isinstance(names["train_set"], MixedDataset)
    assert len(names["synthetic"]) == SAMPLES
    assert len(names["train_set"]) == 2 * 5  # ratio 1: as many synthetic as real


def test_the_table_is_printed_as_it_is_written(first: tuple[Path, Result]) -> None:
    folder, result = first
    written = json.loads((folder / "results.json").read_text("utf-8"))
    assert written["labelled_scenes"] == SHORT.scenes
    assert written["test_scenes"] == SHORT.test_scenes
    assert [arm["name"] for arm in written["arms"]] == ["real only", "real + synthetic"]
    assert [arm["images"] for arm in written["arms"]] == [SHORT.scenes, SHORT.scenes + SAMPLES]
    head = next(line for line in result.stdout.splitlines() if "mIoU" in line)
    assert head.split()[-len(CLASSES) :] == list(CLASSES.values()) == list(written["arms"][0]["iou"])
    for arm in written["arms"]:
        (row,) = [line for line in result.stdout.splitlines() if re.match(rf"{re.escape(arm['name'])}  ", line)]
        cells = row.removeprefix(arm["name"]).split()
        shown = [arm["miou"], *arm["iou"].values()]
        assert cells == [str(arm["images"]), *(f"{100 * value:.1f}" for value in shown)]
        assert 0 <= arm["miou"] <= 1


def test_the_gallery_and_the_store_are_whole(first: tuple[Path, Result]) -> None:
    folder, _ = first
    page = folder / "synthetic/report/index.html"
    sources = _Sources()
    sources.feed(page.read_text("utf-8"))
    files = [s for s in sources.found if not s.startswith("data:")]
    assert sources.found
    assert all((page.parent / source).is_file() for source in files)
    samples = list(SampleStore.open(folder / "synthetic").training_view())
    assert len(samples) == SAMPLES
    labels = yaml.safe_load((folder / "labels.yaml").read_text("utf-8"))
    assert labels == {"ignore_index": 255, "names": CLASSES}
    assert len(list((folder / "data/masks").iterdir())) == SHORT.scenes
    base = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))["generator"]["base"]
    assert base == "genaug-tiny"


def test_a_second_call_reuses_what_is_finished_and_says_the_same(first: tuple[Path, Result]) -> None:
    folder, result = first
    made = {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in (folder / "synthetic").rglob("*")
        if path.suffix in {".safetensors", ".png"} and "report" not in path.parts
    }
    assert {path.suffix for path in made} == {".safetensors", ".png"}
    again = quickstart(folder)
    assert again.exit_code == 0
    assert again.stdout == result.stdout
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in made} == made


def test_another_seed_does_not_mix_with_the_first(first: tuple[Path, Result]) -> None:
    folder, _ = first
    refused = CliRunner().invoke(group, ["quickstart", "--output", str(folder), "--seed", "1"])
    assert refused.exit_code == 2
    assert "holds another seed or recipe" in refused.stderr
    assert "Traceback" not in refused.output


def test_the_full_one_is_the_recipe_of_the_benchmark(tmp_path: Path) -> None:
    seeds = labelled_seeds(1, 0)
    plain = write_project(tmp_path / "plain", seeds, seed=0).read_text("utf-8")
    full = write_project(tmp_path / "full", seeds, seed=0, changes=FULL.recipe_changes()).read_text("utf-8")
    assert full == plain
    assert Extent(adapter_steps=7).recipe_changes()["generator"]["training"]["steps"] == 7
    assert RECIPE["generator"]["training"]["steps"] == FULL.adapter_steps == 300
    assert len(TEST_SEEDS) == FULL.test_scenes


def test_no_run_labels_scenes_of_the_tests_or_of_the_shipped_controlnet(tmp_path: Path) -> None:
    assert all(labelled_seeds(1000, seed) == range(1000 * seed, 1000 * seed + 1000) for seed in (0, 60, 699, 701, 899))
    for count, seed in ((1, 700), (1000, 700), (1, 900), (0, 3), (1001, 3), (1, -1)):
        with pytest.raises(ConfigError, match=r"seeds 0 to 699 and 701 to 899"):
            labelled_seeds(count, seed)
    card = (model_folder() / "controlnet/README.md").read_text("utf-8")
    assert f"{len(CONTROLNET_SEEDS)} rendered scenes (seeds from {CONTROLNET_SEEDS.start:,} on)" in card
    refused = CliRunner().invoke(group, ["quickstart", "--output", str(tmp_path / "new"), "--seed", "700"])
    assert refused.exit_code == 2
    assert "those that genaug-tiny's ControlNet was trained on" in refused.stderr
    assert not (tmp_path / "new").exists()

"""The verbs run, adapt, generate and filter as processes and as help texts."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from noise_helpers import FILTERS, environment, genaug, write_recipe

FULL = {"generator": {"needs_adapter": True}, "filters": FILTERS}


def test_stages_one_by_one(tmp_path):
    recipe = write_recipe(tmp_path, **FULL)
    early = genaug("generate", recipe)
    assert early.returncode == 2
    assert "Run 'genaug adapt'" in early.stderr
    assert "adapter: done" in genaug("adapt", recipe).stdout
    assert "12 samples: 11 made, 0 reused, 1 refused, 0 failed" in genaug("generate", recipe).stdout
    result = genaug("filter", recipe, "--json")
    report = json.loads(result.stdout)
    assert report["stages"]["filter"]["samples"] == 11
    assert f"{report['stages']['filter']['kept']} of 11 samples kept" in genaug("filter", recipe).stdout
    changed = genaug("filter", recipe, "filters.0.below=0")
    assert changed.returncode == 2
    assert "--redo-filters" in changed.stderr
    assert "11 of 11 samples kept" in genaug("filter", recipe, "filters.0.below=0", "--redo-filters").stdout


def test_partial_failure_is_exit_code_one(tmp_path):
    (tmp_path / "failing").write_text("m_2_2")
    recipe = write_recipe(tmp_path, generator={"fail": "failing"})
    result = genaug("generate", recipe)
    assert result.returncode == 1
    assert "2 failed" in result.stdout
    assert "failed: m_2_1, m_2_2: RuntimeError: this batch fails" in result.stdout
    (tmp_path / "failing").write_text("")
    result = genaug("generate", recipe)
    assert result.returncode == 0
    assert "2 made" in result.stdout


def test_launched_processes_print_one_report(tmp_path):
    recipe = write_recipe(tmp_path, **FULL)
    outputs = {}
    for rank in ("1", "0"):  # what a launcher sets; the component learns in the first process alone
        done = genaug("adapt", recipe, "--json", RANK=rank, WORLD_SIZE="2")
        assert done.returncode == 0, done.stderr
        outputs[rank] = done.stdout
    assert outputs["1"] == ""
    assert json.loads(outputs["0"])["stages"]["adapt"]["adapter"]["reused"] is False


@pytest.mark.parametrize("arguments", [["run"], ["adapt"], ["generate"], ["filter"], ["run", "--dry-run"]])
def test_problems_in_data_are_exit_code_one_in_every_verb(tmp_path, arguments):
    recipe = write_recipe(tmp_path, **FULL)
    nowhere = "data={format: folder, images: nowhere, masks: nowhere}"
    result = genaug(arguments[0], recipe, nowhere, *arguments[1:])
    assert (result.returncode, result.stdout) == (1, "")
    assert "- the folder of images nowhere does not exist" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_samples_with_nothing_left_are_told(tmp_path):
    filters = [{"use": "dark", "name": "all", "below": 0, "ignore_rows": [0, 32], "only": "m_2_1"}]
    result = genaug("run", write_recipe(tmp_path, filters=filters))
    assert result.returncode == 0
    assert "filter    10 of 11 samples kept" in result.stdout
    assert "1 left out that no filter drops: every pixel is ignored, nothing is left to train on" in result.stdout


def test_dry_run(tmp_path):
    recipe = write_recipe(tmp_path, **FULL)
    result = genaug("run", recipe, "--dry-run", "--shard", "1/2")
    assert result.returncode == 0
    assert "12: 4 conditions x 3" in result.stdout
    assert "of at most 4; width x height: 48x32 (6), 24x32 (6)" in result.stdout
    square = genaug("run", recipe, "--dry-run", "generator.square=true").stdout
    assert "batches   3 of at most 4; width x height: 48x32 (6), 24x32 (6)" in square
    assert "shard     1/2: " in result.stdout
    assert not (tmp_path / "out").exists()
    assert json.loads(genaug("run", recipe, "--dry-run", "--json").stdout)["samples"] == 12


def test_overrides_and_errors_name_the_key(tmp_path):
    recipe = write_recipe(tmp_path)
    assert "4 samples" in genaug("generate", recipe, "generator.images_per_mask=1", "output=other").stdout
    assert (tmp_path / "other/dataset.json").exists()
    wrong = genaug("generate", recipe, "generator.images_per_mask=2", "output=other")
    assert wrong.returncode == 2
    assert "generator.images_per_mask is 2, was 1" in wrong.stderr
    assert "--shard: '5'" in genaug("generate", recipe, "--shard", "5").stderr


@pytest.mark.parametrize("verb", ["run", "adapt", "generate", "filter"])
def test_help_is_light(verb):
    code = (
        "import sys; from click.testing import CliRunner; from genaug.cli import group\n"
        f"result = CliRunner().invoke(group, [{verb!r}, '--help'])\n"
        "assert result.exit_code == 0 and '--shard I/N' in result.output, result.output\n"
        "assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can drop privileges")
def test_a_read_only_folder():
    """Root may write anywhere, so the process becomes somebody else first, whom pytest's folders do not let in."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_recipe(Path(folder))
        Path(folder).chmod(0o555)
        arguments = ["generate", str(recipe), "--device", "cpu"]
        code = (
            "import sys; from genaug.cli import main\n"
            "import numpy, PIL.Image, PIL.PngImagePlugin, yaml, pydantic, genaug.engine, genaug_noise\n"
            f"import os; os.setuid(65534); sys.argv[1:] = {arguments!r}; main()"
        )
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert result.returncode == 2, result.stderr
        assert "out: cannot create the folder: no permission" in result.stderr
        assert not (Path(folder) / "out").exists()

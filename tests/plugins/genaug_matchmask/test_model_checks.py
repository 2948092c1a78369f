"""Models that a recipe names are looked for before anything heavy starts, by `check` and every run, without torch."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from genaug.cli import group
from genaug.config import Options
from genaug.engine import preview, run
from genaug.errors import ConfigError
from genaug.models import ModelCheck, check_models
from genaug.recipe import load_recipe

RECIPE: dict[str, Any] = {
    "labels": {"names": {1: "sky", 4: "grass"}},
    "data": {"images": "images", "masks": "masks"},
    "generator": {"use": "matchmask", "base": "genaug-tiny"},
    "filters": [{"use": "relative", "predictor": {"use": "small-unet"}}],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound recipe with two pictures beside it."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(np.full((8, 8), 4, np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


def look(root: Path, *overrides: str) -> ModelCheck:
    return check_models(load_recipe(root / "recipe.yaml", overrides))


def files(folder: Path, **texts: str) -> Path:
    """Write files; ``__`` in a name stands for a dot, ``_in_`` for a folder."""
    for name, text in texts.items():
        path = folder / name.replace("_in_", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def base_folder(folder: Path) -> Path:
    """What `check` can see of a Stable Diffusion folder."""
    weights = {f"{part}_in_model__safetensors": "" for part in ("unet", "vae", "text_encoder")}
    small = {"tokenizer_in_vocab__json": "{}", "scheduler_in_config__json": "{}"}
    return files(folder, model_index__json="{}", **weights, **small)


# ---------------------------------------------------------------------- what is seen


def test_a_sound_recipe_has_nothing_to_say(root: Path) -> None:
    found = look(root)
    assert (found.problems, found.notes) == ([], [])


@pytest.mark.parametrize("base", ["/nonexistent", "./models/sd", "~/no-such-model", "a/b/c", "sd14"])
def test_a_base_that_is_no_folder_and_looks_like_no_hub_id(root: Path, base: str) -> None:
    (problem,) = look(root, f"generator.base={base}").problems
    assert problem.startswith(f"generator.base: {base!r} is neither a folder nor a Hub id. Allowed: ")
    assert "genaug-tiny" in problem


def test_a_hub_id_is_said_to_be_unchecked(root: Path) -> None:
    found = look(root, "generator.base=stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert found.problems == []
    (note,) = found.notes
    assert note.startswith("generator.base: 'stable-diffusion-v1-5/stable-diffusion-v1-5' is no folder, so it is a Hub")
    assert note.endswith("is not checked")
    result = CliRunner().invoke(group, ["check", str(root / "recipe.yaml"), "generator.base=org/model"])
    assert result.exit_code == 0
    assert "note: generator.base: 'org/model' is no folder" in result.stdout


def test_the_shape_of_a_base_folder(root: Path) -> None:
    folder = base_folder(root / "models" / "sd")
    assert look(root, "generator.base=models/sd").problems == []  # relative to the recipe
    (folder / "vae" / "model.safetensors").rename(folder / "vae" / "model.bin")
    (folder / "tokenizer" / "vocab.json").unlink()
    (folder / "tokenizer").rmdir()
    (problem,) = look(root, "generator.base=models/sd").problems
    assert "has no folder tokenizer, no .safetensors file in vae. Allowed: a Stable Diffusion 1.x or 2.x" in problem
    (folder / "model_index.json").write_text("{")
    (problem,) = look(root, "generator.base=models/sd").problems
    assert "model_index.json cannot be read" in problem
    (folder / "model_index.json").unlink()
    (problem,) = look(root, "generator.base=models/sd").problems
    assert "has no model_index.json" in problem


def test_a_saved_pipeline_and_the_shipped_one_have_the_shape(root: Path, base_folder: Path) -> None:
    from genaug_tiny.weights import model_folder

    for folder in (base_folder, model_folder()):
        assert look(root, f"generator.base={folder}").problems == []


def test_the_shape_of_an_adapter_folder(root: Path) -> None:
    (problem,) = look(root, "generator.adapter=runs/adapter").problems
    assert problem == (
        f"generator.adapter: {root / 'runs/adapter'} does not exist. Allowed: a folder written by 'genaug adapt'."
    )
    folder = files(root / "runs" / "adapter", adapter_config__json="{}")
    (problem,) = look(root, "generator.adapter=runs/adapter").problems
    assert "has no genaug_config.json and no adapter_model.safetensors" in problem
    files(folder, genaug_config__json="[]", adapter_model__safetensors="")
    (problem,) = look(root, "generator.adapter=runs/adapter").problems
    assert "genaug_config.json: damaged: cannot be read (no table)" in problem
    files(folder, genaug_config__json='{"method": "other", "format": "x/9"}')
    (problem,) = look(root, "generator.adapter=runs/adapter").problems
    assert "an adapter of method 'other', format 'x/9'. Allowed: matchmask, lt-adapter/1." in problem
    config = {"method": "matchmask", "format": "lt-adapter/1"}
    files(folder, genaug_config__json=json.dumps(config))
    (problem,) = look(root, "generator.adapter=runs/adapter").problems
    assert "damaged: it lacks alpha_pool, base, " in problem
    keys = ("base", "base_fingerprint", "rank", "target_modules", "alpha_pool", "layers", "labels")
    config |= {**dict.fromkeys(keys, 0), "weights_sha256": hashlib.sha256(b"weights").hexdigest()}
    files(folder, genaug_config__json=json.dumps(config), adapter_model__safetensors="weights")
    assert look(root, "generator.adapter=runs/adapter").problems == []
    files(folder, adapter_model__safetensors="weig")
    (problem,) = look(root, "generator.adapter=runs/adapter").problems
    assert problem.startswith("generator.adapter: ")
    assert "adapter_model.safetensors: damaged: its content is not what was written" in problem
    (problem,) = look(root, "generator.adapter=recipe.yaml").problems
    assert "recipe.yaml is no folder" in problem


def test_a_predictor_by_its_path(root: Path) -> None:
    (problem,) = look(root, "filters.0.predictor=runs/baseline").problems
    assert problem.startswith(f"filters.0.predictor: {root / 'runs/baseline'} does not exist. Allowed: ")
    (problem,) = look(root, "filters.0.predictor=images").problems
    assert "images is no predictor" in problem
    (problem,) = look(root, "filters.0.predictor=model.pt2").problems
    assert f"{root / 'model.pt2'} does not exist" in problem
    (root / "model.pt2").write_bytes(b"half of a zip")
    (problem,) = look(root, "filters.0.predictor=model.pt2").problems
    assert "model.pt2 is damaged or not a file of torch.export.save" in problem
    with zipfile.ZipFile(root / "model.pt2", "w") as archive:
        archive.writestr("x", "y")
    assert look(root, "filters.0.predictor=model.pt2").problems == []


def test_a_small_unet_by_its_path(root: Path) -> None:
    folder = files(root / "runs" / "small", genaug_predictor__json="{")
    (problem,) = look(root, "filters.0.predictor=runs/small").problems
    assert "genaug_predictor.json is damaged" in problem
    record = {"use": "small-unet", "ids": [1, 2], "size": [8, 8], "training": {}}
    config = json.dumps({"num_classes": 2, "width": 4})
    whole = {"segmenter__json": config, "segmenter__safetensors": "x"}
    files(folder, genaug_predictor__json=json.dumps(record), **whole)
    for spec in ("runs/small", "{use: small-unet, path: runs/small}"):
        (problem,) = look(root, f"filters.0.predictor={spec}").problems
        assert problem.startswith("filters.0.predictor.path: ")
        assert "it tells the class ids [1, 2] apart. Allowed: the ids of 'labels', [1, 4]" in problem
    files(folder, genaug_predictor__json=json.dumps({**record, "ids": [1, 4]}))
    assert look(root, "filters.0.predictor=runs/small").problems == []
    (folder / "segmenter.json").unlink()
    (problem,) = look(root, "filters.0.predictor=runs/small").problems
    assert "segmenter.json is missing" in problem
    (problem,) = look(root, "filters.0.predictor={use: small-unet, path: nowhere}").problems
    assert "no small U-Net" in problem


def test_a_transformers_model_by_its_path(root: Path) -> None:
    normal = json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]})
    folder = files(root / "segformer", config__json='{"model_type": "segformer"}')
    (problem,) = look(root, "filters.0.predictor=segformer").problems
    assert "preprocessor_config.json: cannot be read" in problem
    files(folder, preprocessor_config__json=normal)
    (problem,) = look(root, "filters.0.predictor=segformer").problems
    assert problem.endswith("segformer has no .safetensors weights.")
    files(folder, model__safetensors="")
    assert look(root, "filters.0.predictor=segformer").problems == []
    files(root / "foreign", genaug_predictor__json='{"use": "nobody"}')
    (problem,) = look(root, "filters.0.predictor=foreign").problems
    assert "no predictor is called 'nobody'" in problem


def test_any_component_may_name_models(root: Path) -> None:
    class Mine(Options):
        weights: str = "mine"

        def check_models(self, look: ModelCheck) -> None:
            look.folder("weights", self.weights, ["model.bin"], allowed="mine")

    found = look(root)
    Mine().check_models(found.at("labeler"))
    assert found.problems == [f"labeler.weights: {root / 'mine'} does not exist. Allowed: mine."]
    Options().check_models(found)  # nothing by default
    assert len(found.problems) == 1


# ---------------------------------------------------------------------- who looks

BROKEN = ["generator.base=/nonexistent", "generator.adapter=runs/adapter", "filters.0.predictor=runs/baseline"]


def test_check_lists_models_beside_data(root: Path) -> None:
    (root / "masks" / "b.png").unlink()
    result = CliRunner().invoke(group, ["check", str(root / "recipe.yaml"), *BROKEN])
    assert result.exit_code == 2
    assert "models that cannot be used (3):" in result.stdout
    for key in ("generator.base", "generator.adapter", "filters.0.predictor"):
        assert f"  - {key}: " in result.stdout
    assert "problems (1):" in result.stdout  # of the data
    assert "There are problems" in result.stdout
    report = json.loads(CliRunner().invoke(group, ["check", str(root / "recipe.yaml"), *BROKEN, "--json"]).stdout)
    assert (len(report["models"]), len(report["data"]["problems"]), report["ok"]) == (3, 1, False)


def test_check_of_conditions_whose_predictor_is_missing(root: Path) -> None:
    conditions = "conditions={format: pseudo-masks, images: images, predictor: runs/baseline}"
    result = CliRunner().invoke(group, ["check", str(root / "recipe.yaml"), conditions])
    assert result.exit_code == 2
    assert "conditions.predictor: " in result.stdout
    assert "note: conditions: not read" in result.stdout
    assert "data: 2 samples" in result.stdout


@pytest.mark.parametrize("override", BROKEN)
def test_a_run_finds_it_first_and_writes_nothing(root: Path, override: str) -> None:
    recipe = load_recipe(root / "recipe.yaml", [override])
    before = sorted(root.rglob("*"))
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        run(recipe, device="cpu")
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        preview(recipe, device="cpu")
    assert sorted(root.rglob("*")) == before


def test_a_run_lists_all_models(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"3 models cannot be used:\n  - generator\.base.*\n  - generator\.adapter"):
        run(load_recipe(root / "recipe.yaml", BROKEN), device="cpu")


def test_a_stage_asks_only_for_the_models_it_uses(root: Path) -> None:
    """The samples may be made on one machine and filtered on another, which has no base model."""
    with pytest.raises(ConfigError, match=r"^filters\.0\.predictor: [^\n]*$"):
        run(load_recipe(root / "recipe.yaml", BROKEN), stages=["filter"], device="cpu")
    with pytest.raises(ConfigError, match=r"^2 models cannot be used:\n  - generator\.base"):
        run(load_recipe(root / "recipe.yaml", BROKEN), stages=["generate"], device="cpu")


def test_looking_for_models_needs_no_torch(root: Path) -> None:
    base_folder(root / "sd")
    files(root / "segformer", config__json="{}", preprocessor_config__json='{"do_normalize": false}')
    files(root / "small", genaug_predictor__json='{"use": "small-unet", "ids": [1, 4], "size": [8, 8], "training": {}}')
    filters = "filters=[{use: relative, predictor: segformer}, {use: confidence, predictor: small}]"
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom genaug.cli import group\n"
        f"arguments = ['check', {str(root / 'recipe.yaml')!r}, 'generator.base=sd', {filters!r}]\n"
        "result = CliRunner().invoke(group, arguments)\n"
        "assert result.exit_code == 2 and 'cannot be used (2)' in result.output, result.output\n"
        "assert not {'torch', 'diffusers', 'transformers', 'peft'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from genaug.cli import group
from genaug.cli.names import find_names
from genaug.labels import default_color
from genaug.recipe import load_recipe

Write = Callable[..., Path]


def mask(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(group, list(map(str, arguments)))


def init(root: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Write a recipe for `root`, check it by the whole way of the user, return it parsed and as text."""
    output = root / "recipe.yaml"
    result = run("init", root, "--output", output, *arguments)
    assert result.exit_code == 0, result.output
    checked = run("check", output, "--json")
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["data"]["problems"] == []
    text = output.read_text("utf-8")
    return yaml.safe_load(text), text


def test_a_plain_folder_becomes_a_recipe_that_passes_its_check(write_pairs: Write) -> None:
    recipe, text = init(write_pairs({"a": mask(0, 4, 9), "b": mask(0, 0, 255)}))
    assert recipe["labels"] == {"names": {0: "class-0", 4: "class-4", 9: "class-9"}, "ignore_index": 255}
    assert recipe["data"] == {"format": "folder", "images": "images", "masks": "masks"}
    assert recipe["generator"]["use"] == "matchmask"
    assert "# RENAME the classes: the prompt is made of these names" in text
    assert "# 255 occurs in 1 masks; it is taken for pixels that nobody labelled." in text
    assert "# base: CompVis/stable-diffusion-v1-4" in text
    assert "palette" not in text


def test_the_recipe_may_lie_elsewhere(write_pairs: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs({"a": mask(0, 1)}, images="data/images", labels="data/masks")
    (tmp_path / "work" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    result = run("init", "../data", "--output", "deep/mine.yaml")
    assert (result.exit_code, result.stdout) == (0, "deep/mine.yaml\n")
    recipe = load_recipe("deep/mine.yaml")
    assert recipe.config.data.options["images"] == "../../data/images"
    assert recipe.source().check() == []
    assert recipe.config.name == "data"


def test_nothing_is_overwritten_without_force(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0, 1)})
    (root / "recipe.yaml").write_text("mine")
    result = run("init", root, "--output", root / "recipe.yaml")
    assert result.exit_code == 2
    assert "recipe.yaml exists. Name another file, or add --force." in result.stderr
    assert (root / "recipe.yaml").read_text() == "mine"
    init(root, "--force")
    assert run("init", root, "--output", root / "recipe.json").exit_code == 2


def test_black_and_white_masks_keep_their_foreground(write_pairs: Write) -> None:
    recipe, text = init(write_pairs({"a": mask(0, 255), "b": mask(255, 255)}))
    assert recipe["labels"] == {"names": {0: "class-0", 255: "class-255"}, "ignore_index": 254}
    assert "# 255 is a class here (masks of 0 and 255), so the ignore index is 254" in text


def test_palette_masks_are_noted(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0, 1, 15)})
    picture = Image.fromarray(mask(0, 1, 15))
    picture.putpalette([v for i in range(256) for v in default_color(i)])
    picture.save(root / "masks" / "a.png")
    recipe, text = init(root)
    assert list(recipe["labels"]["names"]) == [0, 1, 15]
    assert "# The masks are palette files; genaug reads the index of a pixel, never its colour." in text


COLORS = {0: (0, 0, 0), 1: (250, 0, 0), 2: (0, 0, 250)}


@pytest.mark.parametrize("named", [True, False])
def test_colour_masks_get_a_colour_table(write_pairs: Write, named: bool) -> None:
    root = write_pairs({"a": mask(0, 1, 2)})
    Image.fromarray(np.array([list(COLORS.values())], np.uint8)).save(root / "masks" / "a.png")
    if named:
        table = [{"id": i, "name": f"thing {i}", "color": list(c)} for i, c in COLORS.items()]
        (root / "classes.json").write_text(json.dumps({"classes": table, "ignore_index": 200}))
    recipe, text = init(root)
    assert recipe["data"]["color_map"] is True
    assert sorted(map(tuple, recipe["labels"]["colors"].values())) == sorted(COLORS.values())
    assert ("RENAME" in text) is not named
    assert recipe["labels"]["ignore_index"] == (200 if named else 255)


def test_too_many_colours_are_refused(write_pairs: Write) -> None:
    root = write_pairs({"a": np.zeros((10, 10), np.uint8)})
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(root / "masks/a.png")
    result = run("init", root, "--output", root / "recipe.yaml")
    assert result.exit_code == 1
    assert "the masks are RGB and hold more than 64 colours" in result.stderr
    assert not (root / "recipe.yaml").exists()


def test_images_without_masks_are_left_out_by_a_list(write_pairs: Write) -> None:
    root = write_pairs({name: mask(0, 1) for name in "abc"})
    (root / "masks" / "b.png").unlink()
    recipe, _ = init(root)
    assert recipe["data"]["labeled"] == "recipe-labeled.txt"
    text = (root / "recipe-labeled.txt").read_text()
    assert text == "a\nc\n# Left out, since they have no partner:\n# images/b.png\n"
    assert [s.id for s in load_recipe(root / "recipe.yaml").source()] == ["a", "c"]
    assert run("init", root, "--output", root / "recipe.yaml").exit_code == 2
    init(root, "--force")


def test_files_left_out_are_named_at_once(write_pairs: Write) -> None:
    root = write_pairs({f"s{i}": mask(0, 1) for i in range(8)})
    for number in range(5):
        (root / "masks" / f"s{number}.png").unlink()
    (root / "images" / "s7.png").unlink()
    output = root / "recipe.yaml"
    result = run("init", root, "--output", output)
    assert result.exit_code == 0
    listing = root / "recipe-labeled.txt"
    assert result.stderr.startswith(
        "genaug: note: images without mask: 5x: images/s0.png, images/s1.png, images/s2.png and 2 more. "
        f"Left out; {listing} names all of them.\n"
        f"genaug: note: masks without image: 1x: masks/s7.png. Left out; {listing} names all of them.\n"
    )
    left_out = [f"# images/s{i}.png" for i in range(5)] + ["# masks/s7.png"]
    assert listing.read_text().splitlines()[-6:] == left_out


def test_an_image_of_one_folder_without_mask_is_told_as_such(tmp_path: Path) -> None:
    for name in ("a.png", "a_mask.png", "b.png", "c_mask.png"):
        Image.new("L" if "mask" in name else "RGB", (2, 1)).save(tmp_path / name)
    result = run("init", tmp_path, "--output", tmp_path / "recipe.yaml")
    assert "note: images without mask: 1x: b.png." in result.stderr
    assert "note: masks without image: 1x: c_mask.png." in result.stderr


def test_ids_that_a_names_file_lacks_are_problems_and_no_classes(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(1, 4, 9), "b": mask(1, 4, 77)})
    (root / "classes.txt").write_text("1: sky\n4: grass\n9: barn\n")
    output = root / "recipe.yaml"
    result = run("init", root, "--output", output)
    assert result.exit_code == 1
    assert "- id 77 is not in the class table: 1x: " in result.stderr
    assert "masks/b.png. Allowed: 1, 4, 9 and the ignore index 255." in result.stderr
    assert f"'genaug check {output} --all' names every file." in result.stderr
    text = output.read_text()
    assert yaml.safe_load(text)["labels"]["names"] == {1: "sky", 4: "grass", 9: "barn"}
    assert "# The masks hold ids that classes.txt does not name: 77. Name them, or mend them." in text
    assert run("check", output).exit_code == 1


def test_colours_that_a_names_file_lacks_are_problems_and_no_classes(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0, 1, 2)})
    rgb = np.array([[COLORS[0], COLORS[1], (9, 9, 9)]], np.uint8)
    Image.fromarray(rgb).save(root / "masks" / "a.png")
    table = [{"id": i, "name": f"thing {i}", "color": list(c)} for i, c in COLORS.items()]
    (root / "classes.json").write_text(json.dumps(table))
    result = run("init", root, "--output", root / "recipe.yaml")
    assert result.exit_code == 1
    assert "the mask has colours that labels.colors does not list: 1x: " in result.stderr
    assert "(9, 9, 9)" in result.stderr
    names = yaml.safe_load((root / "recipe.yaml").read_text())["labels"]["names"]
    assert names == {0: "thing 0", 1: "thing 1", 2: "thing 2"}
    (root / "classes.json").write_text('["ground", "tree", "car"]')
    _, text = init(root, "--force")
    assert "# The names in classes.json are not used: it does not say which of these colours they have." in text


def test_masks_that_nobody_labelled_are_no_recipe(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(255, 255), "b": mask(255)})
    output = root / "recipe.yaml"
    result = run("init", root, "--output", output)
    assert result.exit_code != 0
    assert "every pixel of the 2 masks is 255, which means that nobody labelled it" in result.stderr
    assert not output.exists()
    (root / "classes.txt").write_text("0: ground\n1: tree\n")
    result = run("init", root, "--output", output)
    assert result.exit_code == 1
    assert "every pixel of every mask is ignored" in result.stderr
    (root / "classes.txt").write_text("255: tree\n")  # as the hint says
    recipe, _ = init(root, "--force")
    assert recipe["labels"] == {"names": {255: "tree"}, "ignore_index": 254}


def test_masks_that_are_no_pictures_are_told(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0, 1)})
    (root / "masks" / "a.png").write_bytes(b"torn")
    result = run("init", root, "--output", root / "recipe.yaml")
    assert result.exit_code != 0
    assert "no mask can be read" in result.stderr
    assert "a.png" in result.stderr
    assert not (root / "recipe.yaml").exists()


def test_the_folder_of_the_recipe_is_made_or_refused_at_once(
    write_pairs: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs({"a": mask(0, 1)}, images="ok/images", labels="ok/masks")
    monkeypatch.chdir(tmp_path)
    result = run("init", "ok", "--output", "nodir/deep/x.yaml")
    assert (result.exit_code, result.stdout) == (0, "nodir/deep/x.yaml\n")
    assert load_recipe("nodir/deep/x.yaml").source().check() == []
    (tmp_path / "file").touch()
    result = run("init", "ok", "--output", "file/deep/x.yaml")
    assert result.exit_code == 2
    assert f"genaug: --output: {tmp_path / 'file'} is no folder." in result.stderr


def test_lists_are_used_when_there_is_no_doubt(write_pairs: Write) -> None:
    root = write_pairs({name: mask(0, 1) for name in "abc"})
    (root / "splits").mkdir()
    (root / "splits" / "labeled.txt").write_text("a\nb\n")
    (root / "splits" / "train.txt").write_text("a\nb\nc\n")
    assert init(root)[0]["data"]["labeled"] == "splits/labeled.txt"
    (root / "splits" / "other_labeled.txt").write_text("c\n")
    recipe, text = init(root, "--force")
    assert "labeled" not in recipe["data"]
    assert "for the key 'labeled': splits/labeled.txt, splits/other_labeled.txt, splits/train.txt." in text


def test_damaged_data_are_told_and_the_recipe_is_written_all_the_same(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0, 1), "b": mask(0, 1)})
    (root / "images" / "b.png").write_bytes(b"torn")
    result = run("init", root, "--output", root / "recipe.yaml")
    assert result.exit_code == 1
    assert "- the file cannot be read: 1x: " in result.stderr
    assert (root / "recipe.yaml").exists()


def test_folders_without_data_or_readable_masks_are_refused(write_pairs: Write, tmp_path: Path) -> None:
    result = run("init", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "nowhere: does not exist" in result.stderr
    root = write_pairs({"a": mask(0, 1)})
    Image.new("I;16", (2, 1)).save(root / "masks" / "a.png")
    result = run("init", root, "--output", root / "recipe.yaml")
    assert result.exit_code == 1
    assert "no mask can be read" in result.stderr
    assert "more than 8 bits a pixel" in result.stderr


def test_names_that_yaml_would_misread_are_quoted(write_pairs: Write) -> None:
    root = write_pairs({"a": mask(0, 1, 2, 3)})
    (root / "classes.txt").write_text("no\n1.5\nstraße: nass\n# not a comment here\noff\n", "utf-8")
    recipe, _ = init(root)
    assert recipe["labels"]["names"] == {0: "no", 1: "1.5", 2: "straße: nass", 3: "off"}


# ---------------------------------------------------------------------- files with class names


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("classes.txt", "road\ncar\n", {0: "road", 1: "car"}),
        ("labels.txt", "0 road\n4: traffic light\n", {0: "road", 4: "traffic light"}),
        ("classes.json", '["road", "car"]', {0: "road", 1: "car"}),
        ("id2label.json", '{"0": "road", "7": "car"}', {0: "road", 7: "car"}),
        ("classes.json", '{"road": 0, "car": 3}', {0: "road", 3: "car"}),
        ("labels.json", '{"id2label": {"1": "road"}}', {1: "road"}),
        ("data.yaml", "path: x\nnames: [road, car]\nnc: 2\n", {0: "road", 1: "car"}),
        ("data.yml", "names: {3: road}\n", {3: "road"}),
        ("classes.json", '{"classes": [{"id": 2, "name": "road"}, {"id": 9, "name": "void"}], "ignore_index": 9}',
         {2: "road"}),
    ],
)  # fmt: skip
def test_usual_files_of_class_names(tmp_path: Path, name: str, text: str, names: Mapping[int, str]) -> None:
    (tmp_path / name).write_text(text)
    found = find_names(tmp_path)
    assert found is not None
    assert dict(found.names) == dict(names)
    (tmp_path / "train").mkdir()
    beside = find_names(tmp_path / "train")
    assert (beside is None) == (Path(name).suffix in {".yaml", ".yml"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.json", "{torn"),
        ("classes.json", "3"),
        ("classes.json", "[]"),
        ("classes.json", '{"a": "b"}'),
        ("classes.json", '["a", 3]'),
        ("classes.json", '[{"id": 300, "name": "far"}]'),
        ("classes.txt", ""),
        ("setup.yaml", "steps: [1, 2]\n"),
        ("setup.yaml", "- 1\n- 2\n"),
    ],
)
def test_files_about_other_things_are_passed_over(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert find_names(tmp_path) is None

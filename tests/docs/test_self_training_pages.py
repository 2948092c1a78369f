"""The pages of the self-training methods say what the code does: every option, its default, and the ready recipes."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from genaug.config import parse
from genaug.recipe import load_recipe
from genaug.step_config import LabelledSetLossConfig, SetLossConfig
from genaug_maskmatch.config import MaskMatchOptions, PatchMaskOptions
from genaug_sense.config import QueryOptions, SenseOptions
from genaug_torch import SemiSupervisedStep
from genaug_upc.config import UpcOptions

DOCS = Path(__file__).resolve().parents[2] / "docs"
METHODS = DOCS / "explanation/methods"


def table(page: str) -> dict[str, str]:
    """Return the column `default` of a page's table of options, by option."""
    text = (METHODS / page).read_text("utf-8")
    part = text.split("| option | default | source |\n", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:4]] for line in part.splitlines()[1:]]
    names = [row[0].strip("`") for row in rows]
    assert len(set(names)) == len(names)
    return {name: row[1] for name, row in zip(names, rows, strict=True)}


def written(value: Any) -> str:
    """Return a default as the pages write it."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def read(cell: str) -> str:
    return cell.replace("`", "").strip("[] ").replace("none: equal shares", "none")


@pytest.mark.parametrize(
    ("page", "options"),
    [
        ("upc.md", {"": UpcOptions}),
        ("maskmatch.md", {"labeler.": MaskMatchOptions, "patch-mask.": PatchMaskOptions}),
    ],
)
def test_every_option_has_a_row_with_its_default(page: str, options: dict[str, Any]) -> None:
    expected = {
        prefix + name: written(field.default)
        for prefix, model in options.items()
        for name, field in model.model_fields.items()
    }
    assert {name: read(cell) for name, cell in table(page).items()} == expected


def test_every_option_of_sense_has_a_row_with_its_default_for_both_labelers() -> None:
    rows = table("sense.md")
    pixel, query = (
        {name: written(field.default) for name, field in model.model_fields.items()}
        for model in (SenseOptions, QueryOptions)
    )
    assert set(rows) == set(pixel) | set(query)
    text = (METHODS / "sense.md").read_text("utf-8")
    for name, cell in rows.items():
        both = re.fullmatch(r"(\S+) \(sense-query: (\S+)\)", read(cell))
        first, second = both.groups() if both else (read(cell), read(cell))
        assert query[name] == second, name
        if name in pixel:
            assert pixel[name] == first, name
        else:
            (row,) = re.findall(rf"^\| `{name}` .*$", text, flags=re.M)
            assert "`sense-query` only" in row


def test_every_option_of_the_set_loss_has_a_row_with_both_defaults() -> None:
    text = (METHODS / "sense.md").read_text("utf-8")
    part = text.split("| key of `set_loss` | of a term | of `supervised` | source |\n", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:4]] for line in part.splitlines()[1:]]
    term, labelled = SetLossConfig(), LabelledSetLossConfig()
    assert rows == [
        [name, written(getattr(term, name)), written(getattr(labelled, name))] for name in SetLossConfig.model_fields
    ]


@pytest.mark.parametrize(("page", "recipe"), [("sense.md", "sense"), ("upc.md", "upc"), ("maskmatch.md", "maskmatch")])
def test_the_recipe_of_a_page_is_the_ready_one(page: str, recipe: str) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", (METHODS / page).read_text("utf-8"), flags=re.M | re.S)
    shown = load_recipe(parse(block, ".yaml", where=page)).resolved()
    ready = load_recipe(recipe, ["labels=voc21", "seed=7"]).resolved()
    for term in (*shown["terms"], *ready["terms"]):
        term.pop("name")
    assert {**shown, "name": recipe} == ready


def test_the_arguments_of_the_step_exist() -> None:
    text = (DOCS / "how-to/self-training.md").read_text("utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, flags=re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    allowed = {
        *inspect.signature(SemiSupervisedStep.__init__).parameters,
        *inspect.signature(SemiSupervisedStep.__call__).parameters,
    }
    assert {"images", "labels", "unlabeled", "valid", "kind", "mean", "std", "key"} <= named <= allowed

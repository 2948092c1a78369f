"""MatchMask's page says what the code does: every option of every part with its default, and what a filter keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from genaug.cli.probe import command
from genaug.registry import Registry
from genaug_basics.class_hardness import images_to_keep
from genaug_diffusion.schedulers import DEFAULT_STEPS

PAGE = (Path(__file__).resolve().parents[2] / "docs/explanation/methods/matchmask.md").read_text("utf-8")
#: Heading of a table -> the components whose options it lists. The generator's has no column `of`.
TABLES = {
    "The generator": [("generator", "matchmask")],
    "The filters": [("filter", name) for name in ("relative", "confidence", "class-loss", "class-hardness")],
    "The segmenters": [("predictor", name) for name in ("small-unet", "transformers", "exported")],
    "The masks of MatchMask++": [("source", "pseudo-masks")],
}
PROBE = "The Gradient Probe"


def section(page: str, heading: str) -> str:
    """Return what stands between a heading of the third level and the next heading."""
    return re.split(r"^#+ ", page.split(f"\n### {heading}", 1)[1], maxsplit=1, flags=re.M)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a section's only table, without its head; code marks are gone."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] in (["option", "default", "source"], ["option", "of", "default", "source"])
    assert all(len(row) == len(cells[0]) and all(row) for row in cells)
    return cells[2:]


def stated(page: str, heading: str) -> list[tuple[str, str, str]]:
    """Return (component, option, default) of a table; what follows "none:" says what none means."""
    found = []
    every = [name for _, name in TABLES.get(heading, [("", "")])]
    for option, *of, default, _ in rows(section(page, heading)):
        value = "none" if default.startswith("none: ") else default
        names = every if of in ([], ["all"]) else of[0].split(", ")
        found += [(name, option, value) for name in names]
    return sorted(found)


def written(value: Any) -> str:
    """Return a default as the page writes it."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def options(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the options of a model; those of a nested model by their dotted names."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from options(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def true_defaults(heading: str) -> list[tuple[str, str, str]]:
    """Return what `stated` has to find."""
    if heading == PROBE:
        named = [option for option in command.params if isinstance(option, click.Option) and option.expose_value]
        values = command.make_context("probe", ["recipe.yaml"]).params
        return sorted(("", option.opts[0], written(values[str(option.name)])) for option in named)
    registry = Registry()
    found = []
    for kind, name in TABLES[heading]:
        model = registry.config_model(registry.component(kind, name))
        assert model is not None
        for option, field in options(model):
            value = "required" if field.is_required() else written(field.default)
            found.append((name, option, value))
    return sorted(found)


@pytest.mark.parametrize("heading", [*TABLES, PROBE])
def test_every_option_has_a_row_with_its_default(heading: str) -> None:
    assert stated(PAGE, heading) == true_defaults(heading)


@pytest.mark.parametrize("heading", [*TABLES, PROBE])
def test_a_missing_row_or_another_default_would_be_seen(heading: str) -> None:
    truth, text = true_defaults(heading), section(PAGE, heading)
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(lines) == len(rows(text))
    for line in lines:
        assert stated(PAGE.replace(text, text.replace(line + "\n", "")), heading) != truth, line
        *before, _, source, end = line.split("|")
        other = "|".join([*before, " 77 ", source, end])
        assert stated(PAGE.replace(text, text.replace(line, other)), heading) != truth, line


def test_every_filter_is_explained_and_every_source_named() -> None:
    text = section(PAGE, "The filters")
    assert re.findall(r"^\* `([\w-]+)`", text, flags=re.M) == [name for _, name in TABLES["The filters"]]
    for heading in (*TABLES, PROBE):
        for row in rows(section(PAGE, heading)):
            # Two rows tell what nobody stated.
            assert re.search(r"\b(P|C|ours|AdamW's default|not stated)\b", row[-1]), row


def test_the_numbers_of_the_text_are_those_of_the_code() -> None:
    (row,) = re.findall(r"^\| `steps` \| none: the preset's \| (.*) \|$", PAGE, flags=re.M)
    plms, fast, ddim = map(int, re.search(r"plms`: (\d+)\. `fast` takes (\d+) \(ours\), `ddim` (\d+)", row).groups())
    assert {"plms": plms, "fast": fast, "ddim": ddim} == DEFAULT_STEPS
    kept = [images_to_keep(rank, 100, 5) for rank in range(100)]
    assert (
        "five\n  images for each of 100 masks the ten easiest masks keep one image each and the 31 hardest all five"
        in PAGE
    )
    assert (kept.count(1), kept.count(5)) == (10, 31)
    assert kept == sorted(kept)
    assert "`min(1 + round((i + 1) / n * K), K)`" in PAGE

"""The reference pages hold every option, component, command and hook. `make docs` builds the site itself."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from genaug.cli import VERBS
from genaug.component import KINDS
from genaug.config import RecipeConfig
from genaug.registry import default_registry

SITE = Path(__file__).resolve().parents[2] / "docs/site"


@pytest.fixture(scope="module")
def reference() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SITE)
        yield importlib.import_module("reference")


@pytest.fixture(scope="module")
def pages(reference: ModuleType) -> dict[str, str]:
    return reference.pages()  # type: ignore[no-any-return]


@pytest.fixture
def options() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SITE)
        yield importlib.import_module("options")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_has_a_section_with_every_option(reference: Any, pages: dict[str, str], kind: str) -> None:
    registry = default_registry()
    page = pages[f"reference/components-{reference.PLURALS[kind]}.md"]
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", page, flags=re.M))
    assert list(sections) == registry.names(kind)
    for name, text in sections.items():
        component = registry.component(kind, name)
        assert component.target in text
        model = registry.config_model(component)
        rows = [cells(line) for line in text.splitlines() if line.startswith("| `")]
        assert all(len(row) == 5 and row[4] for row in rows)
        first = {row[0].strip("`").partition(".")[0] for row in rows}
        assert first == set(model.model_fields if model else ())


def test_recipe_keys_commands_recipes_and_hooks_are_there(pages: dict[str, str]) -> None:
    registry = default_registry()
    for key in RecipeConfig.model_fields:
        assert f"| `{key}" in pages["reference/recipe.md"]
    headings = re.findall(r"^## (.+)$", pages["reference/commands.md"], flags=re.M)
    assert headings == [f"genaug {verb}" for verb in VERBS]
    assert re.findall(r"^## (.+)$", pages["reference/ready-recipes.md"], flags=re.M) == registry.names("recipe")
    hooks = re.findall(r"^## (.+)$", pages["reference/hooks.md"], flags=re.M)
    assert hooks == ["genaug_components", "genaug_recipes", "genaug_stage_finished"]


def test_the_hub_and_the_formats_have_a_page(reference: Any) -> None:
    assert {"genaug.hub", "genaug.export"} <= set(reference.MODULES)
    described = {f"{package}.{name}" for package, names in reference.INNER.items() for name in names}
    assert {"genaug.hub.push.push", "genaug.hub.pull.pull", "genaug.hub.pretrained.from_pretrained"} <= described
    for name in described:
        module, _, attribute = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), attribute)), name


class Inner(BaseModel):
    rate: float = Field(0.1, gt=0, description="How fast.")


class Example(BaseModel):
    must: Literal["a", "b"] = Field(description="Needed | <always>.")
    inner: Inner = Field(Inner(rate=0.5), description="A table.")
    many: tuple[int, ...] = Field((1, 2), min_length=1, description="Numbers of `x_y`.")
    maybe: str | None = Field(None, description="Text_or_not.")


def test_a_table_says_what_the_model_says(options: ModuleType) -> None:
    lines = options.table(Example).splitlines()
    assert [cells(line) for line in lines[2:]] == [
        ["`must`", "`a` or `b`", "required", "", r"Needed \| \<always\>."],
        # The default of the table that holds an option wins over the option's own.
        ["`inner.rate`", "number", "`0.5`", "> 0", "How fast."],
        ["`many`", "list of whole number", "`[1, 2]`", "at least 1 long", "Numbers of `x_y`."],
        ["`maybe`", "text", "none", "", r"Text\_or\_not."],
    ]
    with pytest.raises(TypeError, match="no words"):
        options.kind(complex)


def test_every_page_of_the_folder_is_in_the_navigation() -> None:
    text = (SITE / "build.py").read_text("utf-8")
    parts = set(re.findall(r'^    "([\w/-]*)": "', text, flags=re.M))
    docs = SITE.parent
    assert {path.parent.relative_to(docs).as_posix().replace(".", "") for path in docs.rglob("*.md")} <= parts

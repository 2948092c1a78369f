"""Whatever a user or a plugin's author can name is explained where they look it up."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from genaug import hookspecs
from genaug.cli import VERBS, group
from genaug.config import RecipeConfig
from genaug.registry import GROUP, default_registry, is_installed
from genaug.testing import plugins as plugin_contract

#: Modules whose ``__all__``, or what they define themselves, is for users.
PUBLIC = (
    "genaug", "genaug.engine", "genaug.export", "genaug.hub.pretrained", "genaug.hub.pull", "genaug.hub.push",
    "genaug.report", "genaug.store", "genaug.testing",
    "genaug_albumentations", "genaug_detectron2", "genaug_torch", "genaug_transformers",
)  # fmt: skip
FAKES = Path(__file__).parents[1] / "integrations/genaug_detectron2/fake"


def silent(thing: Any) -> bool:
    """Tell whether nothing is written about it; a docstring that Python makes up for a data class does not count."""
    text = (vars(thing).get("__doc__") if inspect.isclass(thing) else inspect.getdoc(thing)) or ""
    return not text.strip() or text.startswith(f"{getattr(thing, '__name__', '')}(")


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class defines itself."""
    for name, value in vars(cls).items():
        plain = inspect.unwrap(value.__func__) if isinstance(value, classmethod | staticmethod) else value
        if not name.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
            yield name, plain


def names(module: ModuleType) -> list[str]:
    own = [n for n, v in vars(module).items() if n[0] != "_" and getattr(v, "__module__", None) == module.__name__]
    return list(getattr(module, "__all__", own))


def unexplained(module: ModuleType) -> list[str]:
    found = []
    for name in names(module):
        thing = getattr(module, name)
        if callable(thing) and silent(thing):
            found.append(name)
        if inspect.isclass(thing):
            # A method that implements an explained one needs no words of its own: `getdoc` finds those of the base.
            found += [f"{name}.{part}" for part, _ in members(thing) if not inspect.getdoc(getattr(thing, part))]
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_a_docstring(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if module == "genaug_detectron2" and not is_installed("detectron2"):
        monkeypatch.syspath_prepend(FAKES / "detectron2")  # as the tests of that host do
    loaded = importlib.import_module(module)
    assert names(loaded)
    assert unexplained(loaded) == []


def test_every_hook_says_when_it_is_called_and_shows_an_implementation() -> None:
    hooks = {name: v for name, v in vars(hookspecs).items() if hasattr(v, f"{GROUP}_spec")}
    assert len(hooks) == 3
    for name, hook in hooks.items():
        text = inspect.getdoc(hook) or ""
        assert "Called" in text, name
        assert f"@hookimpl\n    def {name}(" in text, name


def test_every_component_has_a_summary_and_every_option_a_description() -> None:
    registry = default_registry()
    components = [component for plugin in registry.plugins for component in plugin.components]
    assert len(components) > 30
    assert [line for c in components for line in plugin_contract.undocumented(c, registry)] == []


def test_every_component_that_can_be_imported_here_has_a_docstring() -> None:
    registry = default_registry()
    components = [component for plugin in registry.plugins for component in plugin.components]
    assert [f"{c.kind} {c.name}" for c in components if silent(registry.load(c))] == []


def test_every_key_of_a_recipe_has_a_description() -> None:
    assert list(plugin_contract.undescribed(RecipeConfig, "recipe")) == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_each_of_its_options_has_a_help_text(verb: str) -> None:
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    assert (command.help or "").strip()
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [p.opts[0] for p in options if not (p.help or "").strip()] == []
    names = [
        p.make_metavar(click.Context(command)).strip("[].") for p in command.params if isinstance(p, click.Argument)
    ]
    # ORG/NAME and the like say what they are.
    assert [name for name in names if name.isalpha() and name not in (command.help or "")] == []

"""The reference pages, made from the code each time the site is built."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import click
from options import escaped, table

from genaug import hookspecs
from genaug.cli import VERBS, group
from genaug.component import KINDS, Component
from genaug.config import RecipeConfig
from genaug.registry import Registry
from genaug.schema import recipe_schema
from genaug.step_config import TermConfig

PLURALS = {kind: {"quickstart": "quickstarts", "figures": "figures"}.get(kind, f"{kind}s") for kind in KINDS}
ABOUT = {
    "generator": "Make samples from conditions. Named in a recipe's `generator`.",
    "filter": "Judge all samples made from one condition. Named in the list `filters`.",
    "labeler": "Turn the teacher's predictions into targets and weights. Named in `labeler`.",
    "mixer": "Mix a batch with a partner. Named in the `mixer` of a term.",
    "source": "Read data. Named by `format` in `data` and `conditions`; `folder` when it is left out.",
    "writer": "Write a store or labelled data in another format: `genaug export --format NAME`.",
    "predictor": "Segmenters that filters, sources and reports ask. Named wherever an option is called `predictor`.",
    "base": "Folders of base models that packages ship; their names stand where a model's name can.",
    "quickstart": "Demonstrations: `genaug quickstart --method NAME`.",
    "figures": "Sections of the quality report.",
}
#: Not on the package index, so the machine that builds the site need not have it.
ABSENT = ["detectron2"]
#: module -> what it is for; the pages show what the module calls public.
MODULES = {
    "genaug": "The core: data types, interfaces, recipes, stores.",
    "genaug.errors": "Every error that genaug raises on purpose.",
    "genaug.batch": "The batch of a training loop: torch tensors.",
    "genaug.predictions": "What a segmenter predicted, with what the numbers mean.",
    "genaug.mixture": "One description of which pixel comes from which sample.",
    "genaug.schema": "The JSON schema of recipes.",
    "genaug_torch": "Stores as datasets, mixed data, self-training in one step.",
    "genaug_transformers": "Self-training in the transformers Trainer.",
    "genaug_albumentations": "Transforms that draw from a store.",
    "genaug_detectron2": "Stores as datasets, a mapper, self-training as a hook.",
    "genaug.testing.filters": "Contracts that every filter has to pass, and data to test with.",
    "genaug.testing.predictors": "The contract of predictors.",
}


def pages() -> dict[str, str]:
    """Return path in the site -> text of the pages about recipes, components, commands and hooks, and the schema."""
    registry = Registry()
    found = {
        "recipe": _recipe(),
        "ready-recipes": _ready_recipes(registry),
        "commands": _commands(),
        "hooks": _hooks(),
    }
    found |= {f"components-{PLURALS[kind]}": _components(registry, kind) for kind in KINDS if registry.names(kind)}
    texts = {f"reference/{name}.md": text for name, text in found.items()}
    return texts | {"reference/recipe.schema.json": json.dumps(recipe_schema(registry), indent=2)}


def python_pages() -> dict[str, str]:
    """Return path in the site -> Markdown of the pages that Sphinx fills with docstrings."""
    found = {f"reference/python-{module.replace('.', '-')}.md": (module, text) for module, text in MODULES.items()}
    return {path: _module(module, text) for path, (module, text) in found.items()}


def _recipe() -> str:
    lines = [
        "# Keys of a recipe\n",
        f"{escaped(inspect.getdoc(RecipeConfig) or '')}\n",
        "`extends` names a ready recipe that this one changes: tables are merged key by key, anything else replaces. A "
        "table that names another component replaces, and so does `labels`. On the command line, "
        "`dotted.key=value` changes a single value.\n",
        "`generator`, `filters`, `labeler` and `mixer` hold `{use: <component>, ...}` with the options of that "
        "component; `data` and `conditions` hold `{format: <source>, ...}`.\n",
        "{download}`The JSON schema <recipe.schema.json>` knows all of it for editors; `genaug schema` prints the one "
        "for the plugins that you have. In an editor with a YAML language server, write it beside the recipe, and this "
        "as the recipe's first line:\n",
        "```text\n# yaml-language-server: $schema=recipe.schema.json\n```\n",
        table(RecipeConfig),
        "## Terms\n\nEach item of `terms` is one loss on unlabelled images.\n",
        table(TermConfig),
    ]
    return "\n".join(lines)


def _ready_recipes(registry: Registry) -> str:
    lines = ["# Ready recipes\n", "Name one on the command line, or in a recipe's `extends`.\n"]
    for name in registry.names("recipe"):
        package, _, inside = registry.recipe_path(name).partition(":")
        text = resources.files(package).joinpath(inside).read_text("utf-8")
        lines += [f"## {name}\n", f"```yaml\n{text.rstrip()}\n```\n"]
    return "\n".join(lines)


def _components(registry: Registry, kind: str) -> str:
    lines = [f"# {PLURALS[kind].capitalize()}\n", f"{ABOUT[kind]}\n"]
    owners = {id(c): plugin.name for plugin in registry.plugins for c in plugin.components}
    for name in registry.names(kind):
        component = registry.component(kind, name)
        lines.append(f"## {name}\n")
        lines.append(f"{escaped(component.summary)[:1].upper()}{escaped(component.summary)[1:]}.\n")
        lines.append(_origin(component, owners[id(component)]))
        model = registry.config_model(component)
        if model is not None and model.model_fields:
            lines.append(table(model))
        else:
            lines.append("It has no options.\n")
    return "\n".join(lines)


def _origin(component: Component, plugin: str) -> str:
    needs = f" Needs `pip install 'genaug[{component.extra}]'`." if component.extra else ""
    return f"Plugin `{plugin}`, `{component.target}`.{needs}\n"


def _commands() -> str:
    context = click.Context(group, info_name="genaug")
    lines = ["# Commands\n", f"```text\n{group.get_help(context)}\n```\n"]
    for verb in VERBS:
        command = group.get_command(context, verb)
        assert command is not None
        inner = click.Context(command, info_name=f"genaug {verb}", max_content_width=100)
        lines += [f"## genaug {verb}\n", f"```text\n{command.get_help(inner)}\n```\n"]
    return "\n".join(lines)


def _hooks() -> str:
    lines = ["# Hooks\n", f"{escaped(inspect.getdoc(hookspecs) or '')}\n"]
    for name in vars(hookspecs):
        if name.startswith("genaug_"):
            lines += [f"## {name}\n", _directive("autofunction", f"genaug.hookspecs.{name}")]
    return "\n".join(lines)


def _module(module: str, about: str) -> str:
    lines = [f"# {module}\n", f"{about}\n"]
    return "\n".join([*lines, *(_directive(*item) for item in public(module))])


def public(module: str) -> Iterator[tuple[str, str]]:
    """Yield (Sphinx directive, full name) of the classes and functions that a module calls public, or defines."""
    from sphinx.ext.autodoc.mock import mock

    with mock(ABSENT):
        loaded = importlib.import_module(module)
    own = [name for name, value in vars(loaded).items() if getattr(value, "__module__", None) == module]
    for name in getattr(loaded, "__all__", own):
        value = getattr(loaded, name)
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
            yield _kind(value), f"{module}.{name}"


def _kind(value: Any) -> str:
    if not inspect.isclass(value):
        return "autofunction"
    return "autoexception" if issubclass(value, BaseException) else "autoclass"


def _directive(directive: str, name: str) -> str:
    members = "" if directive == "autofunction" else "\n   :members:"
    return f"```{{eval-rst}}\n.. {directive}:: {name}{members}\n```\n"

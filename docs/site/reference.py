"""The reference pages, made from the code each time the site is built."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from importlib import resources
from typing import Any

import click
from options import escaped, table

import genaug
from genaug import hookspecs
from genaug.cli import VERBS, group
from genaug.component import KINDS, Component
from genaug.config import RecipeConfig
from genaug.registry import Registry, is_installed
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
#: The machine that builds the site need not have them.
ABSENT = [name for name in ("detectron2", "pytest") if not is_installed(name)]
#: Their public names are described.
MODULES = [
    "genaug",
    *(f"genaug.{name}" for name in ("store", "engine", "report", "export", "hub", "schema")),
    *(f"genaug.{name}" for name in ("errors", "types", "batch", "predictions", "mixture")),
    *(f"genaug_{host}" for host in ("torch", "transformers", "albumentations", "detectron2")),
    "genaug.testing",
]
#: Those of a package that gathers none of its own: each of its modules is imported when it is needed.
INNER = {
    "genaug.hub": (
        "push.push",
        "pull.pull",
        "pretrained.from_pretrained",
        "pretrained.Pretrained",
        "errors.HubError",
        "errors.NotOnHubError",
    )
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
    return {f"reference/python-{module.replace('.', '-')}.md": _module(module) for module in MODULES}


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


def _module(module: str) -> str:
    entries = [_directive(*item) for item in public(module)]
    about = inspect.getdoc(sys.modules[module]) or ""
    return "\n".join([f"# {module}\n", f"{escaped(about.partition('.')[0])}.\n", *entries])


def public(module: str) -> Iterator[tuple[str, str]]:
    """Yield (Sphinx directive, full name) of the classes and functions that a module calls public, or defines."""
    from sphinx.ext.autodoc.mock import mock

    with mock(ABSENT):
        loaded = importlib.import_module(module)
    for name in INNER.get(module, ()):
        inner, _, attribute = name.partition(".")
        yield _kind(getattr(importlib.import_module(f"{module}.{inner}"), attribute)), f"{module}.{name}"
    own = [name for name, value in vars(loaded).items() if getattr(value, "__module__", None) == module]
    known = () if module == "genaug" else genaug.__all__  # described there, and once is enough
    for name in getattr(loaded, "__all__", own):
        value = getattr(loaded, name)
        if name[0] != "_" and name not in known and (inspect.isclass(value) or inspect.isfunction(value)):
            yield _kind(value), f"{module}.{name}"


def _kind(value: Any) -> str:
    if not inspect.isclass(value):
        return "autofunction"
    return "autoexception" if issubclass(value, BaseException) else "autoclass"


def _directive(directive: str, name: str) -> str:
    members = "" if directive == "autofunction" else "\n   :members:"
    return f"```{{eval-rst}}\n.. {directive}:: {name}{members}\n```\n"

"""What a shell offers after TAB: recipes, names of components, licenses. Imports plugins' declarations, no library."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

_RECIPES = (".yaml", ".yml", ".toml", ".json")
# Keys whose values are names of components.
_KINDS = {"generator.use": "generator", "labeler.use": "labeler", "data.format": "source", "extends": "recipe"}


def components(kind: str) -> Completer:
    """Return the completion of a component's name."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
        return list(_names(kind, incomplete))

    return complete


def _names(kind: str, incomplete: str, prefix: str = "") -> Iterator[CompletionItem]:
    from genaug.registry import default_registry

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken plugins: not in the middle of somebody's line
        registry = default_registry()
        for name in registry.names(kind):
            if name.startswith(incomplete):
                about = None if kind == "recipe" else registry.component(kind, name).summary
                yield CompletionItem(prefix + name, help=about)


def recipes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Return ready recipes, recipe files and folders that may hold some."""
    found = list(_names("recipe", incomplete))
    above = Path(incomplete).parent if incomplete and not incomplete.endswith("/") else Path(incomplete)
    for path in sorted(above.expanduser().glob("*")):
        text = incomplete[: incomplete.rfind("/") + 1] + path.name
        if text.startswith(incomplete) and not path.name.startswith("."):
            if path.is_dir():
                found.append(CompletionItem(f"{text}/"))
            elif path.suffix in _RECIPES:
                found.append(CompletionItem(text))
    return found


def assignments(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return values of ``KEY=VALUE`` where they are names: ``generator.use=``, ``data.format=`` and the like."""
    before = list(context.params.get(parameter.name or "") or ())
    key, equals, value = incomplete.partition("=")
    if equals and key in _KINDS:
        return list(_names(_KINDS[key], value, f"{key}="))
    if before and before[-1] == "=":  # bash splits words there
        before.pop()
    if before and before[-1] in _KINDS:
        return list(_names(_KINDS[before[-1]], incomplete))
    return [CompletionItem(f"{name}=") for name in _KINDS if name.startswith(incomplete)]


def licenses(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Return the names of licenses that the Hub knows."""
    from genaug.hub.licenses import LICENSES

    return [CompletionItem(name) for name in LICENSES if name.startswith(incomplete)]

"""``genaug plugins``: what is installed, what it provides, what is broken."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import click

from genaug.errors import PluginWarning
from genaug.registry import PluginRecord, default_registry, is_installed


def installed() -> list[PluginRecord]:
    """Return all plugins, broken ones too; nothing is warned of, since the caller prints what is broken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        return default_registry().plugins


def describe(record: PluginRecord) -> dict[str, Any]:
    """Return a plugin as JSON-like data; looks requirements up without importing them."""
    return {
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "status": "broken" if record.error else "disabled" if record.disabled else "ok",
        "error": record.error,
        "components": [
            {
                "kind": component.kind,
                "name": component.name,
                "summary": component.summary,
                "missing": [module for module in component.requires if not is_installed(module)],
                "extra": component.extra,
            }
            for component in record.components
        ],
        "recipes": sorted(record.recipes),
    }


def _lines(plugin: dict[str, Any]) -> Iterator[str]:
    status = "" if plugin["status"] == "ok" else f"  [{plugin['status']}]"
    yield f"{plugin['name']}  ({plugin['distribution']} {plugin['version']}){status}"
    if plugin["error"]:
        yield f"    {plugin['error']}"
    width = max((len(c["name"]) for c in plugin["components"]), default=0)
    for component in plugin["components"]:
        missing = ""
        if component["missing"]:
            source = f"'genaug[{component['extra']}]'" if component["extra"] else " ".join(component["missing"])
            missing = f" (needs {', '.join(component['missing'])}: pip install {source})"
        yield f"    {component['kind']:<10} {component['name']:<{width}}  {component['summary']}{missing}"
    for recipe in plugin["recipes"]:
        yield f"    {'recipe':<10} {recipe}"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List plugins, what they provide, and what is broken.

    Exit code 1 when a plugin could not be loaded.

    Example: genaug plugins --json
    """
    plugins = [describe(record) for record in installed()]
    if as_json:
        click.echo(json.dumps({"plugins": plugins}, indent=2))
    else:
        click.echo("\n".join(line for plugin in plugins for line in _lines(plugin)) or "No plugins.")
    if any(plugin["status"] == "broken" for plugin in plugins):
        ctx.exit(1)

"""Options of a component, validated by its plugin's model: a stranger's code, which may do and hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from genaug.component import Component
from genaug.config import validate
from genaug.errors import GenaugError, PluginError
from genaug.registry import Registry


def read_options(
    registry: Registry, component: Component, model: type[BaseModel], options: Mapping[str, Any], *, where: str
) -> tuple[dict[str, Any], Any]:
    """Return options with defaults filled in: their JSON form, which recipes, hashes and stores need, and the model.

    Args:
        registry: Knows which plugin a component is of.
        component: Whose options they are.
        model: Of these options.
        options: As a recipe has them.
        where: Key of the recipe.

    Raises:
        ConfigError: They are not what the model takes.
        PluginError: The model fails, or holds what has no JSON form; names the plugin, and the option if it can.
    """
    try:
        checked = validate(model, dict(options), where=where)
    except GenaugError:
        raise
    except Exception as error:
        hint = "Its author should raise ValueError where options are wrong"
        raise _fault(registry, component, f"fails over its options ({_told(error)})", where, hint) from error
    try:
        table = checked.model_dump(mode="json")
        if not isinstance(table, dict):
            raise TypeError(f"the model becomes a {type(table).__name__}")
    except Exception as error:
        bad = [name for name in model.model_fields if not _has_json(checked, name)]
        named = f"has no JSON form for its option {bad[0]!r}" if bad else "has options without a JSON form"
        hint = "Its author may take a name and look the object up in from_config, or add a field_serializer"
        raise _fault(registry, component, f"{named} ({_told(error)})", where, hint) from error
    return table, checked


def _has_json(options: BaseModel, name: str) -> bool:
    try:
        options.model_dump(mode="json", include={name})
    except Exception:
        return False
    return True


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _fault(registry: Registry, component: Component, found: str, where: str, hint: str) -> PluginError:
    """Return the error that names the plugin of a component and how to do without it."""
    owners = [plugin for plugin in registry.plugins if any(known is component for known in plugin.components)]
    of = "".join(f" of the plugin {p.name!r} ({p.distribution} {p.version})" for p in owners[:1])
    without = "".join(f"; GENAUG_DISABLE_PLUGINS={p.name} does without it" for p in owners[:1])
    return PluginError(
        f"{component.kind} {component.name!r}{of} {found}",
        where=where,
        allowed="text, numbers, true, false, lists and tables" if "JSON" in found else None,
        hint=hint + without,
    )

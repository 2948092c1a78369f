"""The JSON schema of a recipe, for editors: every key, and the options of every installed component."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import PydanticJsonSchemaWarning, models_json_schema

from genaug.component_config import ComponentConfig
from genaug.config import Options, RecipeConfig
from genaug.errors import PluginError, PluginWarning
from genaug.labels import named_sets
from genaug.registry import Registry, default_registry
from genaug.step_config import TermConfig

Schema = dict[str, Any]

#: Where a recipe names components: (model, key) -> kind.
_PLACES: dict[tuple[type[BaseModel], str], str] = {
    (RecipeConfig, "data"): "source",
    (RecipeConfig, "conditions"): "source",
    (RecipeConfig, "generator"): "generator",
    (RecipeConfig, "filters"): "filter",
    (RecipeConfig, "labeler"): "labeler",
    (TermConfig, "mixer"): "mixer",
}
#: Options that hold a component themselves, as `genaug.recipe.check_options` validates them.
_NESTED = {"predictor": "predictor", "source": "source"}
_KINDS = sorted({*_PLACES.values(), *_NESTED.values()})
#: Lists replace those of the recipe that is extended; a table is merged with it, so keys that it needs may be there.
_WHOLE = ("filter", "mixer")


class _NoOptions(Options):
    """Stands for components that take no options."""


def recipe_schema(registry: Registry | None = None) -> Schema:
    """Return the JSON schema (draft 2020-12) of recipe files.

    It says what editors can check while one types: keys, types, ranges, names of components and their options. What
    needs the data, the merged recipe or several keys together stays with ``genaug check``.

    Args:
        registry: Whose components are described; everything installed by default. Those whose options cannot be
            imported or described are left out, with a `PluginWarning`.
    """
    registry = registry or default_registry()
    models = {kind: _option_models(registry, kind) for kind in _KINDS}
    options = [model for table in models.values() for model in table.values()]
    names, definitions = _definitions([RecipeConfig, TermConfig, *options])
    for place, key in _PLACES:
        _point(definitions[names[place]]["properties"][key], _PLACES[place, key])
    for kind, table in models.items():
        for name, model in table.items():
            definitions[f"{kind}.{name}"] = _with_name(definitions[names[model]], kind)
        definitions[kind] = _choice(registry, kind, list(table))
    recipe = _recipe(definitions[names[RecipeConfig]], registry)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", **recipe, "title": "genaug recipe"}
    return {**head, "$defs": _reached(recipe, definitions)}


def _option_models(registry: Registry, kind: str) -> dict[str, type[BaseModel]]:
    models: dict[str, type[BaseModel]] = {}
    for name in registry.names(kind):
        try:
            model = registry.config_model(registry.component(kind, name)) or _NoOptions
            with warnings.catch_warnings():  # of defaults without a JSON form, which no recipe can hold either
                warnings.simplefilter("error", PydanticJsonSchemaWarning)
                names, definitions = _definitions([model])
            _with_name(definitions[names[model]], kind)
        except Exception as error:  # a stranger's model may hold, and do, anything
            told = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            what = f"The options of {kind} {name!r} cannot be described, so the schema leaves it out: {told}"
            warnings.warn(what, PluginWarning, stacklevel=3)
        else:
            models[name] = model
    return models


def _definitions(models: Iterable[type[BaseModel]]) -> tuple[dict[type[BaseModel], str], Schema]:
    """Return under which name each model is described, and the descriptions; pydantic keeps namesakes apart."""
    every = list(dict.fromkeys(models))
    refs, whole = models_json_schema([(model, "validation") for model in every])
    return {model: refs[model, "validation"]["$ref"].rpartition("/")[2] for model in every}, whole["$defs"]


def _point(field: Schema, kind: str) -> None:
    """Replace the free-form part of a field's schema by the choice of a component."""
    choice = {"$ref": f"#/$defs/{kind}"}
    if "items" in field:
        field["items"] = choice
    else:
        others = [part for part in field.get("anyOf", []) if part.get("type") in ("null", "string")]
        field.pop("$ref", None)
        field.pop("additionalProperties", None)
        field.pop("type", None)
        field["anyOf"] = [*others, choice]


def _with_name(options: Schema, kind: str) -> Schema:
    """Return the schema of a component's table: its options, and the keys that name it."""
    key = "format" if kind == "source" else "use"
    naming: Schema = {key: {}} if kind in ("source", "predictor") else {key: {}, "name": {}}
    properties = {name: dict(field) for name, field in options.get("properties", {}).items()}
    for name, nested in _NESTED.items():
        if name in properties and _holds_table(properties[name]):
            _point(properties[name], nested)
    table = {**options, "properties": {**naming, **properties}}
    if kind not in _WHOLE:
        table.pop("required", None)
    return table


def _holds_table(field: Schema) -> bool:
    return any(part.get("type") == "object" or "$ref" in part for part in (field, *field.get("anyOf", [])))


def _choice(registry: Registry, kind: str, names: list[str]) -> Schema:
    """Return the schema of a table that names a component of a kind; what else it may hold depends on the name."""
    key = "format" if kind == "source" else "use"
    text = "; ".join(f"{name}: {registry.component(kind, name).summary}" for name in names)
    properties: Schema = {key: {"enum": names, "description": text}}
    if kind not in ("source", "predictor"):
        properties["name"] = ComponentConfig.model_json_schema()["properties"]["name"]
    rules = [
        {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": {"$ref": f"#/$defs/{kind}.{name}"}}
        for name in names
    ]
    choice: Schema = {"type": "object", "properties": properties, "allOf": rules}
    return {**choice, "required": [key]} if kind in _WHOLE else choice


def _recipe(recipe: Schema, registry: Registry) -> Schema:
    """Add what `genaug.config.read_recipe` takes besides the model's keys."""
    extends = {"enum": registry.names("recipe"), "description": "A ready recipe that this one changes."}
    labels = recipe["properties"]["labels"]
    labels["anyOf"] = [{"type": "string", "examples": named_sets()}, {"type": "object"}, {"type": "array"}]
    del recipe["required"]
    return {
        **recipe,
        "description": "One for making samples, one for a training loop, or both. Paths are relative to the file.",
        "properties": {"extends": extends, **recipe["properties"]},
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": ["labels"]},
    }


def _reached(recipe: Schema, definitions: Schema) -> Schema:
    """Return the definitions that a recipe leads to; the plain tables that those of components replace are left out."""
    reached: Schema = {}
    todo = [recipe]
    while todo:
        for name in re.findall(r"#/\$defs/([\w.-]+)", json.dumps(todo.pop())):
            if name not in reached:
                reached[name] = definitions[name]
                todo.append(definitions[name])
    return dict(sorted(reached.items()))

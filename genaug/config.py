"""Recipes as data: reading, merging, overriding, validating. Imports no component and nothing heavy."""

from __future__ import annotations

import datetime
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genaug.component_config import ComponentConfig
from genaug.errors import ConfigError, PluginError, did_you_mean
from genaug.registry import Registry
from genaug.step_config import SupervisedConfig, TeacherConfig, TermConfig, ViewsConfig

if TYPE_CHECKING:
    from genaug.models import ModelCheck
    from genaug.types import SamplePart


class Options(BaseModel):
    """Base of every options model: unknown keys are errors, values are not changed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    #: Names of options that change speed or reports, never a sample beyond rounding; a store outlives their change.
    speed_only: ClassVar[frozenset[str]] = frozenset()

    #: ``format`` of the adapter folders that a generator reads; fetched ones of another are refused. None: not checked.
    adapter_format: ClassVar[str | None] = None

    @property
    def ignores_unknown_ids(self) -> bool:
        """Whether a generator wants masks whose ids outside the class table are set to the ignore index.

        Sources then tell of such ids in a note; by default they are a problem.
        """
        return False

    @property
    def condition_needs(self) -> Mapping[SamplePart, str]:
        """What a generator needs of its conditions: ``image``, ``mask`` or ``prompt``, each with what to do without it.

        ``genaug check``, dry runs and runs refuse conditions that lack it before anything heavy starts. By default
        nothing is said, and so nothing checked.

        Example:
            @property
            def condition_needs(self):
                return {"prompt": "Name a source of prompts as 'conditions'"}
        """
        return {}

    @property
    def data_needs(self) -> Mapping[SamplePart, str]:
        """What a generator or filter must find in the labelled samples, which it learns from or compares with.

        Of the form and use of `condition_needs`.
        """
        return {}

    @property
    def makes_masks(self) -> bool:
        """Whether a generator labels its images where their conditions have no masks."""
        return False

    @property
    def judges_unlabeled(self) -> bool | None:
        """`Filter.judges_unlabeled` of a filter with these options; None leaves it to the filter, which runs ask.

        ``genaug check`` imports no filter, so it knows only what is said here.
        """
        return None

    def check_models(self, look: ModelCheck) -> None:
        """Report on models that these options name (a folder, a file, a Hub id): what is missing or no such model.

        ``genaug check`` and the start of every run call it, so that nobody trains for hours before a path turns out to
        be wrong. It looks at names, paths and small files, imports nothing heavy and loads no model. By default there
        is nothing to report.

        Example:
            def check_models(self, look):
                look.folder("weights", self.weights, ["model.safetensors"], allowed="a folder written by my-tool")
        """

    def mask_size(self, look: ModelCheck) -> Callable[[tuple[int, int]], tuple[int, int]] | None:  # noqa: ARG002
        """Return what a generator resizes masks to, ``(height, width)`` -> ``(height, width)``, by nearest neighbour.

        ``genaug check`` then counts the strokes of scribbles of which nothing is left at that size, and names the
        masks that lose a class. None by default, and where it is not known, which a note may tell: nothing is counted.

        Args:
            look: As of `check_models`.
        """
        return None

    def decisive(self) -> dict[str, Any]:
        """Return the JSON form without the options in `speed_only`, here and in nested options."""
        result = {k: v for k, v in self.model_dump(mode="json").items() if k not in self.speed_only}
        for name in result:
            value = getattr(self, name)
            if isinstance(value, Options):
                result[name] = value.decisive()
        return result


class SourceConfig(BaseModel):
    """``{format: <source name>, ...options}``."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: str = Field("folder", description="Name of a source component.")

    @property
    def options(self) -> dict[str, Any]:
        """Everything but ``format``."""
        return dict(self.model_extra or {})


class RecipeConfig(BaseModel):
    """The fixed shape of a recipe: one for making samples, one for a training loop, or both.

    Paths are relative to the recipe file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("genaug", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name in reports and cards.")
    seed: int = Field(0, ge=0, lt=2**63, description="The one source of randomness.")
    labels: Any = Field(description="Class table: a set's name, a file, {id: name}, or {names, ignore_index, colors}.")
    # Making samples (genaug run):
    data: SourceConfig | None = Field(None, description="The labelled samples.")
    conditions: SourceConfig | None = Field(
        None, description="What to make images for; the masks of `data` when absent."
    )
    generator: ComponentConfig | None = Field(None, description="Makes the samples.")
    filters: tuple[ComponentConfig, ...] = Field((), description="Judge the samples, in this order.")
    output: str = Field("synthetic", min_length=1, description="Folder of the sample store.")
    # In a training loop (genaug_torch.SemiSupervisedStep):
    teacher: TeacherConfig = Field(TeacherConfig(), description="The running average that labels.")
    labeler: ComponentConfig | None = Field(None, description="Turns the teacher's predictions into targets.")
    terms: tuple[TermConfig, ...] = Field((), description="Losses on unlabelled images.")
    supervised: SupervisedConfig = Field(SupervisedConfig(), description="The loss on labelled images.")
    views: ViewsConfig = Field(ViewsConfig(), description="How strong views are made.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needs = {"generator": "data", "conditions": "generator", "filters": "generator", "terms": "labeler"}
        for key, needed in needs.items():
            if getattr(self, key) and getattr(self, needed) is None:
                raise ValueError(f"{needed!r} is missing, which {key!r} needs")
        return self


#: Endings of recipe files.
ENDINGS = (".yaml", ".yml", ".toml", ".json")
#: Keys of a recipe that a training loop reads; samples do not depend on them.
ONLINE = ("teacher", "labeler", "terms", "supervised", "views")


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; a recipe must not."""


def _mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        line = f"line {key_node.start_mark.line + 1}"
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, list | dict):
            raise ConfigError("a list or table as a key", where=line, allowed="plain text or a number")
        if key in seen:
            raise ConfigError(f"key {key!r} appears twice", where=line, hint="Keep one of them")
        seen.add(key)
    loader.flatten_mapping(node)  # resolves '<<: *anchor'; the table's own keys come last and win
    return {
        loader.construct_object(key_node, deep=True): loader.construct_object(value_node, deep=True)
        for key_node, value_node in node.value
    }


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse(text: str, suffix: str, *, where: str) -> dict[str, Any]:
    """Parse recipe text by file suffix (``.yaml``, ``.yml``, ``.toml``, ``.json``).

    Raises:
        ConfigError: Unreadable, duplicate keys, or not a table at the top.
    """
    try:
        if suffix == ".toml":
            data: Any = tomllib.loads(text)
        elif suffix == ".json":
            data = json.loads(text)
        else:
            data = yaml.load(text, Loader=_UniqueKeyLoader)
    except ConfigError as error:
        raise ConfigError(
            error.found, where=f"{where}, {error.where}", allowed=error.allowed, hint=error.hint
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise ConfigError(f"cannot be parsed: {error.problem}", where=place) from error
    except (yaml.YAMLError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"cannot be parsed: {error}", where=where) from error
    if not isinstance(data, dict):
        raise ConfigError(f"holds a {type(data).__name__}", where=where, allowed="a table of recipe keys")
    table: dict[str, Any] = plain(data, where=where)
    return table


def read_recipe(source: str | Path | Mapping[str, Any], registry: Registry) -> tuple[dict[str, Any], Path]:
    """Read a recipe and everything it extends.

    Args:
        source: A recipe file, the name of a ready recipe, or a table.
        registry: Where ready recipes are looked up.

    Returns:
        The merged table (key ``extends`` resolved) and the folder that relative paths refer to.
    """
    if isinstance(source, Mapping):
        data, root = plain(source, where="recipe"), Path()
    else:
        path = Path(source)
        if path.suffix.lower() in ENDINGS:
            try:
                text = path.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"cannot be read: {error}", where=str(path), hint="Name a recipe file") from error
            data, root = parse(text, path.suffix.lower(), where=str(path)), path.parent
        elif path.exists() or len(path.parts) > 1:
            raise ConfigError(f"{path} is no recipe", allowed="a .yaml, .yml, .toml or .json file, or a ready recipe")
        else:
            data, root = _ready_recipe(str(source), registry), Path()
    base_name = data.pop("extends", None)
    if base_name is None:
        return data, root
    if not isinstance(base_name, str):
        raise ConfigError(f"{base_name!r}", where="extends", allowed="the name of a ready recipe")
    return merge(_ready_recipe(base_name, registry), data), root


def _ready_recipe(name: str, registry: Registry, below: tuple[str, ...] = ()) -> dict[str, Any]:
    if name in below:
        raise ConfigError(f"{' extends '.join((*below, name))}", where="extends", hint="Break the circle")
    package, _, inside = registry.recipe_path(name).partition(":")
    try:
        text = resources.files(package).joinpath(inside).read_text("utf-8")
    except (ImportError, OSError, TypeError, ValueError) as error:  # no such package, no package, no text
        raise PluginError(f"its file {package}:{inside} cannot be read: {error}", where=f"recipe {name}") from error
    data = parse(text, Path(inside).suffix, where=f"recipe {name}")
    parent = data.pop("extends", None)
    return data if parent is None else merge(_ready_recipe(parent, registry, (*below, name)), data)


def plain(value: Any, *, where: str) -> Any:
    """Return `value` as JSON has it: keys and paths as text, tuples as lists, dates as they were written.

    Raises:
        ConfigError: Two keys with equal text, or an object that JSON has no form for.
    """
    if isinstance(value, Mapping):
        table: dict[str, Any] = {}
        for key, item in value.items():
            if str(key) in table:
                raise ConfigError(f"key {str(key)!r} appears twice", where=where, hint="Keep one of them")
            table[str(key)] = plain(item, where=f"{where}: {key}")
        return table
    if isinstance(value, list | tuple):
        return [plain(item, where=where) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, PurePath | datetime.date | datetime.time):
        return str(value)
    raise ConfigError(f"a {type(value).__name__}", where=where, allowed="text, numbers, true, false, lists and tables")


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Merge tables: tables merge key by key, anything else of `top` replaces.

    A table that names another component (``use`` or ``format``) replaces instead: options of one component mean
    nothing to another. Class tables (``labels``) replace as a whole too.
    """
    result = dict(base)
    for key, value in top.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and key != "labels" and _same_component(old, value):
            value = merge(old, value)
        result[key] = value
    return result


def _same_component(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return all(new.get(key, old.get(key)) == old.get(key) for key in ("use", "format"))


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``dotted.key=value`` overrides; values are YAML, list items are addressed by number.

    Raises:
        ConfigError: Not an assignment, or a key below something that is not a table.
    """
    result: dict[str, Any] = plain(data, where="recipe")
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"{assignment!r}", where="command line", allowed="key=value, e.g. generator.steps=20")
        try:
            value = plain(yaml.load(text, Loader=_UniqueKeyLoader), where=key)
        except yaml.YAMLError as error:
            hint = "Quote text that holds brackets, braces or colons"
            raise ConfigError(f"the value of {assignment!r} is no YAML", where="command line", hint=hint) from error
        _assign(result, key.split("."), value, assignment)
    return result


def _assign(node: Any, keys: list[str], value: Any, assignment: str) -> None:
    *parents, last = keys
    for key in parents:
        if isinstance(node, list):
            node = _item(node, key, assignment)
        elif isinstance(node, dict):
            node = node.setdefault(key, {})
        else:
            break
    if isinstance(node, list):
        _item(node, last, assignment)
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"{assignment!r} goes below a plain value", where="command line", allowed="a key of a table")


def _item(node: list[Any], key: str, assignment: str) -> Any:
    if not key.isdigit() or int(key) >= len(node):
        allowed = f"a number in 0..{len(node) - 1}" if node else "nothing, the list is empty"
        raise ConfigError(f"{assignment!r}: item {key!r} of a list", where="command line", allowed=allowed)
    return node[int(key)]


def validate(model: type[BaseModel], data: Any, *, where: str = "") -> Any:
    """Validate `data` by a pydantic model; all problems are reported in one `ConfigError`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentence(error, model, where)) from None


def _sentence(error: ValidationError, model: type[BaseModel], where: str) -> str:
    lines = []
    for item in error.errors(include_url=False):
        *parents, last = item["loc"] or ("",)
        key = ".".join([where, *map(str, item["loc"])]).strip(".") or where or "recipe"
        owner = _model_at(model, parents)
        described = owner.model_fields.get(str(last)) if owner is not None else None
        if item["type"] == "extra_forbidden":
            text = f"unknown key. {did_you_mean(str(last), owner.model_fields if owner is not None else ())}"
        elif item["type"] == "missing":
            text = "is missing" + (f". {described.description}" if described and described.description else "")
        elif item["type"] == "value_error":
            text = str(item["ctx"]["error"])
        elif item["type"] in ("model_type", "model_attributes_type"):
            text = f"found {item['input']!r} where a table of keys belongs"
        else:
            text = f"{item['msg']} (found {item['input']!r})"
        lines.append(f"{key}: {text.rstrip('.')}")
    return "; ".join(lines)


def _model_at(model: type[BaseModel], keys: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the model that the table under `keys` is validated by, None where it is not a single model."""
    for key in keys:
        if isinstance(key, int):  # an item of a tuple: `model` is what its items are validated by already
            continue
        field = model.model_fields.get(key)
        models = [] if field is None else _models_in(field.annotation)
        if len(models) != 1:
            return None
        model = models[0]
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]

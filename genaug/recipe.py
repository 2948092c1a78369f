"""A validated recipe and the objects it stands for, each built once and on demand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from genaug.component_config import ComponentConfig
from genaug.config import ENDINGS, ONLINE, Options, RecipeConfig, SourceConfig, override, read_recipe, validate
from genaug.errors import ConfigError, did_you_mean
from genaug.hub.reference import local_path
from genaug.labels import LabelSpace
from genaug.recipe_options import read_options
from genaug.registry import Registry, default_registry
from genaug.rng import Rng

if TYPE_CHECKING:
    from genaug.interfaces import Adaptable, Filter, Generator, Mixer, Predictor, PseudoLabeler
    from genaug.sources.base import Source

Part = TypeVar("Part")

#: Changes whenever the same recipe would give other samples; part of every recipe hash.
SAMPLES_VERSION = 1


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces; what hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of a JSON-like value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@dataclass(slots=True)
class BuildContext:
    """What a component may need while it is built from a recipe; handed to ``from_config``.

    Args:
        root: Folder that relative paths of the recipe refer to.
        labels: Class table.
        registry: Where other components are looked up.
        device: Torch device string.
        ignore_unknown_ids: Sources set ids outside the class table to the ignore index and note it, since the
            generator's options ask for it (`Options.ignores_unknown_ids`); such ids are a problem otherwise.
        data: The recipe's labelled samples, for conditions that are made of those; None if it names none.
    """

    root: Path
    labels: LabelSpace
    registry: Registry
    device: str = "cpu"
    ignore_unknown_ids: bool = False
    data: SourceConfig | None = None
    _built: dict[str, Any] = field(default_factory=dict)
    #: ``(folder name, component)`` of everything built that learns from labelled samples first.
    adaptables: list[tuple[str, Adaptable]] = field(default_factory=list)

    def path(self, value: str) -> Path:
        """Resolve a path of the recipe: relative to `root`, ``~`` is the home folder, ``hf-hub:`` is fetched."""
        return local_path(value, self.root)

    def build(self, kind: str, use: str, options: Mapping[str, Any], *, where: str) -> Any:
        """Build a component, or return the one already built from equal options.

        A class with ``from_config(options, context)`` is built by it; any other gets its options as keywords.

        Raises:
            UnknownComponentError, ConfigError, MissingDependencyError, PluginError: As the names say.
        """
        from genaug.interfaces import Adaptable

        checked, model = check_options(self.registry, kind, use, options, where=where)
        key = canonical_json([kind, use, checked])
        if key not in self._built:
            target = self.registry.load(self.registry.component(kind, use, where=where))
            if hasattr(target, "from_config"):
                built = target.from_config(model, self)
            else:
                built = target(**checked)
            self._built[key] = built
            if isinstance(built, Adaptable) and built.needs_adapting:
                self.adaptables.append((f"{use}-{digest([kind, use, checked])[:8]}", built))
        return self._built[key]

    def labelled(self, *, where: str) -> Source:
        """Build the recipe's source of labelled samples, or return it.

        Args:
            where: Key of the recipe that asks for it.

        Raises:
            ConfigError: The recipe names none.
        """
        if self.data is None:
            raise ConfigError("the recipe has no 'data' to take it from", where=where, hint="Add the key 'data'")
        source: Source = self.build("source", self.data.format, self.data.options, where="data")
        return source

    def predictor(self, spec: str | Mapping[str, Any], *, where: str) -> Predictor:
        """Build a predictor from ``{use: ..., ...}``, or from a path that a predictor component recognises."""
        if isinstance(spec, str):
            spec = {"use": predictor_of(self.path(spec), where), "path": spec}
        options = {k: v for k, v in spec.items() if k != "use"}
        if "use" not in spec:
            raise ConfigError("no key 'use'", where=where, allowed="a path, or {use: ..., ...options}")
        predictor: Predictor = self.build("predictor", str(spec["use"]), options, where=where)
        return predictor


def predictor_of(path: Path, where: str) -> str:
    """Return the name of the predictor component that can read `path`, from what lies there.

    Raises:
        ConfigError: None can, or the file that names it is damaged.
    """
    if path.suffix == ".pt2":
        return "exported"
    record = path / "genaug_predictor.json"
    if record.is_file():
        try:
            return str(json.loads(record.read_bytes())["use"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{record} is damaged: {error!r}", where=where, hint="Put the file back") from error
    if (path / "config.json").is_file():
        return "transformers"
    raise ConfigError(
        f"{path} is no predictor" if path.exists() else f"{path} does not exist",
        where=where,
        allowed="a transformers model folder, a .pt2 file of torch.export, or {use: <predictor>, ...}",
    )


def check_options(
    registry: Registry, kind: str, use: str, options: Mapping[str, Any], *, where: str
) -> tuple[dict[str, Any], Any]:
    """Validate a component's options; return them with defaults filled in, and as the model (None without one).

    Raises:
        ConfigError, UnknownComponentError: They are wrong; nobody provides the component.
        PluginError: Its model is broken.
    """
    component = registry.component(kind, use, where=where)
    model = registry.config_model(component)
    if model is None:
        if options:
            raise ConfigError(f"unknown key {sorted(options)[0]!r}", where=where, allowed=f"{use} takes no options")
        return {}, None
    table, checked = read_options(registry, component, model, options, where=where)
    nested = table.get("predictor")
    if isinstance(nested, dict) and "use" in nested:  # what `BuildContext.predictor` will build, hours later
        inner = {key: value for key, value in nested.items() if key != "use"}
        check_options(registry, "predictor", str(nested["use"]), inner, where=f"{where}.predictor")
    wrapped = table.get("source")
    if isinstance(wrapped, dict) and "format" in wrapped:  # a source that changes what another one reads
        inner = {key: value for key, value in wrapped.items() if key != "format"}
        check_options(registry, "source", str(wrapped["format"]), inner, where=f"{where}.source")
    return table, checked


@dataclass(slots=True)
class Recipe:
    """A validated recipe. Building its parts imports their libraries; everything else stays light.

    Args:
        config: The validated table.
        root: Folder that relative paths refer to.
        labels: Class table.
        registry: Where components come from.
    """

    config: RecipeConfig
    root: Path
    labels: LabelSpace
    registry: Registry

    @property
    def rng(self) -> Rng:
        """Root of the recipe's random streams."""
        return Rng(self.config.seed)

    @property
    def output(self) -> Path:
        """Folder of the sample store."""
        return self.root / Path(self.config.output).expanduser()

    def context(self, *, device: str = "cpu") -> BuildContext:
        """Return a fresh context to build components in."""
        part, ignore = self.config.generator, False
        if part is not None:
            _, options = check_options(self.registry, "generator", part.use, part.options, where="generator")
            ignore = isinstance(options, Options) and options.ignores_unknown_ids
        return BuildContext(
            self.root, self.labels, self.registry, device, ignore_unknown_ids=ignore, data=self.config.data
        )

    def source(self, context: BuildContext | None = None) -> Source:
        """Build the source of labelled samples.

        Raises:
            ConfigError: The recipe names none.
        """
        return self._source(self._needed(self.config.data, "data"), "data", context)

    def conditions(self, context: BuildContext | None = None) -> Source:
        """Build the source of conditions: the labelled samples unless the recipe names another."""
        if self.config.conditions is None:
            return self.source(context)
        return self._source(self.config.conditions, "conditions", context)

    def _source(self, config: SourceConfig, where: str, context: BuildContext | None) -> Source:
        source: Source = (context or self.context()).build("source", config.format, config.options, where=where)
        return source

    def generator(self, context: BuildContext) -> Generator:
        """Build the generator.

        Raises:
            ConfigError: The recipe has none.
        """
        part = self._needed(self.config.generator, "generator")
        generator: Generator = context.build("generator", part.use, part.options, where="generator")
        return generator

    def filters(self, context: BuildContext) -> list[tuple[str, Filter]]:
        """Build the filters as ``(name, filter)``, in order."""
        return [
            (part.label, context.build("filter", part.use, part.options, where=f"filters.{i}"))
            for i, part in enumerate(self.config.filters)
        ]

    def labeler(self, context: BuildContext) -> PseudoLabeler:
        """Build the labeler of a training loop.

        Raises:
            ConfigError: The recipe has none.
        """
        part = self._needed(self.config.labeler, "labeler")
        labeler: PseudoLabeler = context.build("labeler", part.use, part.options, where="labeler")
        return labeler

    def mixers(self, context: BuildContext) -> list[Mixer | None]:
        """Build the mixer of every term; None for terms without."""
        parts = enumerate(term.mixer for term in self.config.terms)
        return [
            None if part is None else context.build("mixer", part.use, part.options, where=f"terms.{i}.mixer")
            for i, part in parts
        ]

    def _needed(self, part: Part | None, key: str) -> Part:
        if part is None:
            use = "a training loop (genaug_torch.SemiSupervisedStep)" if self.config.terms else "nothing yet"
            raise ConfigError(
                f"the recipe {self.config.name!r} has no {key!r}; it is for {use}",
                where=key,
                hint=f"Add the key {key!r}",
            )
        return part

    def resolved(self) -> dict[str, Any]:
        """Return the recipe with every default filled in, as JSON-like data that loads again."""
        data = self.config.model_dump(mode="json")
        data["labels"] = self.labels.to_dict()
        for key in ("data", "conditions"):
            if (source := getattr(self.config, key)) is not None:
                data[key] = self._resolved_source(source, key)
        for key in ("generator", "labeler"):
            if (part := getattr(self.config, key)) is not None:
                data[key] = self._resolved_part(key, part, key)
        for i, term in enumerate(self.config.terms):
            if term.mixer is not None:
                data["terms"][i]["mixer"] = self._resolved_part("mixer", term.mixer, f"terms.{i}.mixer")
        data["filters"] = [
            self._resolved_part("filter", part, f"filters.{i}") for i, part in enumerate(self.config.filters)
        ]
        return data

    def _resolved_source(self, config: SourceConfig, where: str) -> dict[str, Any]:
        options, _ = check_options(self.registry, "source", config.format, config.options, where=where)
        return {"format": config.format, **options}

    def _resolved_part(self, kind: str, config: ComponentConfig, where: str) -> dict[str, Any]:
        options, _ = check_options(self.registry, kind, config.use, config.options, where=where)
        return {"use": config.use, **({"name": config.name} if config.name else {}), **options}

    def samples_hash(self) -> str:
        """Return the hash of what decides the samples: no filter, no output folder, no `speed_only` option."""
        data = self.resolved()
        for key in ("filters", "output", "name", *ONLINE):
            data.pop(key)
        part = self._needed(self.config.generator, "generator")
        _, model = check_options(self.registry, "generator", part.use, part.options, where="generator")
        if isinstance(model, Options):
            data["generator"] = {"use": part.use, **model.decisive()}
        return digest({"version": SAMPLES_VERSION, **data})


def folder_or_recipe(value: str | Path, registry: Registry | None = None) -> Path | None:
    """Return the folder that `value` names; None if it is a recipe, which `load_recipe` reads.

    Raises:
        ConfigError: It is neither.
    """
    path, names = Path(value), (registry or default_registry()).names("recipe")
    if path.is_dir():
        return path
    if path.suffix.lower() not in ENDINGS and str(value) not in names:
        raise ConfigError(
            f"there is no folder and no recipe {str(value)!r}",
            allowed="a folder, a recipe file or a ready recipe",
            hint=did_you_mean(str(value), names),
        )
    return None


def load_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    root: str | Path | None = None,
    registry: Registry | None = None,
) -> Recipe:
    """Read, merge and validate a recipe; every option of every component is checked, no component is imported.

    Args:
        source: A recipe file (YAML, TOML, JSON), the name of a ready recipe, or a table.
        overrides: ``dotted.key=value`` assignments.
        root: Folder that relative paths refer to; the recipe file's own folder by default.
        registry: Where components come from; everything installed by default.

    Raises:
        ConfigError: Something in the recipe is wrong; all wrong keys of one table are listed.
        UnknownComponentError: A component nobody provides.
    """
    registry = registry or default_registry()
    data, folder = read_recipe(source, registry)
    config = validate(RecipeConfig, override(data, overrides))
    root = Path(root) if root is not None else folder
    names = [part.label for part in config.filters]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"two filters are called {twice[0]!r}", where="filters", hint="Give one a 'name'")
    recipe = Recipe(config, root, LabelSpace.from_config(config.labels, root=root), registry)
    recipe.resolved()  # validates the options of every component
    return recipe

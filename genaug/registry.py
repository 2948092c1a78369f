"""Collects what plugins provide. Entry points are loaded one by one, so a broken one breaks nothing else."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from genaug import hookspecs
from genaug.component import Component
from genaug.errors import (
    MissingDependencyError,
    PluginError,
    PluginWarning,
    UnknownComponentError,
    did_you_mean,
    missing_dependency,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

GROUP = "genaug"
OWN = "genaug"  # the distribution that keeps its names when a foreign plugin takes one of them
Key = tuple[str, str]  # kind and name
log = logging.getLogger("genaug")


@dataclass(slots=True)
class PluginRecord:
    """One entry point of the group ``genaug`` and what became of it.

    Args:
        name: Entry point name.
        distribution: Name of the distribution that declares it.
        version: Its version.
        error: Why it could not be used; None for a working plugin.
        disabled: True when ``GENAUG_DISABLE_PLUGINS`` names it.
        components: What it provides.
        recipes: Ready recipes: name -> ``"package:path"``.
    """

    name: str
    distribution: str = "unknown"
    version: str = "unknown"
    error: str | None = None
    disabled: bool = False
    components: list[Component] = field(default_factory=list)
    recipes: dict[str, str] = field(default_factory=dict)


class Registry:
    """Names to components, by kind.

    Args:
        entry_points: What to load; by default every installed entry point of the group ``genaug``, less those
            that ``GENAUG_DISABLE_PLUGINS`` (comma separated) names.
        strict: Raise on the first broken plugin instead of listing it. Default: ``GENAUG_STRICT_PLUGINS=1``.

    A plugin that provides a name of genaug's own is broken. Where two others provide the same name both are, and
    whoever asks for that name is told.

    Raises:
        PluginError: A plugin is broken (`strict` only).
    """

    def __init__(
        self, entry_points: Iterable[metadata.EntryPoint] | None = None, *, strict: bool | None = None
    ) -> None:
        self.strict = os.environ.get("GENAUG_STRICT_PLUGINS", "") not in ("", "0") if strict is None else strict
        self.plugins: list[PluginRecord] = []
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._clashes: dict[Key, str] = {}
        found = metadata.entry_points(group=GROUP) if entry_points is None else entry_points
        disabled = {n.strip() for n in os.environ.get("GENAUG_DISABLE_PLUGINS", "").split(",") if n.strip()}
        for entry in sorted(found, key=lambda e: (e.name, e.value)):
            self._load(entry, disabled=entry.name in disabled)
        self._settle()
        self._values = {key: value for p in self.plugins for key, value in _provided(p.components, p.recipes)}

    # ------------------------------------------------------------------ loading

    def _load(self, entry: metadata.EntryPoint, *, disabled: bool) -> None:
        record = PluginRecord(entry.name, disabled=disabled)
        if entry.dist is not None:
            record.distribution, record.version = entry.dist.name, entry.dist.version
        self.plugins.append(record)
        if disabled:
            return
        try:
            with redirect_stdout(sys.stderr):  # standard output is for results, which programs read
                record.components, record.recipes = self._collect(entry.load(), _hook_name(record))
        except (Exception, SystemExit) as error:  # scripts taken for plugins call sys.exit() at import
            self._broken(record, error)

    def _collect(self, module: ModuleType, name: str) -> tuple[list[Component], dict[str, str]]:
        try:
            self._manager.register(module, name)
            self._check_hooks(module)
            components: list[Component] = []
            recipes: dict[str, str] = {}
            hooks = self._manager.subset_hook_caller("genaug_components", self._others(module))
            for part in hooks():
                components += list(part)
            for extra in self._manager.subset_hook_caller("genaug_recipes", self._others(module))():
                recipes.update(extra)
            self._check_parts(components, recipes)
        except BaseException:
            if self._manager.get_plugin(name) is module:  # older pluggy registers before it validates
                self._manager.unregister(name=name)
            raise
        return components, recipes

    def _others(self, module: ModuleType) -> list[Any]:
        return [p for p in self._manager.get_plugins() if p is not module]

    @staticmethod
    def _check_hooks(module: ModuleType) -> None:
        """Refuse what pluggy passes over in silence: hooks that do not exist, and hooks without their mark."""
        known = {n for n in dir(hookspecs) if n.startswith("genaug_")}
        found = [n for n, v in vars(module).items() if hasattr(v, f"{GROUP}_impl")]
        for name in found:
            if name not in known:
                raise PluginError(f"hook {name!r} does not exist", hint=did_you_mean(name, known))
        for name in known.intersection(vars(module)).difference(found):
            raise PluginError(f"{name} is not marked as a hook", hint="Put @genaug.hookimpl above it")

    @staticmethod
    def _check_parts(components: list[Component], recipes: dict[str, str]) -> None:
        for component in components:
            if not isinstance(component, Component):
                raise PluginError(f"genaug_components yielded {component!r}", allowed="genaug.Component records")
        for name, path in recipes.items():
            if not (isinstance(name, str) and isinstance(path, str)):
                raise PluginError(
                    f"genaug_recipes returned {name!r}: {path!r}", allowed="name: 'package:path/inside/package.yaml'"
                )
        seen = set()
        for key, _ in _provided(components, recipes):
            if key in seen:
                raise PluginError(f"genaug_components yielded {key[0]} {key[1]!r} twice")
            seen.add(key)

    def _settle(self) -> None:
        """Take out plugins that provide the same name: those that took one of genaug's, then those that share one."""
        for key, owners in self._shared():
            own = [p for p in owners if p.distribution == OWN]
            if len(own) == 1:
                for record in owners:
                    if record is not own[0]:
                        self._refuse(record, _clash(key, owners))
        for key, owners in self._shared():
            self._clashes[key] = _clash(key, owners)
            for record in owners:
                self._refuse(record, self._clashes[key])

    def _shared(self) -> list[tuple[Key, list[PluginRecord]]]:
        """Return the names that several plugins provide, with those plugins."""
        owners: dict[Key, list[PluginRecord]] = {}
        for record in self.plugins:
            for key, _ in _provided(record.components, record.recipes):
                owners.setdefault(key, []).append(record)
        return [(key, records) for key, records in owners.items() if len(records) > 1]

    def _refuse(self, record: PluginRecord, told: str) -> None:
        if record.error is None:  # it may share several names
            record.components, record.recipes = [], {}
            self._manager.unregister(name=_hook_name(record))
            self._broken(record, PluginError(told))

    def _broken(self, record: PluginRecord, error: BaseException) -> None:
        record.error = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if self.strict:
            raise PluginError(record.error, where=f"plugin {record.name} ({record.distribution})") from error
        warnings.warn(
            f"genaug plugin {record.name!r} ({record.distribution} {record.version}) could not be loaded: "
            f"{record.error.rstrip('.')}. Run 'genaug plugins' for the list.",
            PluginWarning,
            stacklevel=4,
        )

    # ------------------------------------------------------------------ lookups

    def names(self, kind: str) -> list[str]:
        """Return the sorted names of one kind (``"recipe"`` included)."""
        return sorted(n for k, n in self._values if k == kind)

    def component(self, kind: str, name: str, *, where: str | None = None) -> Component:
        """Return the record of a component.

        Raises:
            UnknownComponentError: Nobody provides it; broken plugins are named, since they might.
            PluginError: Several plugins do.
        """
        value = self._find(kind, name, where=where)
        assert isinstance(value, Component)
        return value

    def recipe_path(self, name: str) -> str:
        """Return ``"package:path"`` of a ready recipe."""
        value = self._find("recipe", name, where=None)
        assert isinstance(value, str)
        return value

    def _find(self, kind: str, name: str, *, where: str | None) -> Component | str:
        if (kind, name) in self._clashes:
            raise PluginError(self._clashes[kind, name], where=where)
        try:
            return self._values[kind, name]
        except KeyError:
            hint = did_you_mean(name, self.names(kind))
            broken = [f"{p.name} ({p.error})" for p in self.plugins if p.error]
            if broken:
                hint += "" if hint.endswith("?") else "."
                hint += f" Plugins that could not be loaded: {'; '.join(broken)}"
            raise UnknownComponentError(f"no {kind} is called {name!r}", where=where, hint=hint) from None

    def config_model(self, component: Component) -> type[BaseModel] | None:
        """Import and return the pydantic model of a component's options, None if it takes none.

        Raises:
            PluginError: It cannot be imported, is no pydantic model, or refers to types that do not exist.
        """
        if component.config is None:
            return None
        from pydantic import BaseModel  # listing plugins does without

        model = self._import(component, component.config)
        where = f"{component.kind} {component.name} -> {component.config}"
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise PluginError("not a pydantic model", where=where, allowed="a class derived from genaug.config.Options")
        try:
            model.model_rebuild()  # does nothing where all types are known
        except (Exception, SystemExit) as error:
            raise PluginError(f"{type(error).__name__}: {' '.join(str(error).split())}", where=where) from error
        return model

    def load(self, component: Component) -> Any:
        """Import and return a component's implementation.

        Raises:
            MissingDependencyError: A library in `requires` is absent; ends with the pip command.
            PluginError: The target does not exist.
        """
        for module in component.requires:
            if not is_installed(module):
                where = f"{component.kind} {component.name}"
                if component.extra:
                    raise missing_dependency(module, component.extra, where=where)
                raise MissingDependencyError(
                    f"the Python package {module!r} is not installed",
                    where=where,
                    hint=f"pip install {module}",
                )
        log.debug("%s %s is %s", component.kind, component.name, component.target)
        return self._import(component, component.target)

    @staticmethod
    def _import(component: Component, target: str) -> Any:
        module, _, attribute = target.partition(":")
        try:
            with redirect_stdout(sys.stderr):
                return getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:  # whatever a foreign module raises at import
            what = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
            raise PluginError(what, where=f"{component.kind} {component.name} -> {target}") from error

    # ------------------------------------------------------------------ observers

    def stage_finished(self, stage: str, report: Mapping[str, Any]) -> None:
        """Call the ``genaug_stage_finished`` hooks; what they raise is logged, what they print goes to stderr."""
        log.debug("stage %s is done: %s", stage, report)
        for plugin in self._manager.get_plugins():
            caller = self._manager.subset_hook_caller("genaug_stage_finished", self._others(plugin))
            try:
                with redirect_stdout(sys.stderr):
                    caller(stage=stage, report=report)
            except (Exception, SystemExit):
                log.exception("plugin %s failed in genaug_stage_finished(%s)", plugin, stage)


def _hook_name(record: PluginRecord) -> str:
    """Return what pluggy knows a plugin as: two distributions may call their entry points alike."""
    return f"{record.distribution}:{record.name}"


def _provided(components: Iterable[Component], recipes: Mapping[str, str]) -> Iterator[tuple[Key, Component | str]]:
    for component in components:
        yield (component.kind, component.name), component
    for name, path in recipes.items():
        yield ("recipe", name), path


def _clash(key: Key, owners: list[PluginRecord]) -> str:
    listed = " and ".join(f"{p.name!r} ({p.distribution})" for p in owners)
    foreign = " or ".join(repr(p.name) for p in owners if p.distribution != OWN)
    return (
        f"{key[0]} {key[1]!r} is provided by both {listed}. Uninstall one, or set GENAUG_DISABLE_PLUGINS to {foreign}"
    )


def is_installed(module: str) -> bool:
    """Return whether a module can be found, without importing more than its parents."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # the parent is missing; or a stand-in without a spec sits in sys.modules
        return False


@cache
def default_registry() -> Registry:
    """Return the registry of everything installed; loaded once per process, on first use."""
    return Registry()

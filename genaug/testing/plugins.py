"""The contract of plugins as a whole: they load, are light until used, clash with nobody, and explain themselves."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import Any, get_args

from pydantic import BaseModel

from genaug.component import Component
from genaug.config import read_recipe
from genaug.errors import ConfigError, PluginWarning
from genaug.interfaces import Filter, Generator, Mixer, PseudoLabeler
from genaug.recipe import check_options
from genaug.registry import GROUP, Registry, is_installed

#: What may not be imported before a component is used.
HEAVY = frozenset(
    "accelerate albumentations cv2 diffusers matplotlib ot peft tensorflow torch torchvision transformers".split()  # noqa: SIM905
)
INTERFACES = {"generator": Generator, "filter": Filter, "labeler": PseudoLabeler, "mixer": Mixer}


class PluginContract:
    """Inherit, name the distribution, install it, and pytest runs every check.

    Example:
        class TestPlugin(PluginContract):
            distribution = "genaug-mine"
    """

    #: Name of the installed distribution: ``[project] name`` of its pyproject.
    distribution: str

    def entry_points(self) -> list[metadata.EntryPoint]:
        """Return what the distribution declares in the entry-point group ``genaug``."""
        return [e for e in metadata.distribution(self.distribution).entry_points if e.group == GROUP]

    def registry(self) -> Registry:
        """Return a registry of this distribution alone; a broken plugin raises."""
        return Registry(self.entry_points(), strict=True)

    def components(self) -> list[Component]:
        """Return every component of the distribution."""
        return [component for plugin in self.registry().plugins for component in plugin.components]

    def test_it_declares_entry_points_that_load(self) -> None:
        """`genaug plugins` lists it without an error."""
        assert self.registry().plugins, f"{self.distribution} has no entry point in the group {GROUP!r}"

    def test_no_name_is_taken(self) -> None:
        """Beside everything else that is installed here, no name is provided twice."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PluginWarning)  # plugins of others may be broken
            everything = Registry()
        for component in self.components():
            assert everything.component(component.kind, component.name) == component

    def test_listing_and_checking_import_nothing_heavy(self) -> None:
        """`genaug plugins` and `genaug check` import the declaring modules, and must answer at once."""
        modules = {entry.module for entry in self.entry_points()}
        modules |= {c.config.partition(":")[0] for c in self.components() if c.config is not None}
        code = f"import sys, {', '.join(sorted(modules))}; print(*sys.modules)"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert sorted(HEAVY.intersection(done.stdout.split())) == []

    def test_everything_is_described(self) -> None:
        """Each component has a summary, each option a description."""
        registry = self.registry()
        assert [line for c in self.components() for line in undocumented(c, registry)] == []

    def test_targets_are_what_they_say(self) -> None:
        """Each target whose requirements are installed can be imported, and implements its interface."""
        registry = self.registry()
        for component in self.components():
            if not all(is_installed(module) for module in component.requires):
                continue
            target = registry.load(component)
            where = f"{component.kind} {component.name}"
            assert callable(target), where
            interface = INTERFACES.get(component.kind)
            assert interface is None or issubclass(target, interface), f"{where}: no {component.kind}"

    def test_options_of_filters_say_what_filters_say(self) -> None:
        """`genaug check` reads options, runs ask filters: what they say of samples without masks is the same."""
        registry = self.registry()
        for component in self.components():
            model = registry.config_model(component)
            installed = all(is_installed(module) for module in component.requires)
            if component.kind == "filter" and model is not None and installed:
                # As without options; one that its answer depends on may have no default, which leaves it open.
                said = getattr(model.model_construct(), "judges_unlabeled", None)
                assert said in (None, registry.load(component).judges_unlabeled), f"filter {component.name}"

    def test_options_can_stand_in_recipes(self) -> None:
        """Defaults have a JSON form: stores keep the recipe with every option filled in."""
        registry = self.registry()
        for component in self.components():
            with contextlib.suppress(ConfigError):  # an option without a default, whose values are not known here
                check_options(registry, component.kind, component.name, {}, where=f"{component.kind} {component.name}")

    def test_ready_recipes_can_be_read(self) -> None:
        """The files are shipped, and are tables."""
        registry = self.registry()
        for name in registry.names("recipe"):
            assert read_recipe(name, registry)[0]


def undocumented(component: Component, registry: Registry) -> Iterator[str]:
    """Tell what of a component is not explained: its summary, its options, the models within them."""
    where = f"{component.kind} {component.name}"
    if not component.summary.strip():
        yield f"{where}: no summary"
    model = registry.config_model(component)
    if model is not None:
        yield from undescribed(model, where)


def undescribed(model: type[BaseModel], where: str) -> Iterator[str]:
    """Tell what of a model, and of the models within it, is not explained; lines begin with `where`."""
    if not (model.__doc__ or "").strip():
        yield f"{where}: {model.__name__} has no docstring"
    for name, field in model.model_fields.items():
        if not (field.description or "").strip():
            yield f"{where}: option {name} has no description"
        for inner in _models(field.annotation):
            yield from undescribed(inner, f"{where}.{name}")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)

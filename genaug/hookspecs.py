"""The three hooks of genaug, group name ``genaug``; a plugin is a module with `hookimpl` functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from genaug.component import Component

hookspec = pluggy.HookspecMarker("genaug")
hookimpl = pluggy.HookimplMarker("genaug")


@hookspec
def genaug_components() -> Iterable[Component]:  # type: ignore[empty-body]
    """Yield what this plugin provides.

    Called once per process, when a name is first looked up or plugins are listed. Must not import anything
    heavy: a `Component` holds ``"module:object"`` strings.

    Example:
        @hookimpl
        def genaug_components():
            yield Component("filter", "brightness", "my_package.filter:BrightnessFilter")
    """


@hookspec
def genaug_recipes() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return ready recipes: name -> ``"package:path/inside/package.yaml"``.

    Called when a recipe is asked for by name or recipes are listed.

    Example:
        @hookimpl
        def genaug_recipes():
            return {"matchmask": "genaug_matchmask:recipes/matchmask.yaml"}
    """


@hookspec
def genaug_stage_finished(stage: str, report: Mapping[str, Any]) -> None:
    """Observe that a stage of a run has finished; `report` is the JSON that the stage printed.

    Called in the process that ran the stage (``adapt``, ``generate``, ``filter``, ``report``). An exception
    raised here is logged and never reaches the run; what is printed goes to standard error.

    Example:
        @hookimpl
        def genaug_stage_finished(stage, report):
            print(stage, report)
    """

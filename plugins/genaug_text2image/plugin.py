"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterable

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterable[Component]:
    """Yield what this package provides."""
    return ()

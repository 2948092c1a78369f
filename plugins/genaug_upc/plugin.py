"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterable[Component]:
    """Yield the mixer of UPC."""
    yield Component(
        "mixer",
        "upc",
        "genaug_upc.mixer:UncertaintyPatchCutMix",
        config="genaug_upc.config:UpcOptions",
        summary="paste labelled patches over the patches that the teacher is least sure of (UPC)",
    )


@hookimpl
def genaug_recipes() -> Mapping[str, str]:
    """Return the ready recipes."""
    return {
        "upc": "genaug_upc:recipes/upc.yaml",
        "upc-faithful": "genaug_upc:recipes/upc-faithful.yaml",
    }

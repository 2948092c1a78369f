"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterable[Component]:
    """Yield the generator of ScribbleGen."""
    yield Component(
        "generator",
        "scribblegen",
        "genaug_scribblegen.generator:ScribbleGenGenerator",
        config="genaug_scribblegen.config:ScribbleGenOptions",
        summary="images for scribbles: Stable Diffusion with a ControlNet trained on the scribbled images",
        requires=("diffusers", "transformers", "accelerate"),
        extra="diffusion",
    )


@hookimpl
def genaug_recipes() -> Mapping[str, str]:
    """Return the ready recipe."""
    return {"scribblegen": "genaug_scribblegen:recipes/scribblegen.yaml"}

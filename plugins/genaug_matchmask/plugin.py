"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterable[Component]:
    """Yield the generator and the filter of MatchMask."""
    yield Component(
        "generator",
        "matchmask",
        "genaug_matchmask.generator:MatchMaskGenerator",
        config="genaug_matchmask.config:MatchMaskOptions",
        summary="images for existing masks: Stable Diffusion with an LT-Adapter trained on few labels",
        requires=("diffusers", "peft", "transformers", "accelerate"),
        extra="diffusion",
    )
    yield Component(
        "filter",
        "relative",
        "genaug_matchmask.relative:RelativeFilter",
        config="genaug_matchmask.relative_config:RelativeOptions",
        summary="ignore pixels whose prediction differs from the majority over the images of one mask (eqs. 7, 8)",
    )


@hookimpl
def genaug_recipes() -> Mapping[str, str]:
    """Return the ready recipes."""
    return {
        "matchmask": "genaug_matchmask:recipes/matchmask.yaml",
        "matchmask-pp": "genaug_matchmask:recipes/matchmask-pp.yaml",
    }

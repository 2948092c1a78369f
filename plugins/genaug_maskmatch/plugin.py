"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterable[Component]:
    """Yield the labeler and the mixer of MaskMatch."""
    yield Component(
        "labeler",
        "maskmatch",
        "genaug_maskmatch.labeler:MaskMatchLabeler",
        config="genaug_maskmatch.config:MaskMatchOptions",
        summary="the teacher's predictions averaged over several scales, above a threshold (eqs. 7, 8)",
    )
    yield Component(
        "mixer",
        "patch-mask",
        "genaug_maskmatch.mixer:PatchMask",
        config="genaug_maskmatch.config:PatchMaskOptions",
        summary="hide random patches of each image; labels stay whole (eqs. 5, 6)",
    )


@hookimpl
def genaug_recipes() -> Mapping[str, str]:
    """Return the ready recipes: the method, and each of its two parts alone."""
    names = ("maskmatch", "maskmatch-multi-scale", "maskmatch-local")
    return {name: f"genaug_maskmatch:recipes/{name}.yaml" for name in names}

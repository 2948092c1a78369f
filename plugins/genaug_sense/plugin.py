"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterable[Component]:
    """Yield the labelers of SENSE."""
    yield Component(
        "labeler",
        "sense",
        "genaug_sense.labeler:SenseLabeler",
        config="genaug_sense.config:SenseOptions",
        summary="share the pixels of a batch out among the classes by optimal transport (SENSE)",
    )
    yield Component(
        "labeler",
        "sense-query",
        "genaug_sense.labeler:QuerySenseLabeler",
        config="genaug_sense.config:QueryOptions",
        summary="the same for mask classifiers such as Mask2Former (SENSE)",
    )


@hookimpl
def genaug_recipes() -> Mapping[str, str]:
    """Return the ready recipes."""
    return {name: f"genaug_sense:recipes/{name}.yaml" for name in ("sense", "sense-query")}

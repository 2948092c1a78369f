"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterator

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterator[Component]:
    """Declare the sources of scribbles."""
    yield Component(
        "source",
        "scribblesup",
        "genaug_scribbles.scribblesup:ScribbleSupSource",
        config="genaug_scribbles.config:ScribbleSupOptions",
        summary="images with strokes in XML files, as ScribbleSup is published",
    )
    yield Component(
        "source",
        "scribbles",
        "genaug_scribbles.made:MadeScribbles",
        config="genaug_scribbles.config:MadeScribblesOptions",
        summary="scribbles made from the masks of another source",
        requires=("skimage",),
        extra="metrics",
    )

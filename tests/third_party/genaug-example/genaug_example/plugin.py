"""What this package provides."""

from collections.abc import Iterator, Mapping

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterator[Component]:
    """Declare the filter and the mixer; nothing of them is imported yet."""
    yield Component(
        "filter",
        "exposure",
        "genaug_example.exposure:ExposureFilter",
        config="genaug_example.config:ExposureOptions",
        summary="drop images with too many black or white pixels",
    )
    yield Component(
        "mixer",
        "stripes",
        "genaug_example.stripes:Stripes",
        config="genaug_example.config:StripesOptions",
        summary="paste the right part of another image",
    )


@hookimpl
def genaug_recipes() -> Mapping[str, str]:
    """Return the ready recipe."""
    return {"example-stripes": "genaug_example:recipes/stripes.yaml"}

"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterator

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterator[Component]:
    """Declare the sections of the quality report, and the filters built on their figures."""
    yield Component(
        "figures",
        "density",
        "genaug_quality.density:Density",
        config="genaug_quality.config:DensityOptions",
        summary="regions and classes per mask (SENSE)",
        requires=("skimage",),
        extra="metrics",
    )
    yield Component(
        "figures",
        "fidelity",
        "genaug_quality.fidelity:Fidelity",
        config="genaug_quality.config:FidelityOptions",
        summary="co-occurrence entropies, compression ratio, noise (SENSE, Diffusion-4K)",
        requires=("skimage",),
        extra="metrics",
    )
    yield Component(
        "figures",
        "coverage",
        "genaug_quality.coverage:Coverage",
        summary="pixels and images of every class",
    )
    yield Component(
        "figures",
        "duplicates",
        "genaug_quality.duplicates:Duplicates",
        config="genaug_quality.config:DuplicatesOptions",
        summary="near-duplicates by perceptual hash",
        requires=("imagehash",),
        extra="metrics",
    )
    yield Component(
        "figures",
        "agreement",
        "genaug_quality.agreement:Agreement",
        config="genaug_quality.config:AgreementOptions",
        summary="a predictor against the masks, and the pseudo-labels it would give",
        requires=("skimage",),
        extra="metrics",
    )

"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterator

from genaug import Component, hookimpl

#: name -> (target, options, what it is, libraries beyond the required ones, extra that brings them)
_SECTIONS = {
    "density": ("density:Density", "DensityOptions", "regions and classes per mask (SENSE)", ("skimage",), "metrics"),
    "fidelity": (
        "fidelity:Fidelity",
        "FidelityOptions",
        "co-occurrence entropies, compression ratio, noise (SENSE, Diffusion-4K)",
        ("skimage",),
        "metrics",
    ),
    "coverage": ("coverage:Coverage", None, "pixels and images of every class", (), None),
    "duplicates": (
        "duplicates:Duplicates",
        "DuplicatesOptions",
        "near-duplicates by perceptual hash",
        ("imagehash",),
        "metrics",
    ),
    "agreement": (
        "agreement:Agreement",
        "AgreementOptions",
        "a predictor against the masks, and the pseudo-labels it would give",
        ("skimage",),
        "metrics",
    ),
    "instances": (
        "instances:Instances",
        "InstancesOptions",
        "objects that GroundingDINO finds per image (SENSE)",
        ("transformers",),
        "diffusion",
    ),
    "features": (
        "features:Features",
        "FeaturesOptions",
        "Frechet distance and cosines of an image encoder's pooled features",
        ("transformers",),
        "diffusion",
    ),
    "clip": ("clip:ClipScore", "ClipOptions", "how well images fit their texts", ("transformers",), "diffusion"),
}
_FILTERS = {
    "density": (
        "against_real:DensityFilter",
        "DensityFilterOptions",
        "drop what is sparser than real images",
        "skimage",
    ),
    "fidelity": (
        "against_real:FidelityFilter",
        "FidelityFilterOptions",
        "drop what is coarser or noisier than real images",
        "skimage",
    ),
    "agreement": (
        "against_real:AgreementFilter",
        "AgreementFilterOptions",
        "drop images in which a segmenter does not find the mask again",
        "skimage",
    ),
    "duplicate": (
        "duplicate_filter:DuplicateFilter",
        "DuplicateFilterOptions",
        "drop near-duplicates of real images and of siblings",
        "imagehash",
    ),
    "class-balanced": (
        "balance:ClassBalancedFilter",
        "ClassBalancedOptions",
        "keep n samples with classes as balanced as possible",
        None,
    ),
}


@hookimpl
def genaug_components() -> Iterator[Component]:
    """Declare the sections of the quality report, and the filters built on their figures."""
    for name, (target, options, summary, requires, extra) in _SECTIONS.items():
        config = None if options is None else f"genaug_quality.config:{options}"
        yield Component("figures", name, f"genaug_quality.{target}", config, summary, requires, extra)
    for name, (target, options, summary, library) in _FILTERS.items():
        needs = () if library is None else (library,)
        config = f"genaug_quality.config:{options}"
        yield Component(
            "filter", name, f"genaug_quality.{target}", config, summary, needs, "metrics" if needs else None
        )

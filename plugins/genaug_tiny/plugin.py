"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterator

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterator[Component]:
    """Declare the embedded model, the small segmenter and the demonstrations."""
    yield Component(
        "base",
        "genaug-tiny",
        "genaug_tiny.weights:model_folder",
        summary="a tiny text-to-image diffusion model for 64 x 64 scenes, embedded: works offline",
    )
    yield Component(
        "predictor",
        "small-unet",
        "genaug_tiny.predictor:SmallUNetPredictor",
        config="genaug_tiny.config:SmallUNetOptions",
        summary="a small U-Net that trains itself on the labelled samples",
    )
    yield Component(
        "quickstart",
        "matchmask",
        "genaug_tiny.quickstart:quickstart_matchmask",
        summary="MatchMask from 20 labelled scenes to a comparison of segmenters, on data that genaug draws",
    )
    yield Component(
        "quickstart",
        "matchmask-short",
        "genaug_tiny.quickstart:quickstart_matchmask_short",
        summary="the same path in seconds, with too few steps to learn from: shows that an installation works",
    )
    yield Component(
        "quickstart",
        "scribblegen",
        "genaug_tiny.quickstart_scribblegen:quickstart_scribblegen",
        summary="ScribbleGen from 30 scribbled scenes to a comparison of segmenters, on data that genaug draws",
        requires=("skimage",),
        extra="metrics",
    )
    yield Component(
        "quickstart",
        "scribblegen-short",
        "genaug_tiny.quickstart_scribblegen:quickstart_scribblegen_short",
        summary="the same path in seconds, with too few steps to learn from",
        requires=("skimage",),
        extra="metrics",
    )

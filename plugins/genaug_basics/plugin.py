"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterator[Component]:
    """Declare the basic filters, predictors, labelers and mixers, and the source of pseudo-masks."""
    yield Component(
        "filter",
        "confidence",
        "genaug_basics.confidence:ConfidenceFilter",
        config="genaug_basics.config:ConfidenceOptions",
        summary="ignore pixels that a segmenter is not sure of",
    )
    yield Component(
        "filter",
        "class-loss",
        "genaug_basics.class_loss:ClassLossFilter",
        config="genaug_basics.config:ClassLossOptions",
        summary="ignore pixels much harder than their class is on real images (FreeMask)",
    )
    yield Component(
        "filter",
        "class-hardness",
        "genaug_basics.class_hardness:ClassHardnessFilter",
        config="genaug_basics.config:ClassHardnessOptions",
        summary="keep more images of hard masks than of easy ones (FreeMask)",
    )
    yield Component(
        "predictor",
        "transformers",
        "genaug_basics.transformers_predictor:TransformersPredictor",
        config="genaug_basics.config:TransformersOptions",
        summary="a segmenter saved by the transformers library (SegFormer, UperNet, DPT ...)",
        requires=("transformers",),
        extra="diffusion",
    )
    yield Component(
        "predictor",
        "exported",
        "genaug_basics.exported:ExportedPredictor",
        config="genaug_basics.config:ExportedOptions",
        summary="any segmenter saved by torch.export as a .pt2 file",
    )
    yield Component(
        "source",
        "pseudo-masks",
        "genaug_basics.pseudo_masks:PseudoMasks",
        config="genaug_basics.config:PseudoMasksOptions",
        summary="unlabelled images with masks predicted by a segmenter (MatchMask++)",
    )
    yield Component(
        "labeler",
        "threshold",
        "genaug_basics.threshold:ThresholdLabeler",
        config="genaug_basics.config:ThresholdOptions",
        summary="the teacher's class or distribution where it is sure enough (FixMatch, Mean Teacher, ClassMix)",
    )
    yield Component(
        "mixer",
        "cutmix",
        "genaug_basics.cutmix:CutMix",
        config="genaug_basics.config:CutMixOptions",
        summary="paste one rectangle of another image (CutMix, UniMatch)",
    )
    yield Component(
        "mixer",
        "classmix",
        "genaug_basics.classmix:ClassMix",
        summary="paste half of another image's classes (ClassMix)",
    )


@hookimpl
def genaug_recipes() -> Mapping[str, str]:
    """Return the ready recipes: controls that the methods are measured against."""
    names = ("supervised", "pseudo-label", "mean-teacher", "fixmatch", "classmix")
    return {name: f"genaug_basics:recipes/{name}.yaml" for name in names}

"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from genaug import Component, hookimpl


@hookimpl
def genaug_components() -> Iterator[Component]:
    """Yield the sources of prompts and the generator."""
    yield Component(
        "source",
        "prompts",
        "genaug_text2image.prompt_file:PromptFile",
        config="genaug_text2image.config:PromptFileOptions",
        summary="prompts from a JSON Lines file (file_name, text)",
    )
    yield Component(
        "source",
        "class-prompts",
        "genaug_text2image.class_prompts:ClassPrompts",
        config="genaug_text2image.config:ClassPromptsOptions",
        summary="prompts for dense scenes, from which classes occur together in the masks",
    )
    yield Component(
        "source",
        "captions",
        "genaug_text2image.captions:Captions",
        config="genaug_text2image.config:CaptionOptions",
        summary="prompts that a vision-language model writes about real images (SENSE)",
        requires=("transformers",),
        extra="diffusion",
    )
    yield Component(
        "generator",
        "text2image",
        "genaug_text2image.generator:Text2Image",
        config="genaug_text2image.config:Text2ImageOptions",
        summary="unlabelled images from prompts, by a diffusers text-to-image model (SENSE)",
        requires=("diffusers", "transformers"),
        extra="diffusion",
    )


@hookimpl
def genaug_recipes() -> Mapping[str, str]:
    """Return the ready recipe."""
    return {"sense-images": "genaug_text2image:recipes/sense-images.yaml"}

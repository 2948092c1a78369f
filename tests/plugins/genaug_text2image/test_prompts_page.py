"""The page on prompts says what the options are."""

from __future__ import annotations

import re
from pathlib import Path

from genaug.recipe import load_recipe
from genaug_text2image.config import ClassPromptsOptions, PromptOptions, Text2ImageOptions

PAGE = (Path(__file__).parents[3] / "docs/how-to/prompts-to-images.md").read_text("utf-8")


def test_every_option_of_class_prompts_has_a_row() -> None:
    rows = dict(re.findall(r"^\| (`\w+`(?:, `\w+`)?) \| (.*?) \|", PAGE.split("| option of", 1)[1], flags=re.M))
    named = {name for cell in rows for name in re.findall(r"\w+", cell)}
    fields = ClassPromptsOptions.model_fields
    assert named == set(fields) - set(PromptOptions.model_fields)
    for name in ("dense", "min_share", "order", "seed"):
        assert rows[f"`{name}`"].strip("`") == str(fields[name].default)


def test_options_that_the_page_names_exist_and_the_base_is_the_recipes() -> None:
    known = {*Text2ImageOptions.model_fields, *ClassPromptsOptions.model_fields}
    for name in (
        "resolution",
        "max_pixels",
        "multiple",
        "watermark",
        "safety_checker",
        "cpu_offload",
        "images_per_prompt",
    ):
        assert f"`{name}" in PAGE or f"generator.{name}" in PAGE
        assert name in known
    data = ["labels=voc21", "data={images: i, masks: m}"]
    base = load_recipe("sense-images", data).resolved()["generator"]["base"]
    assert f"| `{base}` (default) |" in PAGE
    assert base == Text2ImageOptions().base

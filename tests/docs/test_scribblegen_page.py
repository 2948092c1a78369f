"""ScribbleGen's page says what the code does: every option with its default, and the numbers of the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from genaug_scribblegen.config import ADAPTIVE_LEVELS, ScribbleGenOptions
from genaug_scribblegen.functional import scaled_steps

PAGE = (Path(__file__).resolve().parents[2] / "docs/explanation/methods/scribblegen.md").read_text("utf-8")


def rows() -> list[list[str]]:
    part = PAGE.split("| option | default | source |\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()[1:]]


def stated() -> dict[str, str]:
    found = {}
    for option, default, _ in rows():
        value = default.replace("`", "")
        found[option.strip("`")] = "none" if value.startswith("none: ") else value
    return found


def defaults(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name in type(model).model_fields:
        value: Any = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from defaults(value, f"{prefix}{name}.")
        elif isinstance(value, tuple):
            yield prefix + name, ", ".join(map(str, value))
        else:
            yield (
                prefix + name,
                "none" if value is None else str(value).lower() if value is True or value is False else str(value),
            )


def test_every_option_has_a_row_with_its_default() -> None:
    assert stated() == dict(defaults(ScribbleGenOptions()))
    assert len(rows()) == len(stated())


def test_every_row_names_its_source() -> None:
    for option, _, source in rows():
        assert re.search(r"\b(P|C|ours|AdamW's default|not stated)\b", source), option


def test_the_numbers_of_the_text_are_those_of_the_code() -> None:
    assert "a quarter fewer over the six ratios" in PAGE
    assert sum(scaled_steps(ratio, 50) for ratio in ADAPTIVE_LEVELS) == 0.75 * 50 * len(ADAPTIVE_LEVELS)
    betas = [(0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2 for i in range(1000)]
    signal = 1.0
    for beta in betas:
        signal *= 1 - beta
    assert PAGE.count("7 %") == 2
    assert round(100 * signal**0.5) == 7

"""How much of a prompt each text encoder of a pipeline reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Tokenizers without a limit of their own claim room for about 1e30 tokens.
_UNLIMITED = 1 << 20


@dataclass(frozen=True, slots=True)
class Reader:
    """One text encoder: its name in the pipeline, its tokenizer, and how many tokens it reads, special ones too."""

    name: str
    tokenizer: Any
    limit: int

    def count(self, prompt: str) -> int:
        """Return how many tokens a prompt has, special ones included."""
        return len(self.tokenizer(prompt, truncation=False, verbose=False).input_ids)


def readers(pipe: Any, max_sequence_length: int | None) -> list[Reader]:
    """Return the text encoders of a diffusers pipeline whose limit is known.

    Args:
        pipe: Any text-to-image pipeline.
        max_sequence_length: What it is called with; CLIP encoders have a limit of their own.
    """
    found = []
    for ending in ("", "_2", "_3"):
        tokenizer, encoder = (getattr(pipe, part + ending, None) for part in ("tokenizer", "text_encoder"))
        if tokenizer is None or encoder is None:
            continue
        limit = int(tokenizer.model_max_length)
        if "CLIP" in type(encoder).__name__:
            limit = min(limit, int(encoder.config.max_position_embeddings))
        elif max_sequence_length is not None:
            limit = max_sequence_length
        if limit < _UNLIMITED:
            found.append(Reader(f"text_encoder{ending}", tokenizer, limit))
    return found


def cuts(encoders: Sequence[Reader], prompt: str) -> dict[str, dict[str, int]]:
    """Return encoder -> ``{tokens, limit}`` for every encoder that does not read all of a prompt."""
    counted = {each: each.count(prompt) for each in encoders}
    return {e.name: {"tokens": n, "limit": e.limit} for e, n in counted.items() if n > e.limit}


def warnings_of(encoders: Sequence[Reader], cut: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """Return one sentence per encoder that cuts prompts.

    Args:
        encoders: Those of the pipeline.
        cut: Prompt's id -> what `cuts` says of it.
    """
    sentences = []
    for encoder in encoders:
        named = {i: c[encoder.name]["tokens"] for i, c in cut.items() if encoder.name in c}
        if not named:
            continue
        listed = ", ".join(f"{i} ({tokens})" for i, tokens in named.items())
        whole = [e.name for e in encoders if not any(e.name in cut[i] for i in named)]
        rest = f"; {' and '.join(whole)} read{'s' if len(whole) == 1 else ''} all of it" if whole else ""
        sentences.append(f"{encoder.name} reads {encoder.limit} tokens of a prompt and cuts {listed}{rest}")
    return sentences

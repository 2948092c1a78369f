from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from genaug.errors import ConfigError
from genaug_diffusion.layout import (
    GLOBAL,
    assign_chunks,
    attention_sizes,
    build_layout_prompt,
    layout_masks,
    tokenize_names,
)
from genaug_diffusion.testing import make_tokenizer

TOKENIZER = make_tokenizer()
NAMES = {1: "dog", 4: "cat", 9: "potted plant", 12: "zebra"}
TOKENS = tokenize_names(TOKENIZER, NAMES)


def masks_by_class(labels: torch.Tensor, token_class: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """The slow way: one binary mask per token, each downsampled on its own."""
    allowed = torch.ones(labels.shape[0], h, w, token_class.shape[1], dtype=torch.bool)
    for b in range(labels.shape[0]):
        for j in range(token_class.shape[1]):
            if token_class[b, j] >= 0:
                one = (labels[b] == token_class[b, j]).float()[None, None]
                allowed[b, :, :, j] = F.interpolate(one, (h, w), mode="nearest")[0, 0] > 0.5
    return allowed.flatten(1, 2)


def test_naming_one_by_one_equals_tokenising_the_joined_prompt() -> None:
    prompt = build_layout_prompt(TOKENIZER, TOKENS, {4: 10, 1: 5, 9: 7})
    joined = TOKENIZER("dog cat potted plant", padding="max_length", max_length=77)["input_ids"]
    assert prompt.input_ids.tolist() == [joined]
    assert prompt.token_class[:7].tolist() == [GLOBAL, 1, 4, 9, 9, GLOBAL, GLOBAL]
    assert (prompt.token_class[5:] == GLOBAL).all()
    assert prompt.dropped == ()


@settings(max_examples=25, deadline=None)
@given(
    h=st.integers(3, 40),
    w=st.integers(3, 40),
    latent=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 1000),
)
def test_masks_equal_the_per_class_loop_at_every_level(h: int, w: int, latent: tuple[int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([1, 4, 9, 255])
    labels = values[torch.randint(0, 4, (2, h, w), generator=generator)]
    classes = [build_layout_prompt(TOKENIZER, TOKENS, dict.fromkeys(ids, 1)).token_class for ids in ([1, 4, 9], [4])]
    token_class = torch.stack(classes)
    masks = layout_masks(labels, token_class, latent, levels=3)
    assert set(masks) == {str(a * b) for a, b in attention_sizes(latent, 3)}
    for a, b in attention_sizes(latent, 3):
        assert torch.equal(masks[str(a * b)][:, 0], masks_by_class(labels, token_class, a, b))


def test_any_allows_exactly_the_classes_inside_a_cell() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([1, 4, 9, 255])[torch.randint(0, 4, (1, 16, 24), generator=generator)]
    prompt = build_layout_prompt(TOKENIZER, TOKENS, {1: 1, 4: 1, 9: 1})
    masks = layout_masks(labels, prompt.token_class[None], (8, 12), levels=1, downsample="any")["96"][0, 0]
    for row in range(8):
        for column in range(12):
            cell = set(labels[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten().tolist())
            expected = [(c == GLOBAL) or (int(c) in cell) for c in prompt.token_class]
            assert masks[row * 12 + column].tolist() == expected


def test_ignored_pixels_see_the_global_tokens_only_and_no_row_is_empty() -> None:
    prompt = build_layout_prompt(TOKENIZER, TOKENS, {1: 1, 9: 1})
    masks = layout_masks(torch.full((1, 8, 8), 255), prompt.token_class[None], (8, 8), levels=4)
    for mask in masks.values():
        assert torch.equal(mask[0, 0], (prompt.token_class == GLOBAL).expand_as(mask[0, 0]))
    no_global = layout_masks(torch.full((1, 8, 8), 255), torch.tensor([[1, 1, 9]]), (8, 8), levels=1)
    assert no_global["64"].all()


def test_overflow_drops_the_smallest_classes_and_says_so() -> None:
    names = dict.fromkeys(range(1, 30), "zebra crossing sign number")
    tokens = tokenize_names(TOKENIZER, names)
    areas = {i: 1000 - i for i in names} | {29: 5000}
    prompt = build_layout_prompt(TOKENIZER, tokens, areas)
    kept = sorted({int(c) for c in prompt.token_class if c >= 0})
    fits = 75 // len(tokens[1])
    assert kept == sorted([29, *range(1, fits)])
    assert prompt.dropped == tuple(i for i in names if i not in kept)
    last = int((prompt.token_class >= 0).nonzero().max())
    assert prompt.input_ids[0, last + 1] == TOKENIZER.eos_token_id
    assert prompt.input_ids.shape == (1, 77)


def test_chunks_hold_every_class_without_splitting_one() -> None:
    names = dict.fromkeys(range(1, 30), "zebra crossing sign number")
    tokens = tokenize_names(TOKENIZER, names)
    places = assign_chunks(tokens)
    chunks = max(places.values()) + 1
    assert chunks > 1
    prompt = build_layout_prompt(TOKENIZER, tokens, dict.fromkeys(names, 1), chunk_of=places)
    assert prompt.dropped == ()
    assert prompt.input_ids.shape == (chunks, 77)
    rows = prompt.token_class.view(chunks, 77)
    where = {i: {r for r in range(chunks) if (rows[r] == i).any()} for i in names}
    assert all(len(rows_of) == 1 for rows_of in where.values())
    assert (prompt.input_ids[:, 0] == TOKENIZER.bos_token_id).all()


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 75), min_size=1, max_size=40), seed=st.integers(0, 99), chunked=st.booleans())
def test_every_named_class_is_kept_whole_or_dropped(lengths: list[int], seed: int, chunked: bool) -> None:
    tokens = {i: [7] * n for i, n in enumerate(lengths)}
    rng = np.random.default_rng(seed)
    areas = {i: int(a) for i, a in enumerate(rng.integers(1, 50, len(lengths))) if rng.random() < 0.7}
    places = assign_chunks(tokens) if chunked else None
    prompt = build_layout_prompt(TOKENIZER, tokens, areas, chunk_of=places)
    assert prompt.input_ids.shape == ((max(places.values()) + 1) if places else 1, 77)
    assert not (chunked and prompt.dropped)
    for class_id, ids in tokens.items():
        count = int((prompt.token_class == class_id).sum())
        assert count == (len(ids) if class_id in areas and class_id not in prompt.dropped else 0)


def test_two_ids_may_share_a_name() -> None:
    prompt = build_layout_prompt(TOKENIZER, tokenize_names(TOKENIZER, {3: "cat", 7: "cat"}), {3: 1, 7: 1})
    assert prompt.token_class[1:3].tolist() == [3, 7]
    assert prompt.input_ids[0, 1] == prompt.input_ids[0, 2]


def test_a_name_too_long_for_the_text_encoder_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"of class 5 has \d+ tokens. Allowed: at most 75"):
        tokenize_names(TOKENIZER, {5: "xyz " * 40})


def test_a_name_without_tokens_is_an_error() -> None:
    class Blank:
        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [] if not text.strip("…") else [1]}

    with pytest.raises(ConfigError, match="name '…' of class 5"):
        tokenize_names(Blank(), {5: "…"})

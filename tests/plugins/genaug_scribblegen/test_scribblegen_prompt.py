"""Prompts: names in order, what has none, what finds no room."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from skimage.measure import label

from genaug import LabelSpace
from genaug.errors import SampleError
from genaug_diffusion.testing import make_pipeline
from genaug_diffusion.text import PromptEncoder
from genaug_scribblegen.config import ScribbleGenOptions
from genaug_scribblegen.prompt import ScribblePrompt, ScribblePrompter

START = "a high-quality, detailed, and professional image"
SIZE = (40, 40)


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return PromptEncoder(make_pipeline())


def scribble(**pixels: int) -> np.ndarray:
    """A scribble with so many pixels of ``i<id>``."""
    mask = np.full((40, 40), 255, np.uint8)
    flat, start = mask.reshape(-1), 0
    for name, count in pixels.items():
        flat[start : start + count] = int(name[1:])
        start += count
    return mask


def test_names_come_in_ascending_order_and_background_has_none(encoder) -> None:
    labels = LabelSpace({0: "background", 4: " cat", 2: "potted plant", 9: "cat"})
    prompter = ScribblePrompter(encoder, labels, ScribbleGenOptions())
    full = prompter.prompt(scribble(i9=7, i4=3, i0=9, i2=1), size=SIZE, where="x")
    assert full == ScribblePrompt(f"{START} of potted plant, cat")  # two classes called cat: said once
    assert prompter.prompt(scribble(i0=9), size=SIZE, where="x").text == START
    assert prompter.prompt(scribble(), size=SIZE, where="x").text == START
    bare = ScribblePrompter(encoder, labels, ScribbleGenOptions(class_names=False, prompt="a photo"))
    assert bare.prompt(scribble(i4=5), size=SIZE, where="x").text == "a photo"


def test_names_without_room_are_left_out_by_area_and_a_warning_says_so_once(encoder, caplog) -> None:
    labels = LabelSpace({i: f"zebra crossing {i}" for i in range(8)})
    options = ScribbleGenOptions(prompt="a photo")
    prompter = ScribblePrompter(encoder, labels, options)
    mask = scribble(**{f"i{i}": 5 + (3 * i) % 8 for i in range(8)})  # areas 5, 8, 11, 6, 9, 12, 7, 10
    found = prompter.prompt(mask, size=SIZE, where="sample a")
    order = [5, 2, 7, 4, 1, 6, 3, 0]
    kept = len(order) - len(found.unnamed)
    assert 1 < kept < 8
    assert found.text == "a photo of " + ", ".join(labels.names[i] for i in order[:kept])
    assert set(found.unnamed) == set(order[kept:])
    assert found.dropped == ()
    assert encoder.fits(found.text)
    assert not encoder.fits(found.text + f", {labels.names[order[kept]]}")
    assert prompter.prompt(mask, size=SIZE, where="sample b") == found
    assert len([m for m in caplog.messages if "no room for" in m]) == 1
    assert "sample a: the prompt has no room for zebra crossing" in caplog.text
    few = prompter.prompt(scribble(i7=3, i2=9), size=SIZE, where="x")
    assert few.text == "a photo of zebra crossing 2, zebra crossing 7"  # ascending where all fit


def test_ids_outside_the_class_table(encoder) -> None:
    labels, mask = LabelSpace({1: "dog"}), scribble(i1=5, i77=3)
    strict = ScribblePrompter(encoder, labels, ScribbleGenOptions())
    with pytest.raises(SampleError, match=r"sample u.*ids without a name: \[77\].*unknown_class: ignore"):
        strict.prompt(mask, size=SIZE, where="sample u")
    lax = ScribblePrompter(encoder, labels, ScribbleGenOptions(unknown_class="ignore"))
    assert lax.prompt(mask, size=SIZE, where="x").text == f"{START} of dog"
    same = {"size": mask.shape, "where": "x"}
    target, lost = lax.supervising(mask, ScribblePrompt(""), **same)
    assert np.array_equal(target, np.where(mask == 77, 255, mask))
    assert lost == 0
    clean = scribble(i1=5)
    assert lax.supervising(clean, ScribblePrompt(""), **same)[0] is clean


@settings(max_examples=25, deadline=None)
@given(
    places=st.lists(st.integers(0, 90), min_size=3, max_size=3),
    width=st.integers(1, 4),
    size=st.tuples(st.integers(1, 15), st.integers(1, 15)),
)
def test_what_the_hint_does_not_show_neither_supervises_nor_has_a_name(encoder, places, width, size) -> None:
    labels = LabelSpace({0: "background", 1: "dog", 2: "cat"})
    mask = np.full((96, 80), 255, np.uint8)
    for i, place in enumerate(places):
        lines = mask if i % 2 else mask.T
        lines[place : place + width] = i
    height, width = 8 * size[0], 8 * size[1]
    shown = {int(mask[y * 96 // height, x * 80 // width]) for y in range(height) for x in range(width)} - {255}
    prompter = ScribblePrompter(encoder, labels, ScribbleGenOptions(prompt="a photo"))
    found = prompter.prompt(mask, size=(height, width), where="x")
    names = ", ".join(labels.names[i] for i in sorted(shown - {0}))
    assert found.text == (f"a photo of {names}" if names else "a photo")
    drawn = set(np.unique(mask).tolist()) - {255}
    assert found.dropped == tuple(sorted(drawn - shown))
    target, lost = prompter.supervising(mask, found, size=(height, width), where="x")
    assert set(np.unique(target).tolist()) - {255} == shown
    seen = np.ix_(np.arange(height) * 96 // height, np.arange(width) * 80 // width)
    expected, gone = np.full_like(mask, 255), 0
    for class_id in drawn:
        strokes, count = label(mask == class_id, connectivity=2, return_num=True)
        left = set(np.unique(strokes[seen])) - {0}
        expected[np.isin(strokes, list(left))] = class_id
        gone += count - len(left)
    if 4 * (mask != 255).sum() <= mask.size:  # otherwise there are regions, told by class only
        assert np.array_equal(target, expected)
        assert lost == gone


def test_a_lost_stroke_labels_nothing_though_its_class_has_others(encoder, caplog) -> None:
    prompter = ScribblePrompter(encoder, LabelSpace({1: "dog", 2: "cat"}), ScribbleGenOptions())
    mask = np.full((64, 64), 255, np.uint8)
    mask[16, 10:30] = mask[33, 5:20] = 1
    mask[50:53, 50:53] = mask[8, 1:50] = 2
    how = {"size": (8, 8), "where": "sample a"}
    prompt = prompter.prompt(mask, **how)
    assert prompt.dropped == ()
    assert caplog.messages == []
    for _ in range(2):
        target, lost = prompter.supervising(mask, prompt, **how)
    assert lost == 2
    expected = mask.copy()
    expected[33] = expected[50:53] = 255
    assert np.array_equal(target, expected)
    (message,) = caplog.messages
    assert message.startswith("sample a: strokes of dog, cat are too thin for generator.resolution")


def test_lost_strokes_are_warned_about_once(encoder, caplog) -> None:
    prompter = ScribblePrompter(encoder, LabelSpace({1: "dog", 2: "cat"}), ScribbleGenOptions())
    mask = np.full((64, 64), 255, np.uint8)
    mask[1:8] = 2
    for name in ("a", "b"):
        prompter.prompt(mask, size=(8, 8), where=f"sample {name}")
    (message,) = caplog.messages
    assert message.startswith("sample a: its strokes of cat are too thin for generator.resolution")


def test_the_encoder_keeps_the_latest_prompts_and_cuts_long_ones(encoder) -> None:
    ids = encoder.tokens("a dog")
    assert ids.shape == (1, 77)
    assert encoder.embed(ids).shape == (77, 32)
    assert encoder.embed(ids) is encoder.embed(encoder.tokens("a dog"))
    assert encoder.fits("a dog")
    assert not encoder.fits("zebra " * 80)
    assert encoder.tokens("zebra " * 80).shape == (1, 77)

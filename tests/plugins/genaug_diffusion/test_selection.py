"""Which labelled samples are trained on and which are held out."""

from __future__ import annotations

import numpy as np

from genaug import LabelSpace, Rng, Sample
from genaug_diffusion.selection import Chosen, split, survey


def test_split_is_drawn_and_complete() -> None:
    train, held_out = split(20, 0.1, Rng(0))
    assert len(held_out) == 2
    assert sorted(train + held_out) == list(range(20))
    assert split(20, 0.1, Rng(1))[1] != held_out
    assert split(5, 0.0, Rng(0)) == ([0, 1, 2, 3, 4], [])


def test_chosen_samples_are_the_ones_asked_for() -> None:
    samples = [Sample(f"s{i}", None, np.full((2, 2), i, np.uint8)) for i in range(5)]
    chosen = Chosen(samples, [4, 1, 2])
    assert [s.id for s in chosen] == ["s4", "s1", "s2"]
    assert [s.id for s in chosen[1:]] == ["s1", "s2"]
    assert len(chosen) == 3


def test_samples_without_a_named_pixel_are_left_out_and_the_hash_is_of_the_rest() -> None:
    labels, image = LabelSpace({1: "dog"}), np.zeros((2, 2, 3), np.uint8)
    mask = np.array([[1, 255], [255, 255]], np.uint8)
    empty, good = np.full((2, 2), 255, np.uint8), Sample("good", image, mask)
    usable, data = survey([Sample("e", image, empty), good, Sample("i", image)], labels)
    assert usable == [1]
    assert data == survey([good], labels)[1]
    for other in (Sample("good", image + 1, mask), Sample("other", image, mask), Sample("good", image, mask.T[::-1])):
        assert survey([other], labels)[1] != data

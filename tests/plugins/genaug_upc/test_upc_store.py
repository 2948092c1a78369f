"""Stored uncertainty: exact to half a level, whole or not at all, and clear about what is wrong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genaug.errors import ConfigError, SampleError, StoreError
from genaug.predictions import Predictions
from genaug_upc.functional import entropy_map
from genaug_upc.geometry import crop_map, flip_map, resize_map
from genaug_upc.store import UncertaintyStore


def entropies(classes: int, height: int = 13, width: int = 9) -> np.ndarray:
    logits = torch.randn(1, classes, height, width, generator=torch.Generator().manual_seed(classes)) * 4
    return entropy_map(Predictions(logits, "logits"))[0].numpy()


@pytest.mark.parametrize("classes", [1, 2, 21, 150])
def test_what_is_read_is_what_was_written_to_half_a_level(tmp_path: Path, classes: int) -> None:
    store, values = UncertaintyStore(tmp_path / "u", classes), entropies(classes)
    assert "a" not in store
    store.write("a", values)
    store.write("b.c", torch.from_numpy(values))
    assert "a" in store
    assert list(store) == ["a", "b.c"]
    again = store.read("a", size=(13, 9))
    assert again.dtype == np.float32
    assert again.shape == (13, 9)
    np.testing.assert_allclose(again, values, rtol=0, atol=math.log(classes) / 131070 + 1e-6)
    np.testing.assert_array_equal(again, store.read("b.c"))
    with Image.open(store.path("a")) as picture:
        pixels = np.array(picture)
    expected = [[round(65535 * float(e) / math.log(classes)) if classes > 1 else 0 for e in row] for row in values]
    np.testing.assert_array_equal(pixels, expected)
    store.write("a", again)  # reading and writing again loses nothing more
    np.testing.assert_array_equal(store.read("a"), again)
    assert sorted(p.name for p in (tmp_path / "u").iterdir()) == ["a.png", "b.c.png"]  # nothing unfinished


def test_the_ends_of_the_range_are_exact(tmp_path: Path) -> None:
    store = UncertaintyStore(tmp_path, 21)
    store.write("ends", np.array([[0.0, math.log(21)], [-1e-6, math.log(21) + 1e-5]]))
    np.testing.assert_allclose(store.read("ends"), [[0, math.log(21)]] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        np.full((2, 2), math.log2(21)),  # bits
        np.full((2, 2), math.log(150)),  # of another number of classes
        np.full((2, 2), -0.5),
        np.array([[0.0, math.nan]]),
        np.array([[0.0, math.inf]]),
        np.zeros((2, 2, 1)),
        np.zeros((0, 4)),
    ],
)
def test_what_is_no_entropy_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(SampleError, match="uncertainty of x"):
        UncertaintyStore(tmp_path, 21).write("x", values)
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_on_disk_is_named(tmp_path: Path) -> None:
    store = UncertaintyStore(tmp_path, 21)
    with pytest.raises(StoreError, match=r"no uncertainty is stored for this image.*labelling stage"):
        store.read("missing")
    store.write("x", entropies(21))
    with pytest.raises(StoreError, match=r"size \(13, 9\).*\(13, 10\), the image's"):
        store.read("x", size=(13, 10))
    with pytest.raises(StoreError, match=r"stored for 21 classes\. Allowed: 150"):
        UncertaintyStore(tmp_path, 150).read("x")
    data = store.path("x").read_bytes()
    for broken in (data[:40], data[:-30], b"", b"no picture at all"):
        store.path("x").write_bytes(broken)
        with pytest.raises(StoreError, match="damaged PNG"):
            store.read("x")
    Image.fromarray(np.zeros((13, 9), np.uint8)).save(store.path("x"))
    with pytest.raises(StoreError, match="a PNG of mode L"):
        store.read("x")
    Image.fromarray(np.zeros((13, 9), np.uint16)).save(store.path("x"))
    with pytest.raises(StoreError, match="an unknown number of classes"):
        store.read("x")
    for bad in ("", "..", "a/b", "a\\b"):
        with pytest.raises(SampleError, match="without path separators"):
            store.write(bad, entropies(21))
    with pytest.raises(ConfigError, match="0 classes"):
        UncertaintyStore(tmp_path, 0)


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot create the folder"):
        UncertaintyStore(tmp_path / "file", 21).write("x", entropies(21))


@given(st.integers(-9, 12), st.integers(-9, 12), st.integers(1, 15), st.integers(1, 15))
def test_a_crop_is_what_a_loop_over_pixels_gives(top: int, left: int, height: int, width: int) -> None:
    values = np.arange(1, 71, dtype=np.float32).reshape(10, 7)
    cropped = crop_map(values, top, left, (height, width))
    assert cropped.dtype == np.float32
    for y, x in np.ndindex(height, width):
        inside = 0 <= y + top < 10 and 0 <= x + left < 7
        assert cropped[y, x] == (values[y + top, x + left] if inside else 0)


def test_flips_and_sizes() -> None:
    values = entropies(21)
    np.testing.assert_array_equal(flip_map(values), values[:, ::-1])
    np.testing.assert_array_equal(flip_map(flip_map(values)), values)
    np.testing.assert_array_equal(resize_map(values, (13, 9)), values)
    larger = resize_map(values, (31, 40))
    assert larger.shape == (31, 40)
    assert larger.min() >= values.min()
    assert larger.max() <= values.max()
    ramp = np.tile(np.arange(8, dtype=np.float32), (4, 1))
    np.testing.assert_allclose(resize_map(ramp, (4, 16))[0, 1:-1], np.arange(1, 15) / 2 - 0.25)
    np.testing.assert_array_equal(resize_map(np.full((5, 5), 2.0, np.float32), (3, 9)), np.full((3, 9), 2.0))
    for call in (lambda: resize_map(values, (0, 3)), lambda: crop_map(values, 0, 0, (3, 0))):
        with pytest.raises(SampleError, match="at least one pixel"):
            call()
    for call in (flip_map, lambda v: resize_map(v, (2, 2)), lambda v: crop_map(v, 0, 0, (2, 2))):
        with pytest.raises(SampleError, match="uncertainty map of shape"):
            call(np.zeros((2, 2, 3), np.float32))

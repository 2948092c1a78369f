"""Scenes follow from their seed, masks are exact and complete, and the classes all occur."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from genaug_tiny.canvas import Canvas, Noise
from genaug_tiny.scenes import (
    CLASSES,
    EVALUATION_SEEDS,
    PRETRAINING_SEEDS,
    class_prompt,
    render_scene,
    render_scenes,
)


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, np.ndarray]:
    return render_scenes(range(120), size=32)


def test_same_seed_same_bytes_whatever_was_rendered_before() -> None:
    first = render_scene(7)
    np.random.default_rng(0).random(5)
    render_scene(8)
    again = render_scene(7)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)


def test_global_numpy_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    render_scene(3, size=32)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_a_look_keeps_the_places_of_things_and_changes_the_rest() -> None:
    own, first, again = render_scene(5), render_scene(5, look=0), render_scene(5, look=0)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, render_scene(5, look=1).image)
    assert not np.array_equal(first.image, own.image)
    same = [(render_scene(s).mask == render_scene(s, look=0).mask).mean() for s in range(20)]
    other = [(render_scene(s).mask == render_scene(s + 1000).mask).mean() for s in range(20)]
    assert np.mean(same) > 0.6 > 0.4 > np.mean(other)
    with pytest.raises(ValueError, match="must not be negative"):
        render_scene(5, look=-1)


def test_another_seed_is_another_scene() -> None:
    assert not np.array_equal(render_scene(1).image, render_scene(2).image)


@pytest.mark.parametrize("size", [16, 48, 64, 96])
def test_size_shape_dtype_and_ids(size: int) -> None:
    scene = render_scene(11, size=size)
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == np.uint8
    assert scene.mask.shape == (size, size)
    assert scene.mask.dtype == np.uint8
    assert set(np.unique(scene.mask)) <= set(CLASSES)


def test_size_changes_the_sampling_and_not_the_scene() -> None:
    # The finer mask, read at every third pixel centre, is the coarse one: exactness does not depend on the size.
    # Thin parts widen to one pixel at coarse sizes, hence a few pixels of tolerance.
    for seed in range(10):
        coarse, fine = render_scene(seed, size=32).mask, render_scene(seed, size=96).mask
        assert (coarse == fine[1::3, 1::3]).mean() > 0.95


def test_every_class_occurs_and_none_dominates(many: tuple[np.ndarray, np.ndarray]) -> None:
    _, masks = many
    share = np.bincount(masks.ravel(), minlength=len(CLASSES)) / masks.size
    assert share.min() > 0.02
    assert share.max() < 0.45


def test_scenes_vary_from_one_class_to_nearly_all(many: tuple[np.ndarray, np.ndarray]) -> None:
    _, masks = many
    counts = {len(class_prompt(mask).split()) for mask in masks}
    assert {1, 2, 3, 4, 5, 6} <= counts


def test_paint_keeps_image_and_mask_together() -> None:
    canvas = Canvas.look(0.0, 0.0, 1.0, 20, Noise(np.random.default_rng(0)))
    part = canvas.clip(0.3, 0.3, 0.7, 0.7)
    assert part is not None
    part.paint(part.x > 0.5, (1.0, 0.5, 0.25), 6, 0.2)
    painted = canvas.mask == 6
    assert painted.any()
    assert np.array_equal(painted, canvas.image[..., 0] == 1.0)
    assert np.array_equal(painted, canvas.depth == np.float32(0.2))
    assert canvas.clip(2.0, 2.0, 3.0, 3.0) is None


def test_prompt_lists_visible_classes_in_id_order() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:10] = 5
    mask[0, :4] = 2  # 1 %
    mask[0, 4:7] = 7  # below 1 %
    assert class_prompt(mask) == "sky road car"


def test_names_are_single_words_and_seed_ranges_disjoint() -> None:
    assert all(name.isalpha() and name.islower() for name in CLASSES.values())
    assert sorted(CLASSES) == list(range(len(CLASSES)))
    assert EVALUATION_SEEDS.stop <= PRETRAINING_SEEDS.start


@pytest.mark.parametrize(("seed", "size", "said"), [(-1, 64, "negative"), (0, 8, "16")])
def test_bad_arguments_are_named(seed: int, size: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        render_scene(seed, size=size)


def test_package_is_light_and_scenes_need_no_torch() -> None:
    code = (
        "import sys, genaug_tiny, genaug_tiny.weights; assert not {'torch', 'numpy'} & set(sys.modules);"
        "import genaug_tiny.scenes; assert 'torch' not in sys.modules"
    )
    path = [entry for entry in sys.path if entry]
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"], check=True)

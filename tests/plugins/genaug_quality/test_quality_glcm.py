import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from skimage import data
from skimage.feature import graycomatrix
from skimage.measure import shannon_entropy

from genaug_quality.fidelity import gray
from genaug_quality.glcm import DISTANCES, PATCH, _codes, _count, glcm_entropies, offsets, patch_entropies, patches

ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)


def by_scikit_image(levels):
    """Counts [64, 64, 4, 4] of one patch, and the two entropies of its normalised matrices."""
    options = {"distances": DISTANCES, "angles": ANGLES, "levels": 64, "symmetric": False}
    shares = graycomatrix(levels, normed=True, **options)
    joint = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum((0, 1)).mean()
    return graycomatrix(levels, **options), shannon_entropy(shares), joint


def picture(kind, seed, size=(PATCH, PATCH)):
    numbers = np.random.default_rng(seed)
    noise = numbers.integers(0, 256, size, dtype=np.uint8)
    if kind == "noise":
        return noise
    if kind == "flat":
        return np.full(size, noise[0, 0], np.uint8)
    if kind == "two levels":
        return np.where(noise < 100, 40, 90).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1 + seed % 5)))


@given(st.sampled_from(["noise", "flat", "two levels", "blurred"]), st.integers(0, 1000))
@settings(max_examples=12)
def test_every_patch_equals_scikit_image(kind, seed):
    levels = patches(np.concatenate([picture(kind, seed), picture("blurred", seed + 1)]))
    scores, joints = patch_entropies(levels)
    for p, patch in enumerate(levels):
        counts, score, joint = by_scikit_image(patch)
        for number, offset in enumerate(offsets()):
            distance, angle = divmod(number, 4)
            ours = _count(*_codes(levels), offset)[p].reshape(64, 64)
            np.testing.assert_array_equal(ours, counts[:, :, distance, angle])
        assert scores[p] == pytest.approx(score, abs=1e-12)
        assert joints[p] == pytest.approx(joint, abs=1e-12)


@pytest.mark.parametrize("offset", [(0, 1), (2, 0), (1, 1), (3, -3), (0, -4)])
def test_pairs_are_counted_as_one_would_by_hand(offset):
    levels = np.random.default_rng(0).integers(0, 5, (3, 8, 7)).astype(np.uint8)
    expected = np.zeros((3, 64, 64), int)
    for p in range(3):
        for row in range(8):
            for column in range(7):
                other = row + offset[0], column + offset[1]
                if 0 <= other[0] < 8 and 0 <= other[1] < 7:
                    expected[p, levels[p, row, column], levels[p, other[0], other[1]]] += 1
    np.testing.assert_array_equal(_count(*_codes(levels), offset).reshape(3, 64, 64), expected)


def test_the_mean_is_over_whole_patches_and_the_rest_is_dropped():
    image = picture("blurred", 3, (2 * PATCH + 50, 9 * PATCH + 3))  # 18 patches: more than are counted together
    tiles = [image[r : r + 64, c : c + 64] // 4 for r in (0, 64) for c in range(0, 9 * 64, 64)]
    np.testing.assert_array_equal(patches(image), tiles)
    expected = np.mean([by_scikit_image(tile)[1:] for tile in tiles], axis=0)
    assert glcm_entropies(image) == pytest.approx(tuple(expected), abs=1e-12)


def test_small_and_constant_images():
    assert all(math.isnan(v) for v in glcm_entropies(np.zeros((63, 200), np.uint8)))
    score, joint = glcm_entropies(np.full((64, 64), 77, np.uint8))
    assert joint == 0.0
    assert score == pytest.approx(0.0033, abs=1e-4)  # one bin of 4096 is 1 in each of 16 matrices, the others 0


def test_blur_lowers_both_figures_and_they_are_the_published_ones():
    image = data.astronaut()
    blurred = [Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 2, 4)]
    found = np.array([glcm_entropies(gray(np.asarray(i))) for i in (image, *blurred)])
    np.testing.assert_allclose(found[:, 0], [1.464, 1.314, 1.136, 0.840], atol=2e-3)
    np.testing.assert_allclose(found[:, 1], [6.831, 6.585, 6.397, 6.078], atol=2e-3)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from genaug.errors import SampleError
from genaug_matchmask.functional import majority, relative_filter

IGNORE = 255


def one_hot_majority(predictions):
    """Eq. 7 as printed: count every class, take the first of the largest counts."""
    counts = np.stack([(predictions == c).sum(0) for c in range(256)])
    return counts.argmax(0).astype(np.uint8)


@st.composite
def stacks(draw):
    classes = draw(st.sampled_from([1, 2, 3, 21, 150, 256]))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6)))
    return draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, classes - 1)))


@settings(max_examples=200, deadline=None)
@given(stacks())
def test_majority_equals_one_hot_voting(predictions):
    np.testing.assert_array_equal(majority(predictions), one_hot_majority(predictions))


def test_majority_across_blocks_and_with_many_images():
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 150, (5, 300, 301), dtype=np.uint8)  # more pixels than one block
    np.testing.assert_array_equal(majority(wide), one_hot_majority(wide))
    many = rng.integers(0, 3, (300, 5, 4), dtype=np.uint8)  # votes that do not fit eight bits
    np.testing.assert_array_equal(majority(many), one_hot_majority(many))


def test_ties_go_to_the_smallest_id():
    predictions = np.array([[[9, 200]], [[4, 0]], [[9, 0]], [[4, 200]]], np.uint8)
    np.testing.assert_array_equal(majority(predictions), [[4, 0]])


@settings(max_examples=100, deadline=None)
@given(stacks(), st.data())
def test_relative_filter_equals_the_equation(predictions, data):
    mask = data.draw(hnp.arrays(np.uint8, predictions.shape[1:]))
    winner = one_hot_majority(predictions)
    result = relative_filter(predictions, mask, IGNORE)
    for k, prediction in enumerate(predictions):
        np.testing.assert_array_equal(result[k], np.where(prediction == winner, mask, IGNORE))


@settings(max_examples=50, deadline=None)
@given(stacks(), st.data())
def test_permuting_the_images_permutes_the_result(predictions, data):
    order = np.array(data.draw(st.permutations(range(len(predictions)))))
    mask = np.arange(predictions[0].size, dtype=np.uint8).reshape(predictions.shape[1:])
    np.testing.assert_array_equal(
        relative_filter(predictions[order], mask, IGNORE), relative_filter(predictions, mask, IGNORE)[order]
    )


def test_one_image_keeps_its_mask():
    mask = np.array([[0, 3], [255, 7]], np.uint8)
    prediction = np.array([[[5, 5], [1, 2]]], np.uint8)
    np.testing.assert_array_equal(relative_filter(prediction, mask, IGNORE), mask[None])


def test_one_outlier_loses_exactly_its_pixels():
    mask = np.full((4, 6), 2, np.uint8)
    predictions = np.full((5, 4, 6), 1, np.uint8)  # all differ from the mask: the mask has no say
    predictions[3, 1:3, 2:4] = 6
    result = relative_filter(predictions, mask, IGNORE)
    expected = np.repeat(mask[None], 5, 0)
    expected[3, 1:3, 2:4] = IGNORE
    np.testing.assert_array_equal(result, expected)


def test_ignored_pixels_stay_and_each_image_may_have_its_own_mask():
    predictions = np.zeros((3, 1, 3), np.uint8)
    predictions[2, 0, 2] = 1
    masks = np.array([[[255, 4, 4]], [[4, 255, 4]], [[4, 4, 4]]], np.uint8)
    result = relative_filter(predictions, masks, IGNORE)
    np.testing.assert_array_equal(result, [[[255, 4, 4]], [[4, 255, 4]], [[4, 4, 255]]])


@pytest.mark.parametrize(
    ("predictions", "mask", "words"),
    [
        (np.zeros((2, 3, 3), np.int64), np.zeros((3, 3), np.uint8), "int64"),
        (np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8), r"\[K, H, W\]"),
        (np.zeros((0, 3, 3), np.uint8), np.zeros((3, 3), np.uint8), "at least one image"),
        (np.zeros((2, 3, 3), np.uint8), np.zeros((3, 4), np.uint8), r"mask uint8 \(3, 4\)"),
        (np.zeros((2, 3, 3), np.uint8), np.zeros((3, 3), np.int32), "mask int32"),
    ],
)
def test_wrong_arrays_are_named(predictions, mask, words):
    with pytest.raises(SampleError, match=words):
        relative_filter(predictions, mask, IGNORE)

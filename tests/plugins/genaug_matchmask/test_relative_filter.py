import warnings
from types import MappingProxyType

import numpy as np
import pytest
import torch

from genaug.config import validate
from genaug.errors import ConfigError, SampleError
from genaug.interfaces import FilterContext
from genaug.labels import LabelSpace
from genaug.testing.filters import FilterContract
from genaug.types import Group, Sample
from genaug_matchmask.relative import RelativeFilter
from genaug_matchmask.relative_config import RelativeOptions

# Ids with gaps: channel 0, 1, 2 of the predictor are the classes 2, 7 and 9.
LABELS = LabelSpace(MappingProxyType({2: "road", 7: "car", 9: "tree"}))


class ColourPredictor:
    """Sees the class whose channel of RGB is brightest, at full or at half resolution."""

    def __init__(self, *, stride=1, classes=3):
        self.stride, self.classes, self.batches = stride, classes, []

    def __call__(self, images):
        self.batches.append(len(images))
        logits = torch.nn.functional.avg_pool2d(images, self.stride) * 10
        return logits[:, :1].repeat(1, self.classes, 1, 1) if self.classes != 3 else logits


def picture(channels):
    """An image whose pixel is bright in the given channel."""
    return np.eye(3, dtype=np.uint8)[np.asarray(channels)] * 200


def group(channel_maps, mask, **overrides):
    mask = np.asarray(mask, np.uint8)
    samples = tuple(Sample(f"s_{k}", picture(c), mask) for k, c in enumerate(channel_maps))
    return Group("s", mask, samples, tuple(range(len(samples))))


def context(k=5):
    return FilterContext(LABELS, lambda: iter(()), lambda: iter(()), k)


MASK = [[2, 2, 7, 255], [9, 9, 7, 255]]


def test_an_outlier_loses_exactly_its_pixels_and_scores_say_so():
    usual = [[0, 0, 1, 2], [2, 2, 1, 2]]
    odd = [[0, 1, 1, 0], [2, 2, 2, 2]]  # differs at one road, one ignored and one car pixel
    predictor = ColourPredictor()
    relative = RelativeFilter(predictor, labels=LABELS, batch_size=2)
    verdicts = relative.judge(group([usual, odd, usual], MASK), LABELS)

    np.testing.assert_array_equal(verdicts[0].mask, MASK)
    np.testing.assert_array_equal(verdicts[1].mask, [[2, 255, 7, 255], [9, 9, 255, 255]])
    assert [v.keep for v in verdicts] == [True, True, True]
    assert verdicts[1].scores == pytest.approx(
        {"kept": 4 / 6, "kept/road": 0.5, "kept/car": 0.5, "kept/tree": 1.0, "agreement": 21 / 24}
    )
    assert verdicts[0].scores["kept"] == 1.0
    assert predictor.batches == [2, 1]


def test_the_mask_has_no_say():
    wrong_everywhere = [[1, 1, 2, 2], [0, 0, 0, 0]]
    relative = RelativeFilter(ColourPredictor(), labels=LABELS)
    verdicts = relative.judge(group([wrong_everywhere] * 3, MASK), LABELS)
    for verdict in verdicts:
        np.testing.assert_array_equal(verdict.mask, MASK)


def test_batch_size_does_not_change_verdicts():
    rng = np.random.default_rng(1)
    maps = rng.integers(0, 3, (5, 8, 8))
    mask = np.array(LABELS.ids, np.uint8)[rng.integers(0, 3, (8, 8))]
    results = [
        RelativeFilter(ColourPredictor(), labels=LABELS, batch_size=b).judge(group(maps, mask), LABELS)
        for b in (1, 2, 5, 9)
    ]
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a.mask, b.mask)
            assert dict(a.scores) == dict(b.scores)


def test_logits_of_lower_resolution_are_resized_before_the_argmax():
    blocks = np.kron([[0, 1], [2, 1]], np.ones((2, 2), int))
    relative = RelativeFilter(ColourPredictor(stride=2), labels=LABELS)
    mask = np.array(LABELS.ids, np.uint8)[blocks]
    seen = relative._segmenter.ids([picture(blocks)])
    np.testing.assert_array_equal(seen[0], mask)


def test_a_wrong_number_of_channels_names_both_numbers():
    relative = RelativeFilter(ColourPredictor(classes=21), labels=LABELS)
    with pytest.raises(SampleError, match=r"21 channels, the class table has 3 classes"):
        relative.judge(group([[[0]]] * 3, [[2]]), LABELS)


@pytest.mark.parametrize(
    ("predictor", "words"),
    [
        (lambda x: {"out": x}, "returned a dict"),
        (lambda x: x[:1], r"shape \(1, 3, 1, 1\) for 3 images"),
        (lambda x: x.mean((2, 3)), r"shape \(3, 3\)"),
        (lambda x: x * float("nan"), "NaN"),
    ],
)
def test_broken_predictors_are_refused(predictor, words):
    relative = RelativeFilter(predictor, labels=LABELS)
    with pytest.raises(SampleError, match=words):
        relative.judge(group([[[0]]] * 3, [[2]]), LABELS)


def test_few_images_are_warned_about_once():
    relative = RelativeFilter(ColourPredictor(), labels=LABELS)
    with pytest.warns(UserWarning, match="2 image"):
        relative.prepare(context(k=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relative.judge(group([[[0]], [[1]]], [[7]]), LABELS)
        RelativeFilter(ColourPredictor(), labels=LABELS).prepare(context(k=3))
    fresh = RelativeFilter(ColourPredictor(), labels=LABELS)
    with pytest.warns(UserWarning, match="filters nothing"):
        (verdict,) = fresh.judge(group([[[0]]], [[7]]), LABELS)
    np.testing.assert_array_equal(verdict.mask, [[7]])


def test_min_kept_drops_whole_samples_only_when_asked():
    usual, odd = [[0, 0, 0, 0]], [[1, 1, 1, 0]]
    mask = [[2, 2, 2, 2]]
    paper = RelativeFilter(ColourPredictor(), labels=LABELS)
    assert [v.keep for v in paper.judge(group([usual, odd, usual], mask), LABELS)] == [True] * 3
    strict = RelativeFilter(ColourPredictor(), labels=LABELS, min_kept=0.3)
    verdicts = strict.judge(group([usual, odd, usual], mask), LABELS)
    assert [v.keep for v in verdicts] == [True, False, True]
    assert "25.0%" in verdicts[1].reason
    assert "0.3" in verdicts[1].reason


def test_a_mask_without_labels_has_no_kept_share_and_is_not_dropped():
    relative = RelativeFilter(ColourPredictor(), labels=LABELS, min_kept=1.0)
    verdicts = relative.judge(group([[[0]], [[1]], [[1]]], [[255]]), LABELS)
    assert all(v.keep for v in verdicts)
    assert set(verdicts[0].scores) == {"agreement"}


def test_options_are_checked():
    options = validate(RelativeOptions, {"predictor": "runs/baseline"})
    assert options.min_kept == 0
    for wrong in ({}, {"predictor": ""}, {"predictor": {"path": "x"}}, {"predictor": "x", "min_kept": 2}):
        with pytest.raises(ConfigError):
            validate(RelativeOptions, wrong)


class TestRelativeContract(FilterContract):
    def make_filter(self):
        return RelativeFilter(ColourPredictor(), labels=self.labels, batch_size=2)

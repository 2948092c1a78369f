import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genaug.errors import SampleError
from genaug.interfaces import FilterContext
from genaug.labels import LabelSpace
from genaug.rng import Rng
from genaug.testing.filters import LABELS, FilterContract, make_group, make_mask, make_sample
from genaug.types import Group, Sample
from genaug_basics.class_hardness import ClassHardnessFilter, images_to_keep
from genaug_basics.class_loss import ClassLossFilter
from genaug_basics.class_losses import class_losses
from genaug_basics.confidence import ConfidenceFilter
from genaug_basics.inference import BatchedPredictor
from genaug_basics.scores import kept_scores

torch.set_num_threads(1)
SHARPNESS = 20.0


class ColourSegmenter:
    """Takes the brightest of red, green and blue for the class."""

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return images * SHARPNESS


def probabilities(image):
    """Softmax of `ColourSegmenter`'s logits, float64 [H, W, K], written the obvious way."""
    exponents = np.exp(np.asarray(image, np.float64) / 255 * SHARPNESS)
    return exponents / exponents.sum(-1, keepdims=True)


def cross_entropy(image, mask):
    """-log of the probability of the mask's class at every labelled pixel, NaN elsewhere."""
    table = probabilities(image)
    result = np.full(mask.shape, np.nan)
    for channel, class_id in enumerate(LABELS.ids):
        result[mask == class_id] = -np.log(table[..., channel][mask == class_id])
    return result


def real_samples(count=3):
    rng = Rng(5)
    sizes = [(12, 17), (12, 17), (9, 8), (12, 17)]
    return [make_sample(f"r{i}", make_mask(rng.child(i), sizes[i]), rng.child(i)) for i in range(count)]


def context(real=(), conditions=(), k=3):
    return FilterContext(LABELS, lambda: iter(real), lambda: iter(conditions), k)


def expected_means(samples):
    losses = {i: [] for i in LABELS.ids}
    for sample in samples:
        loss = cross_entropy(sample.image, sample.mask)
        for i in LABELS.ids:
            losses[i] += loss[sample.mask == i].tolist()
    return {i: float(np.mean(v)) for i, v in losses.items() if v}


class TestConfidenceContract(FilterContract):
    def make_filter(self):
        return ConfidenceFilter(ColourSegmenter(), labels=self.labels, batch_size=2)


class TestClassLossContract(FilterContract):
    def make_filter(self):
        return ClassLossFilter(ColourSegmenter(), labels=self.labels, batch_size=2)


class TestClassHardnessContract(FilterContract):
    def make_filter(self):
        return ClassHardnessFilter(ColourSegmenter(), labels=self.labels)


# ---------------------------------------------------------------------- confidence


@pytest.mark.parametrize("of", ["prediction", "mask"])
@pytest.mark.parametrize("threshold", [0.6, 0.95])
def test_confidence_equals_the_obvious_rule(of, threshold):
    group = make_group("a", 3)
    judge = ConfidenceFilter(ColourSegmenter(), labels=LABELS, threshold=threshold, of=of, batch_size=2)
    seen = 0
    for sample, verdict in zip(group.samples, judge.judge(group, LABELS), strict=True):
        if of == "prediction":
            confidence = probabilities(sample.image).max(-1)
        else:
            confidence = np.exp(-cross_entropy(sample.image, sample.mask))
        expected = np.where(confidence >= threshold, sample.mask, LABELS.ignore_index)
        np.testing.assert_array_equal(verdict.mask, expected)
        labelled = sample.mask != LABELS.ignore_index
        assert verdict.scores["confidence"] == pytest.approx(confidence[labelled].mean(), rel=1e-5)
        kept = (expected != LABELS.ignore_index).sum() / labelled.sum()
        assert verdict.scores["kept"] == pytest.approx(kept)
        seen += int((expected != sample.mask).sum())
    assert seen > 0  # the threshold bites


def test_of_tells_a_confident_mistake_from_a_hit():
    mask = np.array([[1, 4]], np.uint8)  # road, car
    image = np.array([[[255, 0, 0], [255, 0, 0]]], np.uint8)  # looks like road everywhere
    group = Group("a", mask, (Sample("a_0", image, mask),), (0,))
    by = {
        of: ConfidenceFilter(ColourSegmenter(), labels=LABELS, of=of).judge(group, LABELS)[0].mask.tolist()
        for of in ("prediction", "mask")
    }
    assert by == {"prediction": [[1, 4]], "mask": [[1, 255]]}


def test_min_kept_drops_with_a_reason():
    group = make_group("a", 2)
    judge = ConfidenceFilter(ColourSegmenter(), labels=LABELS, threshold=1.0, min_kept=0.5)
    for verdict in judge.judge(group, LABELS):
        assert not verdict.keep
        assert "min_kept 0.5" in verdict.reason


# ---------------------------------------------------------------------- m_c and the filter on it


def test_class_means_equal_the_obvious_mean_over_images_of_several_sizes():
    samples = real_samples(4)
    for batch_size in (1, 2, 5):
        segmenter = BatchedPredictor(ColourSegmenter(), labels=LABELS, batch_size=batch_size)
        losses = class_losses(segmenter, context(samples))
        assert losses.means == pytest.approx(expected_means(samples), rel=1e-5)


def test_the_filters_of_one_run_measure_a_predictor_once():
    predictor, shared = ColourSegmenter(), context(real_samples())
    ClassLossFilter(predictor, labels=LABELS).prepare(shared)
    calls = predictor.calls
    assert calls > 0
    ClassHardnessFilter(predictor, labels=LABELS).prepare(shared)
    assert predictor.calls == calls
    # Another run: its real samples are another iterator, and may have changed.
    ClassLossFilter(predictor, labels=LABELS).prepare(context(real_samples()))
    assert predictor.calls == 2 * calls


@pytest.mark.parametrize("margin", [0.5, 1.25])
def test_class_loss_equals_the_obvious_rule(margin):
    samples = real_samples()
    means = expected_means(samples)
    judge = ClassLossFilter(ColourSegmenter(), labels=LABELS, margin=margin)
    judge.prepare(context(samples))
    ignored = 0
    for group in (make_group("a", 3), make_group("b", 2)):
        for sample, verdict in zip(group.samples, judge.judge(group, LABELS), strict=True):
            loss = cross_entropy(sample.image, sample.mask)
            expected = sample.mask.copy()
            for class_id, mean in means.items():
                expected[(sample.mask == class_id) & (loss > margin * mean)] = LABELS.ignore_index
            np.testing.assert_array_equal(verdict.mask, expected)
            assert verdict.scores["loss"] == pytest.approx(np.nanmean(loss), rel=1e-4)
            ignored += int((expected != sample.mask).sum())
    assert ignored > 0


def test_classes_without_real_pixels_are_kept_or_ignored_as_told():
    only_road = Sample("r", np.full((2, 2, 3), (200, 40, 40), np.uint8), np.full((2, 2), 1, np.uint8))
    mask = np.array([[4, 9, 1, 255]], np.uint8)
    image = np.full((1, 4, 3), (200, 40, 40), np.uint8)
    group = Group("a", mask, (Sample("a_0", image, mask),), (0,))
    result = {}
    for unseen in ("keep", "ignore"):
        judge = ClassLossFilter(ColourSegmenter(), labels=LABELS, unseen=unseen)
        judge.prepare(context([only_road]))
        result[unseen] = judge.judge(group, LABELS)[0].mask.tolist()
    assert result == {"keep": [[4, 9, 1, 255]], "ignore": [[255, 255, 1, 255]]}


def test_real_samples_must_be_labelled():
    nothing = Sample("r", np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 255, np.uint8))
    unlabelled = Sample("photo", np.zeros((2, 2, 3), np.uint8))
    judge = ClassLossFilter(ColourSegmenter(), labels=LABELS)
    with pytest.raises(SampleError, match="no pixel of the real samples is labelled"):
        judge.prepare(context([nothing]))
    with pytest.raises(SampleError, match="real sample photo"):
        judge.prepare(context([nothing, unlabelled]))
    with pytest.raises(SampleError, match="prepare"):
        judge.judge(make_group("a", 1), LABELS)


# ---------------------------------------------------------------------- class hardness


@given(st.integers(1, 60), st.integers(1, 25))
def test_hard_masks_never_keep_fewer(count, k):
    kept = [images_to_keep(rank, count, k) for rank in range(count)]
    assert kept == sorted(kept)
    assert kept[0] >= 1
    assert kept[-1] == k


def test_images_to_keep_follows_the_formula():
    # FreeMask with K = 20 over ten masks: 1 + round((i + 1) / 10 * 20), at most 20.
    assert [images_to_keep(i, 10, 20) for i in range(10)] == [3, 5, 7, 9, 11, 13, 15, 17, 19, 20]
    assert [images_to_keep(i, 4, 3) for i in range(4)] == [2, 3, 3, 3]


def test_hardness_ranks_masks_by_the_loss_of_their_classes():
    samples = real_samples()
    means = expected_means(samples)
    easy, hard = min(means, key=means.get), max(means, key=means.get)
    masks = {
        "mixed": np.array([[easy, hard, 255, hard]], np.uint8),
        "hard": np.full((1, 4), hard, np.uint8),
        "tie": np.full((1, 4), easy, np.uint8),
        "easy": np.full((1, 4), easy, np.uint8),
        "nothing": np.full((1, 4), 255, np.uint8),
    }
    judge = ClassHardnessFilter(ColourSegmenter(), labels=LABELS)
    judge.prepare(context(samples, list(masks.items()), k=5))
    image = np.zeros((1, 4, 3), np.uint8)
    ranks, kept = {}, {}
    for name, mask in masks.items():
        group = Group(name, mask, tuple(Sample(f"{name}_{k}", image, mask) for k in range(5)), tuple(range(5)))
        verdicts = judge.judge(group, LABELS)
        ranks[name], kept[name] = int(verdicts[0].scores["rank"]), [v.keep for v in verdicts]
        expected = {"mixed": (means[easy] + 2 * means[hard]) / 3, "hard": means[hard], "nothing": 0.0}
        assert verdicts[0].scores["hardness"] == pytest.approx(expected.get(name, means[easy]), rel=1e-5)
        assert all(v.mask is None for v in verdicts)
        assert all(v.keep or "keeps" in v.reason for v in verdicts)
    assert ranks == {"nothing": 0, "easy": 1, "tie": 2, "mixed": 3, "hard": 4}
    assert kept["nothing"] == [True, True, False, False, False]  # min(1 + round(1 / 5 * 5), 5) = 2
    assert kept["easy"] == [True, True, True, False, False]
    assert kept["hard"] == [True] * 5


def test_unseen_classes_count_as_hard_as_the_hardest():
    labels = LabelSpace({**LABELS.names, 20: "unseen"})

    def predictor(images):
        return torch.cat([images, images[:, :1]], 1)

    segmenter = BatchedPredictor(predictor, labels=labels)
    losses = class_losses(segmenter, context(real_samples()))
    assert 20 not in losses.means
    assert losses.hardness(np.full((2, 2), 20, np.uint8)) == max(losses.means.values())


def test_a_mask_it_has_not_ranked_is_named():
    judge = ClassHardnessFilter(ColourSegmenter(), labels=LABELS)
    judge.prepare(context(real_samples(), [("other", np.ones((2, 2), np.uint8))]))
    with pytest.raises(SampleError, match="group a"):
        judge.judge(make_group("a", 1), LABELS)


# ---------------------------------------------------------------------- scores


def test_kept_scores_tell_equal_names_apart():
    labels = LabelSpace({0: "screen", 1: "screen", 2: "sky"})
    before = np.array([[0, 0, 1, 1, 1, 1, 255]], np.uint8)
    after = np.array([[0, 255, 1, 1, 1, 255, 255]], np.uint8)
    assert kept_scores(before, after, labels) == {"kept": 4 / 6, "kept/screen (0)": 0.5, "kept/screen (1)": 0.75}
    assert math.isclose(sum(kept_scores(before, before, labels).values()), 3)
    assert kept_scores(after * 0 + 255, after * 0 + 255, labels) == {}

from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from genaug.config import validate
from genaug.errors import ConfigError, SampleError
from genaug.interfaces import FilterContext, PseudoLabeler
from genaug.predictions import PseudoTargets
from genaug.registry import default_registry
from genaug.report.figures import Measured
from genaug.rng import Rng
from genaug.testing.filters import LABELS, FilterContract, make_group, make_mask, make_sample
from genaug.types import Group, Sample
from genaug_quality.against_real import AgreementFilter, DensityFilter, FidelityFilter
from genaug_quality.agreement import Agreement, agreement
from genaug_quality.balance import ClassBalancedFilter, balance, choose_balanced
from genaug_quality.density import mask_density
from genaug_quality.duplicate_filter import DuplicateFilter
from genaug_quality.duplicates import perceptual_hash
from genaug_quality.fidelity import noise_sigma


def by_colour(images):
    """Class 1 where red is strongest, 4 where green is, 9 where blue is; sure in proportion to the lead."""
    return images * 20


def context(real=(), conditions=(), k=3):
    return FilterContext(LABELS, lambda: iter(real), lambda: iter(conditions), k)


def real_samples(count=20):
    rng = Rng(3)
    return [make_sample(f"r{i}", make_mask(rng.child(i), (24, 30)), rng.child(i)) for i in range(count)]


class TestDensityContract(FilterContract):
    def make_filter(self):
        return DensityFilter(labels=self.labels)


class TestDensityAsSeenContract(FilterContract):
    def make_filter(self):
        return DensityFilter(
            labels=self.labels, predictor=by_colour, measure="area_entropy", percentile=40, batch_size=2
        )


class TestFidelityContract(FilterContract):
    def make_filter(self):
        return FidelityFilter(measure="compression_ratio", percentile=50)


class TestAgreementContract(FilterContract):
    def make_filter(self):
        return AgreementFilter(by_colour, labels=self.labels, percentile=50, batch_size=2)


class TestDuplicateContract(FilterContract):
    def make_filter(self):
        return DuplicateFilter()


class TestClassBalancedContract(FilterContract):
    def make_filter(self):
        return ClassBalancedFilter(labels=self.labels, count=4)


# ---------------------------------------------------------------------- thresholds


@pytest.mark.parametrize("percentile", [0, 30, 100])
def test_density_drops_below_the_percentile_of_the_real_masks(percentile):
    real = real_samples()
    judge = DensityFilter(labels=LABELS, percentile=percentile)
    judge.prepare(context(real))
    limit = np.percentile([mask_density(s.mask, LABELS)["components"] for s in real], percentile)
    assert judge.threshold == limit
    group = Group("a", real[0].mask, tuple(real[:6]), tuple(range(6)))
    verdicts = judge.judge(group, LABELS)
    for sample, verdict in zip(group.samples, verdicts, strict=True):
        value = mask_density(sample.mask, LABELS)["components"]
        assert verdict.scores == {"components": value}
        assert verdict.keep == (value >= limit)
        assert verdict.mask is None
    assert all(v.keep for v in verdicts) or percentile > 0


@pytest.mark.parametrize("measure", ["compression_ratio", "noise"])
def test_what_is_too_high_is_dropped_above_the_percentile_from_the_top(measure):
    real = real_samples()
    judge = FidelityFilter(measure=measure, percentile=10)
    judge.prepare(context(real))
    assert judge.threshold == np.percentile(judge.figures(real), 90)
    image = real[0].image
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 60, image.shape), 0, 255).astype(np.uint8)
    soft = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(3)))
    samples = tuple(Sample(f"a_{i}", v, real[0].mask) for i, v in enumerate((noisy, soft)))
    keep = [v.keep for v in judge.judge(Group("a", real[0].mask, samples, (0, 1)), LABELS)]
    assert keep == ([False, True] if measure == "noise" else [True, False])


def test_images_are_brought_to_the_smallest_real_side():
    numbers = np.random.default_rng(0)
    real = [Sample(str(s), numbers.integers(0, 256, (s, s + 8, 3), dtype=np.uint8)) for s in (20, 16)]
    judge = FidelityFilter(measure="noise")
    judge.prepare(context(real))
    large = numbers.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    (figure,) = judge.figures([Sample("x", large)])
    assert figure == noise_sigma(np.asarray(Image.fromarray(large).resize((24, 16), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("measure", ["glcm_joint_entropy", "compression_ratio"])
def test_a_real_thumbnail_changes_no_threshold(measure, caplog):
    numbers = np.random.default_rng(0)
    real = [Sample(str(i), numbers.integers(0, 256, (70 + i, 90, 3), dtype=np.uint8)) for i in range(4)]
    alone, among = FidelityFilter(measure=measure), FidelityFilter(measure=measure)
    alone.prepare(context(real))
    assert not caplog.records
    tiny = Sample("tiny", numbers.integers(0, 256, (1, 50, 3), dtype=np.uint8))
    among.prepare(context([*real, tiny]))
    assert among.threshold == alone.threshold
    assert "images smaller than 64 pixels have no figure, of the real ones 1: tiny" in caplog.text
    assert np.isnan(among.figures([tiny])).all()


def test_a_threshold_needs_no_real_sample_and_a_percentile_does():
    group = make_group("a", 2)
    assert len(DensityFilter(labels=LABELS, threshold=2).judge(group, LABELS)) == 2
    with pytest.raises(SampleError, match="threshold of 'components' is not known"):
        DensityFilter(labels=LABELS).judge(group, LABELS)
    glcm = FidelityFilter()  # the contract's images are smaller than a patch
    with pytest.raises(SampleError, match="no real sample has the figure 'glcm_joint_entropy'"):
        glcm.prepare(context(real_samples(2)))


def test_agreement_counts_labelled_pixels_of_the_table():
    mask = np.array([[1, 4, 9, 255, 7]], np.uint8)
    seen = np.array([[1, 4, 1, 1, 7]], np.uint8)
    assert agreement(seen, mask, LABELS) == pytest.approx(2 / 3)
    assert np.isnan(agreement(seen, np.full((1, 5), 255, np.uint8), LABELS))
    image = np.zeros((1, 5, 3), np.uint8)
    image[0, [0, 2, 3, 4], 0] = image[0, 1, 1] = 255
    judge = AgreementFilter(by_colour, labels=LABELS, threshold=0.7)
    (verdict,) = judge.judge(Group("a", mask, (Sample("a_0", image, mask),), (0,)), LABELS)
    assert verdict.reason == "its agreement 0.667 is below 0.7"


# ---------------------------------------------------------------------- duplicates


def smooth(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4)))


def test_copies_of_real_images_and_of_kept_siblings_are_dropped():
    real = [Sample(f"r{i}", smooth(i)) for i in range(5)]
    judge = DuplicateFilter()
    judge.prepare(context(real))
    hashes = [perceptual_hash(s.image) for s in real]
    nearest = [min((a != b).sum() for b in hashes if b is not a) for a in hashes]
    assert judge.radius == int(np.percentile(nearest, 1))
    mask = np.ones((40, 48), np.uint8)
    images = (smooth(9), smooth(2), smooth(9), smooth(10))
    group = Group("a", mask, tuple(Sample(f"a_{i}", v, mask) for i, v in enumerate(images)), (0, 1, 2, 3))
    verdicts = DuplicateFilter(radius=2)
    verdicts.prepare(context(real))
    judged = verdicts.judge(group, LABELS)
    assert [v.keep for v in judged] == [True, False, False, True]
    assert "a real image" in judged[1].reason
    assert judged[1].scores["nearest_real"] == 0
    assert "earlier image" in judged[2].reason
    with pytest.raises(SampleError, match="1 real images"):
        DuplicateFilter().prepare(context(real[:1]))


# ---------------------------------------------------------------------- balanced choice


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=25)
def test_greedy_choice_gains_at_least_63_percent_of_the_best_one(seed, items, count):
    numbers = np.random.default_rng(seed)
    shares = numbers.random((items, 3)) * (numbers.random((items, 3)) < 0.6)
    copies = np.full(items, 2)
    chosen = choose_balanced(shares, copies, count)
    assert chosen.sum() == min(count, copies.sum())
    assert (chosen <= copies).all()
    nothing = balance(shares[:0])
    choices = [np.bincount(c, minlength=items) for c in combinations_with_replacement(range(items), int(chosen.sum()))]
    best = max(balance(np.repeat(shares, c, 0)) for c in choices if (c <= copies).all())
    assert balance(np.repeat(shares, chosen, 0)) - nothing >= (1 - 1 / np.e) * (best - nothing) - 1e-9


def test_rare_classes_are_chosen_first():
    common, rare = np.ones((10, 10), np.uint8), np.ones((10, 10), np.uint8)
    rare[:5] = 9
    conditions = [(f"c{i:02}", rare if i == 13 else common) for i in range(20)]
    judge = ClassBalancedFilter(labels=LABELS, count=3)
    judge.prepare(context(conditions=conditions, k=2))
    image = np.zeros((10, 10, 3), np.uint8)

    def kept(name, mask):
        samples = tuple(Sample(f"{name}_{k}", image, mask) for k in range(2))
        return [v.keep for v in judge.judge(Group(name, mask, samples, (0, 1)), LABELS)]

    verdicts = {name: kept(name, mask) for name, mask in conditions}
    assert verdicts["c13"] == [True, True]
    assert sum(map(sum, verdicts.values())) == 3
    with pytest.raises(SampleError, match="has not seen this condition"):
        kept("other", common)


# ---------------------------------------------------------------------- section agreement


def test_pseudo_label_health_by_hand():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :3, 0], image[:, 3, 1] = 255, 20  # six sure pixels of class 1, two unsure ones of class 4
    mask = np.array([[1, 1, 4, 4], [1, 255, 9, 4]], np.uint8)
    section = Agreement(by_colour, labels=LABELS, threshold=0.9)
    records = section.measure([Sample("a", image, mask), Sample("b", image[:, :2])])  # of two sizes
    a, b = records
    assert a["agreement"] == pytest.approx(5 / 7)
    assert np.isnan(b["agreement"])
    assert (a["pixels"], a["kept"], b["kept"]) == (8, 6, 4)
    assert (a["predicted/1"], a["kept/1"], a["predicted/4"], a["kept/4"]) == (6, 6, 2, 0)
    assert (a["both/1"], a["either/1"]) == (3, 5)  # the ignored pixel is in neither
    assert (a["both/9"], a["either/9"]) == (0, 1)
    assert a["histogram"].sum() == 8
    assert a["seen_components"] == 2
    probabilities = torch.softmax(torch.tensor([0.0, 20 * 20 / 255, 0.0]), 0).numpy()
    expected = -(probabilities * np.log(probabilities)).sum() * 2 / 8
    assert a["entropy"] == pytest.approx(expected, abs=1e-5)

    columns = {k: np.stack([np.asarray(r[k]) for r in records]) for k in a}
    both = Measured(("a", "b"), np.arange(2), columns)
    conclusion = section.conclude(both, both, Rng(0))
    health = conclusion.figures["health"]["real"]
    assert health["never"] == {"predicted": ["tree"], "kept": ["car", "tree"]}
    assert (a["kept_classes"], health["kept_classes"], a["flipped"]) == (1, 1, 0)
    assert health["miou"] == pytest.approx((3 / 5 + 2 / 3 + 0) / 3)
    assert sum(health["confidence_histogram"]) == pytest.approx(1)
    assert "no region kept in the synthetic images: car, tree" in conclusion.notes


class EveryFourth(PseudoLabeler):
    """Keeps pixels of at least 0.9, and gives every fourth column the next class."""

    def _label(self, predictions, valid, ignore_index, group):
        assert len(predictions.values) == 1  # one image at a time
        confidence, hard = predictions.log_probs().exp().max(1)
        hard[..., ::4] = (hard[..., ::4] + 1) % predictions.num_classes
        return PseudoTargets(hard.masked_fill(confidence < 0.9, ignore_index), (confidence >= 0.8).float())


def test_a_labeler_makes_the_pseudo_labels():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, :6, 0], image[:, 6:, 1] = 255, 20  # sure of class 1 on the left, not of class 4 on the right
    section = Agreement(by_colour, labels=LABELS, labeler=EveryFourth(), min_area=0.2)
    record, other = section.measure([Sample("a", image), Sample("b", image[:, ::-1])])
    assert (record["kept"], record["flipped"], record["kept/1"], record["predicted/4"]) == (24, 8, 24, 8)
    assert other["flipped"] == 4  # the fifth column: the first one is unsure
    # Columns 1 to 3 and 5 stay class 1, columns 0 and 4 became class 4: regions of 12, 4, 4 and 4 pixels, of 32.
    assert record["kept_regions"].tolist() == [1, 0, 0]
    assert record["kept_classes"] == 1
    names = {s.name: (s.title, s.value, s.per) for s in section.statistics()}
    assert names["flip_rate"] == ("of these given another class", "flipped", "kept")
    assert names["kept"][0] == "pixels kept by EveryFourth"


# ---------------------------------------------------------------------- options


def test_every_component_builds_its_options_and_refuses_wrong_ones():
    registry = default_registry()
    for kind in ("figures", "filter"):
        for name in registry.names(kind):
            component = registry.component(kind, name)
            if not component.target.startswith("genaug_quality"):
                continue
            model = registry.config_model(component)
            if model is not None:
                with pytest.raises(ConfigError, match="nonsense"):
                    validate(model, {"nonsense": 1})
            registry.load(component)
    with pytest.raises(ConfigError, match="percentile"):
        validate(registry.config_model(registry.component("filter", "density")), {"percentile": 101})

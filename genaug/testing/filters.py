"""The contract of filters."""

from __future__ import annotations

import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from genaug.errors import SampleError
from genaug.interfaces import Filter, FilterContext
from genaug.rng import Rng
from genaug.testing.data import LABELS, global_random_state, make_group, make_mask, make_sample
from genaug.types import Group, Mask, Sample, Verdict


class FilterContract(ABC):
    """Inherit, implement `make_filter`, and pytest runs every check.

    Example:
        class TestMyFilter(FilterContract):
            def make_filter(self):
                return MyFilter(threshold=0.5)
    """

    #: Class table of the groups that the filter is shown.
    labels = LABELS
    #: Samples per condition.
    count = 3

    @abstractmethod
    def make_filter(self) -> Filter:
        """Return a fresh filter for `labels`."""

    def groups(self) -> list[Group]:
        """Return the groups that are judged: at least two, their ids unequal."""
        return [make_group(name, self.count) for name in ("a", "b", "c")]

    def context(self) -> FilterContext:
        """Return what `prepare` sees: three real samples and the conditions of `groups`."""
        rng = Rng(1)
        real = [make_sample(f"real_{i}", make_mask(rng.child(i)), rng.child(i)) for i in range(3)]

        def conditions() -> Iterator[tuple[str, Mask]]:
            return ((group.id, group.condition) for group in self.groups())

        return FilterContext(self.labels, lambda: iter(real), conditions, self.count)

    def prepared(self) -> Filter:
        """Return a fresh filter that has seen `context`."""
        judge = self.make_filter()
        judge.prepare(self.context())
        return judge

    def test_one_checked_verdict_per_sample(self) -> None:
        """`judge` accepts what `_judge` returns; pixels only ever become ignored."""
        judge = self.prepared()
        for group in self.groups():
            for sample, verdict in zip(group.samples, judge.judge(group, self.labels), strict=True):
                assert isinstance(verdict, Verdict)
                if verdict.mask is not None:
                    assert sample.mask is not None
                    was_ignored = sample.mask == self.labels.ignore_index
                    assert (verdict.mask[was_ignored] == self.labels.ignore_index).all()

    def test_scores_are_finite_json_numbers(self) -> None:
        """Manifests hold scores as JSON, which has no NaN and no infinity."""
        judge = self.prepared()
        for group in self.groups():
            for verdict in judge.judge(group, self.labels):
                scores = json.loads(json.dumps(dict(verdict.scores)))
                assert all(isinstance(v, int | float) and math.isfinite(v) for v in scores.values())

    def test_the_same_group_gets_the_same_verdicts(self) -> None:
        """Neither earlier groups nor their order nor a fresh start changes a verdict."""
        groups = self.groups()
        first, second = self.prepared(), self.prepared()
        forward = [first.judge(group, self.labels) for group in groups]
        backward = [second.judge(group, self.labels) for group in reversed(groups)][::-1]
        again = [first.judge(group, self.labels) for group in groups]
        for a, b, c in zip(forward, backward, again, strict=True):
            assert_equal_verdicts(a, b)
            assert_equal_verdicts(a, c)

    def test_inputs_stay_untouched(self) -> None:
        """Verdicts are new arrays; the groups here are read-only, and stay equal to fresh ones."""
        judge = self.prepared()
        for group, fresh in zip(self.groups(), self.groups(), strict=True):
            judge.judge(group, self.labels)
            for sample, expected in zip(group.samples, fresh.samples, strict=True):
                np.testing.assert_array_equal(sample.image, expected.image)
                np.testing.assert_array_equal(sample.mask, expected.mask)

    def test_global_random_state_stays_untouched(self) -> None:
        """All randomness comes from the recipe's seed."""
        before = global_random_state()
        self.prepared().judge(self.groups()[0], self.labels)
        assert global_random_state() == before

    def test_samples_without_masks_are_judged_or_refused(self) -> None:
        """As `judges_unlabeled` says: a run relies on it before it makes samples from prompts."""
        judge = self.prepared()
        group = self.groups()[0]
        bare = replace(group, samples=tuple(replace(sample, mask=None) for sample in group.samples))
        if judge.judges_unlabeled:
            assert [verdict.mask for verdict in judge.judge(bare, self.labels)] == [None] * len(bare.samples)
            return
        try:
            judge.judge(bare, self.labels)
        except SampleError:
            return
        raise AssertionError("samples without masks were judged, though judges_unlabeled is false")

    def test_a_single_sample_and_a_fully_ignored_mask(self) -> None:
        """A generator may have refused the siblings, and a mask may hold nothing to learn from."""
        judge = self.prepared()
        group = self.groups()[0]
        image = group.samples[0].image
        assert image is not None
        nothing = np.full(image.shape[:2], self.labels.ignore_index, np.uint8)
        empty = Group(group.id, nothing, (Sample(f"{group.id}_0", image, nothing),), (0,))
        single = Group(group.id, group.condition, group.samples[:1], group.ks[:1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a filter may say that it can do little with one sample
            assert len(judge.judge(single, self.labels)) == 1
            (verdict,) = judge.judge(empty, self.labels)
        assert verdict.mask is None or (verdict.mask == self.labels.ignore_index).all()


def assert_equal_verdicts(first: list[Verdict], second: list[Verdict]) -> None:
    """Assert that two lists of verdicts say the same."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert (a.keep, a.reason, dict(a.scores)) == (b.keep, b.reason, dict(b.scores))
        assert (a.mask is None) == (b.mask is None)
        if a.mask is not None:
            np.testing.assert_array_equal(a.mask, b.mask)

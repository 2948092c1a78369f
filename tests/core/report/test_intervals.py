import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.report import intervals
from genaug.report.figures import Measured, Statistic
from genaug.report.intervals import estimate, percentile_interval
from genaug.rng import Rng

MEAN = Statistic("mean", "mean", "value")
RATIO = Statistic("ratio", "ratio", "value", per="weight")


def measured(values, weights=None, groups=None):
    values = np.array(values, float)
    columns = {"value": values, "weight": np.ones(len(values)) if weights is None else np.array(weights, float)}
    groups = np.arange(len(values)) if groups is None else np.array(groups)
    return Measured(tuple(map(str, range(len(values)))), groups, columns)


def one_by_one(m, rng, draws):
    """The same bootstrap, written as a loop over redrawn sets and over their groups."""
    numbers = rng.numpy()
    count = m.groups.max() + 1
    chosen = numbers.integers(0, count, (draws, count))
    result = np.full((draws, 2), np.nan)
    for d in range(draws):
        rows = np.concatenate([np.flatnonzero(m.groups == g) for g in chosen[d]])
        value, weight = m.columns["value"][rows], m.columns["weight"][rows]
        known = np.isfinite(value)
        if known.any():
            result[d] = value[known].mean(), value[known].sum() / weight[known].sum()
    return result


@given(st.integers(0, 10**6), st.integers(2, 12))
@settings(max_examples=20)
def test_draws_equal_the_obvious_loop(seed, count):
    numbers = np.random.default_rng(seed)
    groups = np.unique(numbers.integers(0, count, count), return_inverse=True)[1]
    values = np.where(numbers.random(count) < 0.2, np.nan, numbers.normal(3, 1, count))
    m = measured(values, numbers.uniform(1, 2, count), groups)
    found = estimate(m, [MEAN, RATIO], Rng(seed), draws=30)
    if groups.max() == 0:
        assert len(found.draws) == 0
    else:
        np.testing.assert_allclose(found.draws, one_by_one(m, Rng(seed), 30), rtol=1e-10)
    if np.isfinite(values).any():
        assert found.values[0] == pytest.approx(np.nanmean(values))


def test_blocks_change_nothing(monkeypatch):
    m = measured(np.random.default_rng(0).random(50))
    whole = estimate(m, [MEAN], Rng(1), draws=100).draws
    monkeypatch.setattr(intervals, "_CELLS", 170)
    np.testing.assert_allclose(estimate(m, [MEAN], Rng(1), draws=100).draws, whole, rtol=1e-14)


def test_the_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(5).normal(10, 2, 400)
    low, high = estimate(measured(values), [MEAN], Rng(0)).interval(0)
    error = values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_copies_within_a_group_do_not_narrow_the_interval():
    values = np.random.default_rng(2).normal(size=30)
    alone = estimate(measured(values), [MEAN], Rng(0)).interval(0)
    copied = measured(np.repeat(values, 5), groups=np.repeat(np.arange(30), 5))
    assert estimate(copied, [MEAN], Rng(0)).interval(0) == pytest.approx(alone)
    mistaken = estimate(measured(np.repeat(values, 5)), [MEAN], Rng(0)).interval(0)
    assert mistaken[1] - mistaken[0] < 0.6 * (alone[1] - alone[0])


def test_without_numbers_there_is_no_interval():
    found = estimate(measured([np.nan, np.nan]), [MEAN, Statistic("x", "x", "absent")], Rng(0))
    assert np.isnan(found.values).all()
    assert found.interval(0) is found.interval(1) is None
    assert estimate(measured([1.0]), [MEAN], Rng(0)).interval(0) is None  # one group cannot be redrawn
    assert percentile_interval(np.array([1.0, np.nan])) is None


def by_chance(count, tests=1000):
    """Of two sets of `count` numbers of one distribution: how often one looks worse, its interval wholly below."""
    names = [Statistic(str(i), str(i), str(i)) for i in range(tests)]
    bounds = []
    for side in range(2):
        values = np.random.default_rng([count, side]).normal(size=(count, tests))
        m = Measured(tuple(map(str, range(count))), np.arange(count), {str(i): values[:, i] for i in range(tests)})
        bounds.append(np.quantile(estimate(m, names, Rng(side), draws=400).draws, [0.025, 0.975], axis=0))
    return float((bounds[0][1] < bounds[1][0]).mean())


def test_from_the_fewest_groups_on_chance_raises_few_flags():
    assert by_chance(2) > 0.12
    assert by_chance(3) > 0.03
    assert by_chance(intervals.FEWEST) < 0.02

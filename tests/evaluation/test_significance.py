"""The tests and intervals of a comparison: against enumeration, theory, hand-computed cases and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from optical_hf.evaluation import significance
from optical_hf.evaluation.significance import bootstrap_difference, bootstrap_interval, holm, randomisation_test

# Tenths, as integers: sums of several sign patterns equal the real one, but not always after rounding.
TENTHS = [1, 2, 3, -1, 4, 2, 0, 6, -3]


def simulated_p_values(draws, queries, effect=0.0):
    """Two systems whose scores share the query's difficulty; their errors are skewed, but exchangeable."""
    rng = np.random.default_rng(0)
    p_values = []
    for draw in range(draws):
        difficulty = rng.normal(size=queries)
        a, b = difficulty + rng.exponential(size=(2, queries))
        p_values.append(randomisation_test(a + effect, b, permutations=1999, seed=draw))
    return np.array(p_values)


def test_p_values_are_uniform_under_the_null():
    p_values = simulated_p_values(2000, queries=40)
    assert stats.kstest(p_values, "uniform").pvalue > 0.05
    assert (p_values < 0.05).mean() == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 2000))


def test_real_effect_is_found_as_often_as_by_the_t_test():
    rng = np.random.default_rng(1)
    queries, effect, draws = 50, 0.4, 400
    found = [randomisation_test(rng.normal(effect, 1, queries), np.zeros(queries), 999) < 0.05 for _ in range(draws)]
    limit, shift = stats.t.ppf(0.975, queries - 1), effect * np.sqrt(queries)
    power = stats.nct.sf(limit, queries - 1, shift) + stats.nct.cdf(-limit, queries - 1, shift)
    assert 0.75 < power < 0.85
    assert np.mean(found) == pytest.approx(power, abs=3 * np.sqrt(power * (1 - power) / draws))
    assert randomisation_test(np.full(1000, 0.6), np.full(1000, 0.5)) == 1 / 10_001


@pytest.mark.parametrize("at_once", [significance._VALUES_AT_ONCE, 1000])
def test_agrees_with_enumeration_of_all_sign_flips(at_once, monkeypatch):
    monkeypatch.setattr(significance, "_VALUES_AT_ONCE", at_once)
    flips = [
        abs(sum(sign * value for sign, value in zip(signs, TENTHS, strict=True)))
        for signs in product([1, -1], repeat=9)
    ]
    exact = np.mean([flip >= sum(TENTHS) for flip in flips])
    ties = np.mean([flip == sum(TENTHS) for flip in flips])
    b = np.linspace(0.1, 0.9, 9)
    permutations = 100_000
    p_value = randomisation_test(b + np.array(TENTHS) / 10, b, permutations)
    error = 3 * np.sqrt(exact * (1 - exact) / permutations)
    assert p_value == pytest.approx(exact, abs=error)
    assert ties > 10 * error  # so that a tie lost to rounding would show


def test_randomisation_test_is_symmetric_and_repeatable():
    a, b = np.random.default_rng(0).random((2, 101))
    p_value = randomisation_test(a, b)
    assert p_value == randomisation_test(b, a) == randomisation_test(-a, -b) == randomisation_test(a.tolist(), b)
    assert p_value != randomisation_test(a, b, seed=1)
    assert p_value == pytest.approx(randomisation_test(a, b, seed=1), abs=0.03)
    assert randomisation_test(a, a) == 1.0
    assert randomisation_test([0.5], [0.25]) == 1.0  # a single query's sign says nothing


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "`a` is empty"),
        ([0.5, 0.5], [0.5], "`a` scores 2 queries and `b` 1"),
        ([0.5, 0.5], [0.5, float("nan")], r"`b` is nan at \[1\]"),
        ([float("inf")], [0.5], r"`a` is inf at \[0\]"),
        ([1e308], [-1e308], r"`a` is 1e\+308 at \[0\]: every query needs a finite score, below 1e\+100"),
        ([0.5, "high"], [0.5, 0.5], "`a` must be numbers: could not convert string to float: 'high'"),
        ([0.5, [0.5]], [0.5, 0.5], "`a` must be numbers: "),
        ([10**400], [0.5], "`a` must be numbers: "),
        ([[0.5, 0.5]], [[0.5, 0.5]], r"`a` must be scores of shape \(queries,\), not \(1, 2\)"),
    ],
)
def test_randomisation_test_refuses_bad_scores(a, b, message):
    with pytest.raises(ValueError, match=message):
        randomisation_test(a, b)


def test_counts_and_level_are_checked():
    with pytest.raises(ValueError, match="`permutations` must be at least 1, got 0"):
        randomisation_test([1.0], [0.5], permutations=0)
    with pytest.raises(ValueError, match="`permutations` must be a whole number of at least 1, got 10.5"):
        randomisation_test([1.0], [0.5], permutations=10.5)
    with pytest.raises(ValueError, match="`resamples` must be at least 1, got 0"):
        bootstrap_interval([[1.0]], resamples=0)
    with pytest.raises(ValueError, match="`level` must be between 0 and 1, such as 0.95, not 95"):
        bootstrap_interval([[1.0]], level=95)


def test_holm_equals_the_textbook_example():
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04; the last may not be below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.4, 0.9]) == [1.0, 1.0, 1.0]
    assert holm([0.02, 0.02]) == [0.04, 0.04]
    assert holm([0.3]) == [0.3]
    assert holm([]) == []


def test_holm_keeps_the_order_and_bounds_the_family():
    p_values = np.random.default_rng(0).random((4000, 5)) * [0.1, 1, 1, 1, 1]
    adjusted = np.array([holm(row) for row in p_values.tolist()])
    order = np.argsort(p_values, axis=1)
    assert (np.diff(np.take_along_axis(adjusted, order, axis=1)) >= 0).all()
    assert (adjusted >= p_values).all() and adjusted.max() == 1.0
    # The four true nulls, beside one that is false: one is rejected at most as often as the level says.
    assert 0.03 < (adjusted[:, 1:] < 0.05).any(axis=1).mean() < 0.055


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.5])
def test_holm_refuses_what_is_no_p_value(value):
    with pytest.raises(ValueError, match=f"`p_values`: number 1 is {value}"):
        holm([0.5, value])


@pytest.mark.parametrize(("values", "message"), [(["low"], "must be numbers"), ([[0.5]], r"not of shape \(1, 1\)")])
def test_holm_refuses_what_is_no_list_of_numbers(values, message):
    with pytest.raises(ValueError, match=f"`p_values` {message}|`p_values` must be a list of numbers, {message}"):
        holm(values)


def test_interval_of_two_queries_or_seeds_is_as_computed_by_hand():
    # The mean of two draws from {0, 1} is 0, 1/2, 1 with chances 1/4, 1/2, 1/4.
    for group in ([0, 1], [[0, 1]], [[0, 1], [0, 1]], [[0, 0, 0], [1, 1, 1]]):
        assert bootstrap_interval([group]) == (0, 1)
        assert bootstrap_interval([group], level=0.4) == (0.5, 0.5)
    # Queries of two languages are drawn apart: both means are 0 with chance 1/16 only. Seeds are drawn together.
    assert bootstrap_interval([[0, 1], [0, 1]], level=0.8) == (0.25, 0.75)
    assert bootstrap_interval([[[0, 0, 0], [1, 1, 1]], [[0], [1]]], level=0.8) == (0, 1)
    # Languages weigh the same, whatever their number of queries.
    assert bootstrap_interval([[1.0] * 9, [0.0]]) == (0.5, 0.5)


def test_difference_has_its_own_queries_and_shared_seeds():
    trainings = np.array([[0.0], [0.25], [0.5], [1.0]])
    assert bootstrap_difference([trainings + 1, trainings], [trainings]) == (0.5, 0.5)
    assert bootstrap_interval([trainings])[0] < bootstrap_interval([trainings])[1]
    # The same two queries on both sides do not cancel: the difference is -1 with chance 1/16, -1/2 with 4/16.
    assert bootstrap_difference([[0, 1]], [[0, 1]], level=0.95) == (-1, 1)
    assert bootstrap_difference([[0, 1]], [[0, 1]], level=0.8) == (-0.5, 0.5)
    rng = np.random.default_rng(0)
    first, second = rng.normal(3, 1, 400), rng.normal(1, 2, 300)
    middle = first.mean() - second.mean()
    half_width = 1.96 * np.sqrt(first.var() / 400 + second.var() / 300)
    expected = [middle - half_width, middle + half_width]
    assert bootstrap_difference([first], [second], resamples=20_000) == pytest.approx(expected, abs=0.01)


def test_intervals_do_not_depend_on_more_than_the_seed(monkeypatch):
    samples = [np.random.default_rng(0).random((2, 50)), np.random.default_rng(1).random((2, 70))]
    interval = bootstrap_interval(samples)
    assert interval == bootstrap_interval([group.tolist() for group in samples])
    assert interval != bootstrap_interval(samples, seed=1)
    assert interval == pytest.approx(bootstrap_interval(samples, seed=1), abs=0.01)
    monkeypatch.setattr(significance, "_VALUES_AT_ONCE", 999)
    assert interval == pytest.approx(bootstrap_interval(samples), abs=1e-12)


def test_interval_covers_a_known_mean():
    rng = np.random.default_rng(0)
    covered = []
    for draw in range(2000):  # scores mostly near 0 and 1, as nDCG is
        low, high = bootstrap_interval([rng.beta(0.3, 0.6, size=80)], resamples=400, seed=draw)
        covered.append(low <= 1 / 3 <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_interval_covers_a_known_mean_over_languages_and_seeds():
    """Seeds that add as much variance to the mean as queries do: many, since of few the interval makes too little."""
    rng = np.random.default_rng(0)
    queries, seeds, covered, queries_alone = 30, 25, [], []
    for draw in range(1000):
        shift = rng.normal(0, np.sqrt(seeds / (2 * queries)), size=(seeds, 1))
        samples = [rng.normal(size=queries) + shift for _ in range(2)]
        for hits, groups in ((covered, samples), (queries_alone, [group.mean(axis=0) for group in samples])):
            low, high = bootstrap_interval(groups, resamples=400, seed=draw)
            hits.append(low <= 0 <= high)
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(queries_alone) < 0.87


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "`samples` must be a list of at least one array"),
        (np.zeros((2, 3)), "`samples` must be a list of at least one array"),
        ([0.5, 0.25], r"`samples\[0\]` must be scores of shape \(queries,\) or \(seeds, queries\), not \(\)"),
        ([[0.5], []], r"`samples\[1\]` is empty"),
        ([[0.5], [[0.5, 0.5], [0.5, float("nan")]]], r"`samples\[1\]` is nan at \[1, 1\]"),
        ([[[0.5]], [[0.5], [0.5]]], "same seeds, but some have 1 and some 2"),
    ],
)
def test_bootstrap_refuses_bad_samples(samples, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(samples)
    with pytest.raises(ValueError, match=message.replace("samples", "second")):
        bootstrap_difference([[0.5]], samples)

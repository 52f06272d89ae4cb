"""Bootstrap intervals: against their definition, resample by resample, and their cover on simulated data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import EvaluationError
from retrieval.metrics import intervals
from retrieval.metrics.intervals import bootstrap_means, bootstrap_medians, estimate, paired_difference


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_means_and_medians_are_over_all_queries_of_the_drawn_items(data):
    """Each sample written out: the queries of each drawn item, as often as it was drawn."""
    count = data.draw(st.integers(1, 5))
    items = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=12)))
    values = np.array(data.draw(st.lists(st.integers(0, 6), min_size=len(items), max_size=len(items))), float)
    draw = {"count": count, "resamples": 8, "seed": data.draw(st.integers(0, 99))}
    means, medians = bootstrap_means(values, items, **draw), bootstrap_medians(values, items, **draw)
    picked = [np.random.default_rng(draw["seed"]).integers(0, count, size=(8, count))][0]
    samples = [np.concatenate([values[items == item] for item in drawn]) for drawn in picked]
    expected = [(np.mean(one), np.median(one)) if len(one) else (np.nan, np.nan) for one in samples]
    assert np.stack([means, medians], axis=1) == pytest.approx(np.array(expected), nan_ok=True)


def test_block_size_changes_no_mean_and_columns_share_their_draws(monkeypatch):
    random = np.random.default_rng(0)
    values, items = random.random((50, 3)), random.integers(0, 20, 50)
    draw = {"count": 20, "resamples": 30, "seed": 4}
    whole = bootstrap_means(values, items, **draw)
    assert whole.shape == (30, 3)
    assert whole[:, 1] == pytest.approx(bootstrap_means(values[:, 1], items, **draw))
    monkeypatch.setattr(intervals, "DRAW_BLOCK", 1)
    assert bootstrap_means(values, items, **draw) == pytest.approx(whole)


def test_95_percent_of_intervals_contain_the_true_mean():
    """200 sets of 80 items with five captions that rise and fall together; resampling captions would cover far less."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        easy = random.random(80)
        values = (random.random((80, 5)) < easy[:, None]).astype(float).reshape(-1)
        items = np.repeat(np.arange(80), 5)
        means = bootstrap_means(values, items, count=80, resamples=200, seed=1)
        one = estimate(float(values.mean()), means, items=items)
        covered += one.low <= 0.5 <= one.high
    assert 180 <= covered <= 198


def test_intervals_of_single_query_items_match_the_standard_error():
    values = np.repeat([0.0, 1.0], 500)
    means = bootstrap_means(values, np.arange(1000), count=1000, resamples=2000, seed=0)
    one = estimate(0.5, means, items=np.arange(1000))
    assert one.high - one.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(1000), rel=0.1)


def test_a_paired_difference_is_significant_where_two_intervals_overlap():
    """Two of a hundred queries gained and none lost is sure, though the recalls' own intervals overlap widely."""
    before = np.repeat([0.0, 1.0], 500)
    after = before.copy()
    after[:20] = 1.0
    items = np.arange(1000)
    difference = paired_difference(before, after, items=items)
    assert difference.value == pytest.approx(0.02)
    assert 0.005 < difference.low < 0.02 < difference.high < 0.035
    same = paired_difference(before, before, items=items)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_seed_determines_the_samples():
    values, items = np.random.default_rng(0).random(30), np.arange(30)
    draws = [bootstrap_means(values, items, count=30, resamples=10, seed=seed).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_samples_without_a_query_are_ignored():
    """Two items of three have queries: samples that miss both are NaN and the interval comes from the others."""
    items = np.array([1, 2])
    means = bootstrap_means(np.array([0.5, 0.5]), items, count=3, resamples=50, seed=0)
    assert 0 < np.isnan(means).sum() < 50
    one = estimate(0.5, means, items=items)
    assert (one.value, one.low, one.high) == (0.5, 0.5, 0.5)


def test_a_single_item_has_no_interval_however_many_queries_it_has():
    """Every sample is that item again, so a width of zero would say that any other item does the same."""
    difference = paired_difference(np.zeros(3), np.ones(3), items=np.array([4, 4, 4]))
    assert difference.value == 1
    assert np.isnan([difference.low, difference.high]).all()


def test_a_paired_difference_of_different_queries_is_an_error():
    with pytest.raises(EvaluationError, match="not 2, 3 and 2 of them"):
        paired_difference(np.zeros(2), np.zeros(3), items=np.arange(2))
    with pytest.raises(EvaluationError, match="not 0, 0 and 0"):
        paired_difference(np.zeros(0), np.zeros(0), items=np.zeros(0, np.int64))

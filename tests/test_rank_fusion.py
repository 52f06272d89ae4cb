"""Reciprocal-rank fusion against its closed form."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.catalog.search.rank_fusion import reciprocal_rank_fusion

RANKING = st.lists(st.integers(0, 30), unique=True, max_size=20)


def told(fused):
    """Item, score and ranks of each, as plain values."""
    return list(zip(fused.items.tolist(), fused.scores.tolist(), fused.ranks.tolist(), strict=True))


def test_two_lists_by_hand():
    found = told(reciprocal_rank_fusion([[7, 3], [3, 9]], constant=60))
    assert found == [(3, 1 / 62 + 1 / 61, [2, 1]), (7, 1 / 61, [1, 0]), (9, 1 / 62, [0, 2])]


@given(lists=st.lists(RANKING, max_size=4), data=st.data())
def test_every_item_of_any_list_has_the_published_score_and_stands_in_its_order(lists, data):
    weights = data.draw(st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=len(lists), max_size=len(lists)))
    fused = reciprocal_rank_fusion(lists, weights=weights, constant=10)

    def exact(item):
        places = [(weight, one.index(item) + 1) for weight, one in zip(weights, lists, strict=True) if item in one]
        return sum((Fraction(weight) / (10 + rank) for weight, rank in places), Fraction(0))

    assert set(fused.items.tolist()) == set().union(*lists)
    for item, score, ranks in told(fused):
        assert score == pytest.approx(float(exact(item)), rel=1e-12)
        assert ranks == [ranking.index(item) + 1 if item in ranking else 0 for ranking in lists]
    assert told(fused) == sorted(told(fused), key=lambda one: (-one[1], one[0]))


def test_equal_scores_stand_by_item_number():
    assert reciprocal_rank_fusion([[5, 2], [2, 5]]).items.tolist() == [2, 5]


def test_one_list_keeps_its_order_and_none_gives_none():
    assert reciprocal_rank_fusion([[9, 1, 5]]).items.tolist() == [9, 1, 5]
    assert told(reciprocal_rank_fusion([])) == []
    assert told(reciprocal_rank_fusion([[], []])) == []


def test_an_item_that_is_in_a_list_twice_counts_at_its_first_place():
    assert told(reciprocal_rank_fusion([[4, 4, 6]])) == [(4, 1 / 61, [1]), (6, 1 / 63, [3])]


def test_weights_are_one_for_each_list():
    with pytest.raises(ValueError, match="zip"):
        reciprocal_rank_fusion([[1], [1]], weights=[1.0])

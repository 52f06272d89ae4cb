"""Reciprocal-rank fusion against its closed form."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.catalog.search.rank_fusion import reciprocal_rank_fusion

RANKING = st.lists(st.integers(0, 30), unique=True, max_size=20)


def as_tuples(fused):
    """Item, score and ranks of each, as plain values."""
    return list(zip(fused.items.tolist(), fused.scores.tolist(), fused.ranks.tolist(), strict=True))


def test_fusion_of_two_lists_computed_by_hand():
    found = as_tuples(reciprocal_rank_fusion([[7, 3], [3, 9]], constant=60))
    assert found == [(3, 1 / 62 + 1 / 61, [2, 1]), (7, 1 / 61, [1, 0]), (9, 1 / 62, [0, 2])]


@given(lists=st.lists(RANKING, max_size=4), data=st.data())
def test_every_item_has_the_published_score_and_items_are_sorted_by_it(lists, data):
    weights = data.draw(st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=len(lists), max_size=len(lists)))
    fused = reciprocal_rank_fusion(lists, weights=weights, constant=10)

    def exact(item):
        places = [(weight, one.index(item) + 1) for weight, one in zip(weights, lists, strict=True) if item in one]
        return sum((Fraction(weight) / (10 + rank) for weight, rank in places), Fraction(0))

    assert set(fused.items.tolist()) == set().union(*lists)
    for item, score, ranks in as_tuples(fused):
        assert score == pytest.approx(float(exact(item)), rel=1e-12)
        assert ranks == [ranking.index(item) + 1 if item in ranking else 0 for ranking in lists]
    assert as_tuples(fused) == sorted(as_tuples(fused), key=lambda one: (-one[1], one[0]))


def test_equal_scores_are_ordered_by_item_number():
    assert reciprocal_rank_fusion([[5, 2], [2, 5]]).items.tolist() == [2, 5]


def test_one_list_keeps_its_order_and_no_list_gives_an_empty_ranking():
    assert reciprocal_rank_fusion([[9, 1, 5]]).items.tolist() == [9, 1, 5]
    assert as_tuples(reciprocal_rank_fusion([])) == []
    assert as_tuples(reciprocal_rank_fusion([[], []])) == []


def test_a_repeated_item_counts_at_its_first_rank():
    assert as_tuples(reciprocal_rank_fusion([[4, 4, 6]])) == [(4, 1 / 61, [1]), (6, 1 / 63, [3])]


def test_number_of_weights_must_equal_number_of_lists():
    with pytest.raises(ValueError, match="zip"):
        reciprocal_rank_fusion([[1], [1]], weights=[1.0])

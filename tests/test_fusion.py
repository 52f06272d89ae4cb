"""Reciprocal-rank fusion against its closed form."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.catalog.fusion import Fused, reciprocal_rank_fusion

RANKING = st.lists(st.integers(0, 30), unique=True, max_size=20)


def test_two_lists_by_hand():
    assert reciprocal_rank_fusion([[7, 3], [3, 9]], constant=60) == [
        Fused(3, 1 / 62 + 1 / 61, (2, 1)),
        Fused(7, 1 / 61, (1, None)),
        Fused(9, 1 / 62, (None, 2)),
    ]


@given(lists=st.lists(RANKING, max_size=4), data=st.data())
def test_every_item_of_any_list_has_the_published_score_and_stands_in_its_order(lists, data):
    weights = data.draw(st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=len(lists), max_size=len(lists)))
    fused = reciprocal_rank_fusion(lists, weights=weights, constant=10)

    def exact(item):
        places = [(weight, one.index(item) + 1) for weight, one in zip(weights, lists, strict=True) if item in one]
        return sum((Fraction(weight) / (10 + rank) for weight, rank in places), Fraction(0))

    assert {one.item for one in fused} == set().union(*lists)
    for one in fused:
        assert one.score == pytest.approx(float(exact(one.item)), rel=1e-12)
        assert one.ranks == tuple(ranking.index(one.item) + 1 if one.item in ranking else None for ranking in lists)
    assert [one.item for one in fused] == [one.item for one in sorted(fused, key=lambda one: (-one.score, one.item))]


def test_equal_scores_stand_by_item_number():
    assert [one.item for one in reciprocal_rank_fusion([[5, 2], [2, 5]])] == [2, 5]


def test_one_list_keeps_its_order_and_none_gives_none():
    assert [one.item for one in reciprocal_rank_fusion([[9, 1, 5]])] == [9, 1, 5]
    assert reciprocal_rank_fusion([]) == []
    assert reciprocal_rank_fusion([[], []]) == []


def test_an_item_that_is_in_a_list_twice_counts_at_its_first_place():
    assert reciprocal_rank_fusion([[4, 4, 6]])[0] == Fused(4, 1 / 61, (1,))


def test_weights_are_one_for_each_list():
    with pytest.raises(ValueError, match="zip"):
        reciprocal_rank_fusion([[1], [1]], weights=[1.0])

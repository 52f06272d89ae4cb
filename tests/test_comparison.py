"""Whether training helped follows from paired differences and their intervals."""

import numpy as np
import pytest

from retrieval.metrics import Ranks, Relevance
from retrieval.metrics.intervals import Estimate, paired_difference
from retrieval.train.validation.comparison import AnswerRanks, Comparison, compare_recalls, conclude


def ranks(better, *, targets=100):
    better = np.array(better, np.int64)
    ones = np.ones_like(better)
    return Ranks(better, ones, ones, ones, 1 / (better + 1.0), targets)


class FakeCollection:
    """As many items as queries, both ways."""

    def __init__(self, count):
        numbers = np.arange(count)
        self.item_texts = self.item_images = Relevance.from_pairs(numbers, numbers, queries=count, targets=count)


def test_answer_ranks_round_trip_and_a_damaged_file_is_none(tmp_path):
    places = AnswerRanks(ranks([0, 3, 7]), ranks([2, 2, 50], targets=80))
    places.save(tmp_path / "start.npz")
    again = AnswerRanks.load(tmp_path / "start.npz")
    assert again is not None
    assert again.text_to_image.first_rank().tolist() == [1, 4, 8]
    assert again.image_to_text.better.tolist() == [2, 2, 50]
    assert again.image_to_text.targets == 80
    assert AnswerRanks.load(tmp_path / "none.npz") is None
    (tmp_path / "start.npz").write_bytes((tmp_path / "start.npz").read_bytes()[:100])
    assert AnswerRanks.load(tmp_path / "start.npz") is None


def test_comparisons_are_paired_differences_with_intervals():
    """60 of 100 queries right before, the same and 15 more after: +15.0, and an interval without zero."""
    before, after = ranks([0] * 60 + [40] * 40), ranks([0] * 75 + [40] * 25)
    changed = compare_recalls(AnswerRanks(before, before), AnswerRanks(after, before), FakeCollection(100))
    one = changed["text_to_image_recall@1"]
    expected = paired_difference(before.recall(1), after.recall(1), items=np.arange(100))
    assert one.difference == expected
    assert (one.before.value, one.after.value) == (0.6, 0.75)
    assert one.before.low < 0.6 < one.before.high
    assert expected.value == pytest.approx(0.15)
    assert expected.low > 0
    assert changed["image_to_text_recall@5"].difference == Estimate(0, 0, 0)


def one_change(value, low, high):
    return Comparison(Estimate(0.412, 0, 1), Estimate(0.412 + value, 0, 1), Estimate(value, low, high))


def change(*there, back=(0.0, -0.1, 0.1)):
    return {"text_to_image_recall@1": one_change(*there), "image_to_text_recall@1": one_change(*back)}


HELPED = "Training helped: text→image R@1 41.2 → 46.8, +5.6 (95 % interval +3.9 to +7.4)"
HARMED = "Training did harm: text→image R@1 41.2 → 31.2, -10.0 (95 % interval -15.0 to -5.0)"
UNTOLD = (
    "It is unknown whether training helped: text→image R@1 41.2 → 41.6, +0.4 (95 % interval -0.2 to +1.0): "
    "the interval contains zero"
)
LOSS = (-0.08, -0.12, -0.04)
LOST = "image→text R@1 41.2 → 33.2, -8.0 (95 % interval -12.0 to -4.0)"
ALONE = (
    "It is unknown whether training helped: text→image R@1 41.2 → 100.0, +58.8 (no interval): "
    "all validation pairs are of one item"
)
KEPT = (
    "Training did not help: no model was better than the start, which is kept: "
    "text→image R@1 41.2 → 41.2, +0.0 (95 % interval +0.0 to +0.0)"
)
UNMEASURED = "It is unknown whether training helped: nothing was held out"


@pytest.mark.parametrize(
    ("changed", "best_step", "told"),
    [
        (change(0.056, 0.039, 0.074), 7, HELPED),
        (change(0.004, -0.002, 0.01), 7, UNTOLD),
        (change(-0.1, -0.15, -0.05), 7, HARMED),
        (change(0.056, 0.039, 0.074, back=LOSS), 7, f"{HELPED}, but {LOST}"),
        (change(0.004, -0.002, 0.01, back=LOSS), 7, f"{UNTOLD}, but {LOST}"),
        (change(-0.1, -0.15, -0.05, back=LOSS), 7, f"{HARMED}, and {LOST}"),
        (change(0.0, 0.0, 0.0), 0, KEPT),
        (change(0.588, np.nan, np.nan), 7, ALONE),
        ({}, 7, UNMEASURED),
    ],
)
def test_the_conclusion_follows_from_the_interval(changed, best_step, told):
    assert conclude(changed, best_step=best_step, why_unknown="nothing was held out") == f"{told}."

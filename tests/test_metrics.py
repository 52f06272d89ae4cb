"""Ranks, recall, reciprocal rank and AP@R against the enumeration of every order of the tied."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import metrics
from retrieval.errors import EvaluationError
from retrieval.metrics import KS, Ranks, Relevance, find_duplicate_rows, rank


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_rows(count, dimension=16, *, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)))


def rows_of_scores(scores):
    """Rows whose inner products are exactly these: each target is a unit vector, each query its row of scores."""
    scores = np.asarray(scores, np.float32)
    return scores, np.eye(scores.shape[1], dtype=np.float32)


def measure_recalls(images, texts, image_of_text, ks=KS):
    """Recall@K in both directions, by name."""
    matches = Relevance.from_pairs(np.arange(len(texts)), image_of_text, queries=len(texts), targets=len(images))
    captioned = np.flatnonzero(matches.transpose().answers)
    ways = {
        "text_to_image": rank(texts, images, matches),
        "image_to_text": rank(images[captioned], texts, matches.transpose().take(captioned)),
    }
    return {f"{way}_recall@{k}": float(ranks.recall(k).mean()) for way, ranks in ways.items() for k in ks}


def relevance(right_of_query, targets):
    pairs = [(query, target) for query, right in enumerate(right_of_query) for target in right]
    query, target = np.array(pairs, np.int64).reshape(-1, 2).T
    return Relevance.from_pairs(query, target, queries=len(right_of_query), targets=targets)


def random_baseline(answers, targets):
    """The ranks in random order of one query with so many relevant targets."""
    count = np.array([answers])
    return Ranks(count, count, count, count, np.zeros(1), targets).random_baseline()


def orders(scores):
    """Every order of the targets that the scores allow, each as likely as any other."""
    numbers = range(len(scores))
    return [order for order in permutations(numbers) if all(scores[a] >= scores[b] for a, b in pairwise(order))]


def definition(order, right, k):
    """Hit within k, rank of the first right one, its reciprocal, and AP@R, from one order, by their definitions."""
    hits = [target in right for target in order]
    first = hits.index(True) + 1
    precision = [sum(hits[:i]) / i for i in range(1, len(right) + 1) if hits[i - 1]]
    return any(hits[:k]), first, 1 / first, sum(precision) / len(right)


@st.composite
def queries(draw):
    count = draw(st.integers(1, 6))
    scores = draw(st.lists(st.sampled_from([-0.5, 0.0, 0.25, 1.0]), min_size=count, max_size=count))
    right = draw(st.sets(st.integers(0, count - 1), min_size=1))
    return scores, right, draw(st.integers(1, count + 2))


@settings(max_examples=150, deadline=None)
@given(queries())
def test_every_metric_is_its_mean_over_all_orders_of_tied_targets(query):
    scores, right, k = query
    ranks = rank(*rows_of_scores([scores]), relevance([right], len(scores)))
    measured = (ranks.recall(k), ranks.first_rank(), ranks.reciprocal_rank(), ranks.average_precision)
    expected = np.mean([definition(order, right, k) for order in orders(scores)], axis=0)
    assert np.concatenate(measured) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_block_size_and_number_of_queries_change_no_metric(data):
    """Queries ranked together, a row at a time, equal each query ranked alone."""
    targets = data.draw(st.integers(1, 6))
    count = data.draw(st.integers(1, 7))
    grid = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=targets, max_size=targets)
    scores = data.draw(st.lists(grid, min_size=count, max_size=count))
    subset = st.sets(st.integers(0, targets - 1), min_size=1)
    right = data.draw(st.lists(subset, min_size=count, max_size=count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK_BYTES", 1)
        together = rank(*rows_of_scores(scores), relevance(right, targets))
    alone = [rank(*rows_of_scores([scores[q]]), relevance([right[q]], targets)) for q in range(count)]
    for name in ("better", "tied", "right", "answers", "average_precision"):
        assert getattr(together, name).tolist() == [getattr(ranks, name)[0] for ranks in alone]


def their_recall(scores, positive, k):
    """CLIP_benchmark's recall_at_k followed by its `> 0`, from its definition: the top k hold a positive."""
    top = np.argsort(-scores, axis=1)[:, :k]
    return float(np.mean([positive[q, top[q]].sum() > 0 for q in range(len(scores))]))


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_without_ties_is_that_of_clip_benchmark(k):
    images, texts = random_rows(40), random_rows(200, seed=1)
    image_of_text = np.random.default_rng(2).permutation(np.repeat(np.arange(40), 5))
    positive = image_of_text[:, None] == np.arange(40)
    scores = texts.astype(np.float64) @ images.astype(np.float64).T
    measured = measure_recalls(images, texts, image_of_text)
    assert measured[f"text_to_image_recall@{k}"] == pytest.approx(their_recall(scores, positive, k))
    assert measured[f"image_to_text_recall@{k}"] == pytest.approx(their_recall(scores.T, positive.T, k))


def test_a_collapsed_encoder_scores_exactly_the_random_baseline():
    """Every image and text at one vector: the rows' own order, in which all pairs match, gains nothing."""
    images, texts = np.repeat(random_rows(1, 37), 30, axis=0), np.repeat(random_rows(1, 37, seed=1), 90, axis=0)
    right = Relevance.from_pairs(np.arange(90), np.arange(90) // 3, queries=90, targets=30)
    for ranks in (rank(texts, images, right), rank(images, texts, right.transpose())):
        baseline = ranks.random_baseline()
        for k in (1, 5, 10, 200):
            assert ranks.recall(k).tolist() == baseline.recall(k).tolist()
        assert ranks.first_rank().tolist() == baseline.first_rank().tolist()
        assert ranks.reciprocal_rank().tolist() == baseline.reciprocal_rank().tolist()
        assert ranks.average_precision.tolist() == baseline.average_precision.tolist()


def test_the_random_baseline_is_the_mean_over_random_orders():
    """Five right among 40: 20,000 random orders agree with the closed forms within four standard errors."""
    random = np.random.default_rng(0)
    hits = random.permuted(np.tile(np.arange(40) < 5, (20_000, 1)), axis=1)
    first = hits.argmax(axis=1) + 1
    precision = (np.cumsum(hits, axis=1) / np.arange(1, 41) * hits)[:, :5].sum(axis=1) / 5
    baseline = random_baseline(5, 40)
    for drawn, exact in (
        (first <= 3, baseline.recall(3)),
        (first <= 10, baseline.recall(10)),
        (first, baseline.first_rank()),
        (1 / first, baseline.reciprocal_rank()),
        (precision, baseline.average_precision),
    ):
        assert abs(drawn.mean() - exact[0]) < 4 * drawn.std() / np.sqrt(len(drawn))


def test_the_random_baseline_of_one_relevant_target_is_k_of_n():
    baseline = random_baseline(1, 300)
    assert [baseline.recall(k)[0] for k in (1, 10, 300)] == pytest.approx([1 / 300, 10 / 300, 1])
    assert baseline.first_rank()[0] == 150.5
    assert baseline.average_precision[0] == pytest.approx(1 / 300)


def test_recall_is_accurate_with_many_ties():
    """100,000 tied, 1,000 right, 10 taken: against the product of exact integer ratios."""
    baseline = random_baseline(1000, 100_000)
    miss = np.prod([(99_000 - i) / (100_000 - i) for i in range(10)])
    assert baseline.recall(10)[0] == pytest.approx(1 - miss, rel=1e-12)
    assert baseline.recall(99_001)[0] == 1.0


def test_reciprocal_rank_is_accurate_behind_many_better_targets():
    """A tied group behind 10,000 better targets, all but two of it right: against the sum by definition."""
    ranks = Ranks(*(np.array([x]) for x in (10_000, 50, 48, 48)), np.zeros(1), 20_000)
    chances = {1: 48 / 50, 2: 2 / 50 * 48 / 49, 3: 2 / 50 * 1 / 49}
    assert ranks.reciprocal_rank()[0] == pytest.approx(sum(p / (10_000 + j) for j, p in chances.items()), rel=1e-13)


@pytest.mark.parametrize("dimension", [3, 37, 512])
@pytest.mark.parametrize("count", [2, 15, 130])
def test_equal_targets_tie_at_any_position(dimension, count):
    """A matrix product may round the same pair differently in its last columns; copies still tie."""
    distinct = random_rows(count, dimension)
    copies = np.random.default_rng(1).permutation(np.repeat(np.arange(count), 7))
    right = Relevance.from_pairs(
        np.arange(count), [np.flatnonzero(copies == q)[0] for q in range(count)], queries=count, targets=len(copies)
    )
    ranks = rank(distinct, distinct[copies], right)
    assert ranks.better.tolist() == [0] * count
    assert ranks.tied.tolist() == [7] * count
    assert ranks.recall(1) == pytest.approx(np.full(count, 1 / 7))


def test_find_duplicate_rows_returns_the_first_original_and_treats_minus_zero_as_zero():
    rows = np.array([[1, 0], [0, 1], [1, -0.0], [0, 1], [1, 1e-7]], np.float32)
    copies, originals = find_duplicate_rows(rows)
    assert (copies.tolist(), originals.tolist()) == ([2, 3], [0, 1])


def test_find_duplicate_rows_is_right_when_keys_collide(monkeypatch):
    """With every key the same, rows are still told apart by what they hold."""

    class Zeros:
        def integers(self, *_, size, dtype):
            return np.zeros(size, dtype)

    monkeypatch.setattr(np.random, "default_rng", lambda _: Zeros())
    copies, originals = find_duplicate_rows(np.array([[1, 0], [0, 1], [1, 0]], np.float32))
    assert (copies.tolist(), originals.tolist()) == ([2], [0])


def test_repeated_pairs_count_once_and_transposing_twice_is_the_identity():
    right = Relevance.from_pairs([0, 1, 1, 0], [2, 0, 1, 2], queries=2, targets=4)
    assert right.answers.tolist() == [1, 2]
    assert right.transpose().answers.tolist() == [1, 1, 1, 0]
    back = right.transpose().transpose()
    assert (back.offsets.tolist(), back.ids.tolist(), back.targets) == ([0, 1, 3], [2, 0, 1], 4)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_compose_is_a_product_of_boolean_matrices(data):
    first = data.draw(st.lists(st.sets(st.integers(0, 3)), min_size=1, max_size=4))
    second = data.draw(st.lists(st.sets(st.integers(0, 4)), min_size=4, max_size=4))
    reached = relevance(first, 4).compose(relevance(second, 5))
    expected = [sorted(set().union(*(second[middle] for middle in targets))) for targets in first]
    assert [part.tolist() for part in np.split(reached.ids, reached.offsets[1:-1])] == expected


def test_a_single_pair_has_full_recall():
    row = random_rows(1)
    assert set(measure_recalls(row, row, [0]).values()) == {1.0}


def test_images_without_a_text_are_ranked_but_are_no_queries():
    images = np.eye(4, dtype=np.float32)
    recalls = measure_recalls(images, images[:2], [0, 3], ks=(1,))
    assert recalls == {"text_to_image_recall@1": 0.5, "image_to_text_recall@1": 0.75}


def test_a_shared_text_is_relevant_to_each_of_its_images():
    images, texts = np.eye(3, dtype=np.float32), np.array([[0, 1, 0], [0, 0, 1]], np.float32)
    right = Relevance.from_pairs([0, 0, 1], [0, 1, 2], queries=2, targets=3)
    assert rank(texts, images, right).recall(1).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nan_vector_is_an_error(bad):
    rows = random_rows(3)
    rows[1, 2] = bad
    with pytest.raises(EvaluationError, match="contains NaN or infinity"):
        measure_recalls(rows, random_rows(3), [0, 1, 2])


@pytest.mark.parametrize(
    ("images", "texts", "image_of_text", "message"),
    [
        (random_rows(3), random_rows(3, 8), [0, 1, 2], "dimension 8, targets 16"),
        (random_rows(3), random_rows(3), [0, 1, 3], "outside 0 to 2"),
        (random_rows(3), random_rows(3), [0, 1, -1], "outside 0 to 2"),
        (random_rows(3), random_rows(0), [], "needs a relevant target"),
        (random_rows(3)[0], random_rows(3), [0, 0, 0], "a matrix"),
    ],
)
def test_mismatched_inputs_are_an_error_with_the_reason(*, images, texts, image_of_text, message):
    with pytest.raises(EvaluationError, match=message):
        measure_recalls(images, texts, image_of_text)


def test_a_query_without_relevant_targets_and_a_mismatched_relevance_are_errors():
    rows = random_rows(3)
    with pytest.raises(EvaluationError, match="Every query needs a relevant target"):
        rank(rows, rows, Relevance.from_pairs([0, 1], [0, 1], queries=3, targets=3))
    with pytest.raises(EvaluationError, match="relevance is of 2 queries and 3 targets"):
        rank(rows, rows, Relevance.from_pairs([0, 1], [0, 1], queries=2, targets=3))

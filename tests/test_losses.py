"""The losses against closed forms, a loop in plain Python, open_clip's own loss and numeric gradients."""

import math

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch.nn import functional

from retrieval.train.losses import contrastive, sigmoid, triplet


def rows(count: int, *, dimension: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, dimension, generator=generator, dtype=torch.float64), dim=1)


def by_hand(images: torch.Tensor, texts: torch.Tensor, *, scale: float, positives: torch.Tensor) -> float:
    """The documented formula, term by term."""
    score = [[scale * float(image @ text) for text in texts] for image in images]
    count = len(score)

    def term(own: float, wrong: list[float]) -> float:
        return -math.log(math.exp(own) / (math.exp(own) + sum(map(math.exp, wrong))))

    there = [
        term(score[i][i], [score[i][j] for j in range(count) if j != i and not positives[i, j]]) for i in range(count)
    ]
    back = [
        term(score[j][j], [score[i][j] for i in range(count) if i != j and not positives[i, j]]) for j in range(count)
    ]
    return (sum(there) + sum(back)) / (2 * count)


def test_equal_rows_have_a_loss_of_the_logarithm_of_the_batch_size():
    same = rows(1).expand(8, -1)
    assert contrastive(same, same, scale=torch.tensor(17.0)).item() == pytest.approx(math.log(8))


def test_orthogonal_pairs_have_the_closed_form_loss():
    """With s_ii = scale and all extra 0 each term is log(1 + (b - 1) exp(-scale))."""
    eye = torch.eye(5, dtype=torch.float64)
    expected = math.log(1 + 4 * math.exp(-3.0))
    assert contrastive(eye, eye, scale=torch.tensor(3.0)).item() == pytest.approx(expected, rel=1e-12)


def test_without_extra_positives_contrastive_equals_open_clip_s_clip_loss():
    images, texts, scale = rows(9), rows(9, seed=1), torch.tensor(14.0, dtype=torch.float64)
    assert contrastive(images, texts, scale=scale).item() == pytest.approx(
        ClipLoss()(images, texts, scale).item(), rel=1e-12
    )


def test_masked_positives_are_left_out_of_the_sums():
    images, texts = rows(6), rows(6, seed=1)
    positives = torch.eye(6, dtype=torch.bool)
    positives[0, 3] = positives[2, 4] = positives[4, 2] = True  # one of them holds in one direction only
    result = contrastive(images, texts, scale=torch.tensor(8.0), positives=positives)
    assert result.item() == pytest.approx(by_hand(images, texts, scale=8.0, positives=positives), rel=1e-12)


def test_the_diagonal_is_positive_whatever_the_matrix_says():
    images, texts = rows(4), rows(4, seed=1)
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    assert contrastive(images, texts, scale=torch.tensor(5.0), positives=nothing) == contrastive(
        images, texts, scale=torch.tensor(5.0)
    )


def test_masked_positives_have_no_gradient():
    """The gradient of the first image has no part of the second's text where that is right for it too."""
    images, texts = rows(2).requires_grad_(), rows(2, seed=1)
    positives = torch.ones(2, 2, dtype=torch.bool)
    loss = contrastive(images, texts, scale=torch.tensor(9.0), positives=positives)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(images.grad, torch.zeros_like(images))


def test_a_batch_of_one_pair_has_no_loss():
    assert contrastive(rows(1), rows(1, seed=1), scale=torch.tensor(100.0)).item() == 0


@pytest.mark.parametrize("shared", [False, True])
def test_the_contrastive_gradient_is_the_numeric_one(shared):
    positives = torch.eye(5, dtype=torch.bool)
    positives[1, 2] = positives[3, 0] = shared
    inputs = (
        rows(5).requires_grad_(),
        rows(5, seed=1).requires_grad_(),
        torch.tensor(4.0, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda i, t, s: contrastive(i, t, scale=s, positives=positives), inputs)


def test_the_largest_scale_stays_finite_in_single_precision():
    images, texts = rows(64).float(), -rows(64).float()
    loss = contrastive(images, texts, scale=torch.tensor(100.0))
    assert torch.isfinite(loss)
    assert loss.item() > 50


def shared(count: int, *pairs: tuple[int, int]) -> torch.Tensor:
    """The diagonal, and these besides."""
    matrix = torch.eye(count, dtype=torch.bool)
    for image, text in pairs:
        matrix[image, text] = True
    return matrix


def test_a_shared_target_is_spread_evenly_over_the_positives():
    """Each direction is a cross-entropy against targets that lie evenly on what is right."""
    images, texts, positives = rows(6), rows(6, seed=1), shared(6, (0, 3), (2, 4), (2, 5))
    scores = 8.0 * images @ texts.T
    there, back = (
        functional.cross_entropy(way, known.double() / known.sum(1, keepdim=True))
        for way, known in ((scores, positives), (scores.T, positives.T))
    )
    result = contrastive(images, texts, scale=torch.tensor(8.0), positives=positives, extra="share")
    assert result.item() == pytest.approx(((there + back) / 2).item(), rel=1e-12)


def test_for_equal_texts_share_equals_own():
    """The pulls of two images on one text add up to the same, shared out or not: only leaving out differs."""
    images, texts = rows(6), rows(6, seed=1)
    texts[3], texts[5] = texts[0], texts[0]
    positives = shared(6, *((one, other) for one in (0, 3, 5) for other in (0, 3, 5)))
    ways = [
        contrastive(images, texts, scale=torch.tensor(8.0), positives=positives, extra=extra).item()
        for extra in ("share", "own", "mask")
    ]
    assert ways[0] == pytest.approx(ways[1], rel=1e-12)
    assert ways[2] < ways[1]


def test_own_ignores_extra_positives():
    images, texts, positives = rows(5), rows(5, seed=1), shared(5, (0, 1), (4, 2))
    scale, bias = torch.tensor(6.0), torch.tensor(-3.0)
    for loss, settings in (
        (contrastive, {"scale": scale}),
        (sigmoid, {"scale": scale, "bias": bias}),
        (triplet, {"margin": 0.3}),
    ):
        assert loss(images, texts, positives=positives, extra="own", **settings) == loss(images, texts, **settings)


def test_label_smoothing_is_that_of_cross_entropy():
    images, texts = rows(7), rows(7, seed=1)
    scores = 9.0 * images @ texts.T
    own = torch.arange(7)
    expected = sum(functional.cross_entropy(way, own, label_smoothing=0.2) for way in (scores, scores.T)) / 2
    result = contrastive(images, texts, scale=torch.tensor(9.0), smoothing=0.2)
    assert result.item() == pytest.approx(expected.item(), rel=1e-12)


def test_label_smoothing_skips_masked_positives():
    """Two images with one text: whatever the smoothing, there is nothing to tell apart."""
    images, texts = rows(2), rows(2, seed=1)
    positives = torch.ones(2, 2, dtype=torch.bool)
    assert contrastive(
        images, texts, scale=torch.tensor(9.0), positives=positives, smoothing=0.3
    ).item() == pytest.approx(0, abs=1e-12)


def test_without_extra_positives_sigmoid_equals_open_clip_s_siglip_loss():
    images, texts = rows(9), rows(9, seed=1)
    scale, bias = torch.tensor(11.0, dtype=torch.float64), torch.tensor(-6.0, dtype=torch.float64)
    expected = SigLipLoss(rank=0, world_size=1)(images, texts, scale, bias)
    assert sigmoid(images, texts, scale=scale, bias=bias).item() == pytest.approx(expected.item(), rel=1e-12)


def test_orthogonal_pairs_have_the_closed_form_sigmoid_loss():
    """A right pair costs log(1 + exp(-(scale + bias))), each of the b - 1 wrong ones log(1 + exp(bias))."""
    eye = torch.eye(5, dtype=torch.float64)
    loss = sigmoid(eye, eye, scale=torch.tensor(4.0), bias=torch.tensor(-1.0))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-3.0)) + 4 * math.log1p(math.exp(-1.0)), rel=1e-12)


@pytest.mark.parametrize(("extra", "sign"), [("share", -1), ("own", 1)])
def test_an_extra_positive_is_masked_in_the_sigmoid_loss_or_counts_as_right_or_wrong(extra, sign):
    images, texts, positives = rows(4), rows(4, seed=1), shared(4, (1, 3))
    settings = {"scale": torch.tensor(5.0), "bias": torch.tensor(-2.0), "positives": positives}
    score = 5.0 * float(images[1] @ texts[3]) - 2.0
    left_out = sigmoid(images, texts, **settings).item()
    term = math.log1p(math.exp(sign * score)) / 4
    assert sigmoid(images, texts, extra=extra, **settings).item() == pytest.approx(left_out + term, rel=1e-12)


def test_triplet_takes_the_hardest_negative_of_each_row_and_column():
    """Scores by hand: images are unit vectors, so the scores are the texts' own numbers."""
    texts = torch.tensor(
        [[0.9, 0.8, 0.1], [0.1, 0.7, 0.2], [0.3, 0.6, 0.5]], dtype=torch.float64
    ).T  # scores, as they are
    images = torch.eye(3, dtype=torch.float64)
    there = [max(0, 0.25 + 0.8 - 0.9), max(0, 0.25 + 0.2 - 0.7), max(0, 0.25 + 0.6 - 0.5)]
    back = [max(0, 0.25 + 0.3 - 0.9), max(0, 0.25 + 0.8 - 0.7), max(0, 0.25 + 0.2 - 0.5)]
    assert triplet(images, texts, margin=0.25).item() == pytest.approx((sum(there) + sum(back)) / 3, rel=1e-12)


def test_positives_are_never_the_hardest_negative():
    texts = torch.tensor([[0.9, 0.8, 0.1], [0.1, 0.7, 0.2], [0.3, 0.6, 0.5]], dtype=torch.float64).T
    images, positives = torch.eye(3, dtype=torch.float64), shared(3, (0, 1), (2, 1))
    there = [max(0, 0.25 + 0.1 - 0.9), max(0, 0.25 + 0.2 - 0.7), max(0, 0.25 + 0.3 - 0.5)]
    back = [max(0, 0.25 + 0.3 - 0.9), 0, max(0, 0.25 + 0.2 - 0.5)]  # every image is right for the second text
    assert triplet(images, texts, margin=0.25, positives=positives).item() == pytest.approx(
        (sum(there) + sum(back)) / 3
    )


def test_without_negatives_triplet_has_no_loss_and_no_gradient():
    images, texts = rows(3).requires_grad_(), rows(3, seed=1)
    loss = triplet(images, texts, margin=0.2, positives=torch.ones(3, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(images.grad, torch.zeros_like(images))


LOSSES = {
    "contrastive": (contrastive, {"scale": torch.tensor(7.0, dtype=torch.float64)}),
    "sigmoid": (
        sigmoid,
        {"scale": torch.tensor(7.0, dtype=torch.float64), "bias": torch.tensor(-4.0, dtype=torch.float64)},
    ),
    "triplet": (triplet, {"margin": 0.4}),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("extra", ["mask", "share", "own"])
def test_equal_weights_change_nothing(name, extra):
    loss, settings = LOSSES[name]
    images, texts, positives = rows(6), rows(6, seed=1), shared(6, (0, 1), (3, 5))
    plain = loss(images, texts, positives=positives, extra=extra, **settings)
    weighted = loss(images, texts, positives=positives, extra=extra, weights=torch.full((6,), 3.0), **settings)
    assert weighted.item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_weighted_loss_is_the_weighted_mean_over_pairs(name):
    """With all weight on one pair after the other, and their mean: the loss is linear in the shares of the weight."""
    loss, settings = LOSSES[name]
    images, texts = rows(5), rows(5, seed=1)
    alone = [loss(images, texts, weights=weight, **settings).item() for weight in torch.eye(5, dtype=torch.float64)]
    assert sum(alone) / 5 == pytest.approx(loss(images, texts, **settings).item(), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_zero_weights_give_zero_loss(name):
    loss, settings = LOSSES[name]
    assert loss(rows(3), rows(3, seed=1), weights=torch.zeros(3, dtype=torch.float64), **settings).item() == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("extra", ["mask", "share", "own"])
def test_every_loss_has_the_numeric_gradient(name, extra):
    loss, settings = LOSSES[name]
    positives, weights = shared(5, (1, 2), (3, 0)), torch.tensor([1.0, 2.0, 0.5, 1.5, 3.0], dtype=torch.float64)
    inputs = rows(5).requires_grad_(), rows(5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda i, t: loss(i, t, positives=positives, extra=extra, weights=weights, **settings), inputs
    )

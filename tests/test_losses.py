"""The losses against closed forms, a loop in plain Python, open_clip's own loss and numeric gradients."""

import math

import pytest
import torch
from open_clip.loss import ClipLoss
from torch.nn import functional

from retrieval.train.losses import contrastive


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


def test_rows_that_are_all_alike_cost_the_logarithm_of_the_batch():
    same = rows(1).expand(8, -1)
    assert contrastive(same, same, scale=torch.tensor(17.0)).item() == pytest.approx(math.log(8))


def test_orthogonal_pairs_cost_what_the_temperature_leaves():
    """With s_ii = scale and all others 0 each term is log(1 + (b - 1) exp(-scale))."""
    eye = torch.eye(5, dtype=torch.float64)
    expected = math.log(1 + 4 * math.exp(-3.0))
    assert contrastive(eye, eye, scale=torch.tensor(3.0)).item() == pytest.approx(expected, rel=1e-12)


def test_without_shared_texts_it_is_the_loss_of_open_clip():
    images, texts, scale = rows(9), rows(9, seed=1), torch.tensor(14.0, dtype=torch.float64)
    assert contrastive(images, texts, scale=scale).item() == pytest.approx(
        ClipLoss()(images, texts, scale).item(), rel=1e-12
    )


def test_other_right_texts_are_left_out_of_the_sums():
    images, texts = rows(6), rows(6, seed=1)
    positives = torch.eye(6, dtype=torch.bool)
    positives[0, 3] = positives[2, 4] = positives[4, 2] = True  # one of them holds in one direction only
    result = contrastive(images, texts, scale=torch.tensor(8.0), positives=positives)
    assert result.item() == pytest.approx(by_hand(images, texts, scale=8.0, positives=positives), rel=1e-12)


def test_the_diagonal_is_right_whatever_the_matrix_says():
    images, texts = rows(4), rows(4, seed=1)
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    assert contrastive(images, texts, scale=torch.tensor(5.0), positives=nothing) == contrastive(
        images, texts, scale=torch.tensor(5.0)
    )


def test_pictures_with_one_text_are_not_pushed_away_from_it():
    """The gradient of the first picture has no part of the second's text where that is right for it too."""
    images, texts = rows(2).requires_grad_(), rows(2, seed=1)
    positives = torch.ones(2, 2, dtype=torch.bool)
    loss = contrastive(images, texts, scale=torch.tensor(9.0), positives=positives)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(images.grad, torch.zeros_like(images))


def test_one_pair_alone_costs_nothing():
    assert contrastive(rows(1), rows(1, seed=1), scale=torch.tensor(100.0)).item() == 0


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_is_the_numeric_one(shared):
    positives = torch.eye(5, dtype=torch.bool)
    positives[1, 2] = positives[3, 0] = shared
    inputs = (
        rows(5).requires_grad_(),
        rows(5, seed=1).requires_grad_(),
        torch.tensor(4.0, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda i, t, s: contrastive(i, t, scale=s, positives=positives), inputs)


def test_the_largest_temperature_stays_finite_in_single_precision():
    images, texts = rows(64).float(), -rows(64).float()
    loss = contrastive(images, texts, scale=torch.tensor(100.0))
    assert torch.isfinite(loss)
    assert loss.item() > 50

"""The chunked losses equal the plain ones in value and gradient at any chunk size, in memory that does not square."""

import subprocess
import sys

import plain_losses
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from retrieval.train import losses
from retrieval.train.losses import EXTRA_POSITIVES, Positives

KINDS = ("contrastive", "sigmoid", "triplet")


@st.composite
def cases(draw):
    """A batch of any size, its texts drawn from few so that many are right for several images, and a chunk size."""
    size = draw(st.integers(1, 14))
    texts = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    right = [sorted({text, *draw(st.lists(st.integers(0, 12), max_size=3))}) for text in texts]
    return Positives.from_texts(texts, right), draw(st.integers(1, 16)), draw(st.integers(0, 2**31))


def batch(size, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    images, texts = (
        functional.normalize(torch.randn(size, 5, generator=generator, dtype=dtype), dim=1).requires_grad_()
        for _ in range(2)
    )
    weights = torch.rand(size, generator=generator, dtype=dtype)
    return images, texts, weights


def value_and_gradients(loss, inputs, **options):
    result = loss(*inputs[:2], **options)
    wanted = [tensor for tensor in (*inputs, options.get("scale"), options.get("bias")) if tensor is not None]
    return [result.detach(), *torch.autograd.grad(2 * result, [tensor for tensor in wanted if tensor.requires_grad])]


def options_of(kind, *, smoothing, dtype=torch.float64):
    scale = torch.tensor(9.0, dtype=dtype, requires_grad=True)
    bias = torch.tensor(-3.0, dtype=dtype, requires_grad=True)
    return {
        "contrastive": {"scale": scale, "smoothing": smoothing},
        "sigmoid": {"scale": scale, "bias": bias},
        "triplet": {"margin": 0.3},
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120, deadline=None)
@given(cases(), st.sampled_from(EXTRA_POSITIVES), st.sampled_from([0.0, 0.15]), st.booleans())
def test_any_chunk_size_gives_the_value_and_gradients_of_the_plain_loss(kind, case, extra, smoothing, weighted):
    positives, chunk, seed = case
    images, texts, weights = batch(len(positives), seed)
    options = options_of(kind, smoothing=smoothing) | {"extra": extra, "weights": weights if weighted else None}
    plain, ours = getattr(plain_losses, kind), getattr(losses, kind)
    whole = value_and_gradients(plain, (images, texts), positives=positives.rows(0, len(positives)), **options)
    parts = value_and_gradients(ours, (images, texts), positives=positives, chunk=chunk, **options)
    for mine, theirs in zip(parts, whole, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_chunked_and_plain_losses_agree_without_positives_in_single_precision(kind):
    images, texts, _ = batch(40, 3, torch.float32)
    options = options_of(kind, smoothing=0.0, dtype=torch.float32)
    whole = value_and_gradients(getattr(losses, kind), (images, texts), **options)
    parts = value_and_gradients(getattr(losses, kind), (images, texts), chunk=7, **options)
    for mine, theirs in zip(parts, whole, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_rows_have_one_hardest_negative_each_way(kind):
    """Ties: the first of equals is the hardest, in chunks as in the whole."""
    images, texts = (torch.ones(6, 4, dtype=torch.float64).div(2).requires_grad_() for _ in range(2))
    options = options_of(kind, smoothing=0.0)
    whole = value_and_gradients(getattr(losses, kind), (images, texts), **options)
    parts = value_and_gradients(getattr(losses, kind), (images, texts), chunk=4, **options)
    for mine, theirs in zip(parts, whole, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


@st.composite
def batches_of_texts(draw):
    size = draw(st.integers(1, 12))
    texts = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    right = [sorted({text, *draw(st.lists(st.integers(0, 8), max_size=4))}) for text in texts]
    return texts, right


@settings(max_examples=200, deadline=None)
@given(batches_of_texts())
def test_the_positives_matrix_marks_each_image_s_right_texts(case):
    texts, right = case
    expected = [[text in allowed for text in texts] for allowed in right]
    assert Positives.from_texts(texts, right).rows(0, len(texts)).tolist() == expected


@settings(deadline=None)
@given(cases())
def test_rows_of_positives_equal_those_of_the_matrix(case):
    positives, chunk, _ = case
    parts = [positives.rows(start, min(start + chunk, len(positives))) for start in range(0, len(positives), chunk)]
    assert torch.equal(torch.cat(parts), positives.rows(0, len(positives)))
    assert positives.rows(0, len(positives)).diagonal().all()


def test_a_loss_without_gradients_is_only_a_value():
    images, texts = (tensor.detach() for tensor in batch(5, 0)[:2])
    loss = losses.contrastive(images, texts, scale=torch.tensor(3.0))
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(losses.contrastive(images, texts, scale=torch.tensor(3.0)).item(), rel=1e-12)


MEASURED = r"""
import re, torch
from torch.nn import functional
from retrieval.train import losses
from retrieval.train.losses import Positives
torch.set_num_threads(1)
def peak():
    with open("/proc/self/status") as status:  # getrusage's peak is that of the process that began this one
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1])
def learn(size):
    texts = [number // 3 for number in range(size)]
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (10.0, -5.0))
    settings = {"positives": Positives.from_texts(texts, [[text] for text in texts]), "chunk": 128}
    rows = [functional.normalize(torch.randn(size, 32), dim=1).requires_grad_() for _ in range(2)]
    before = peak()
    losses.contrastive(*rows, scale=scale, **settings).backward()
    losses.sigmoid(*rows, scale=scale, bias=bias, **settings).backward()
    losses.triplet(*rows, margin=0.2, **settings).backward()
    assert rows[0].grad.isfinite().all()
    return peak() - before
learn(64)
print(learn(4096))
"""


def test_a_large_batch_takes_a_fraction_of_the_memory_of_its_logits():
    """All its scores are 67 MB, and a plain loss holds several such matrices; a chunk of 128 is 2 MB."""
    told = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 4096**2 * 4 / 2

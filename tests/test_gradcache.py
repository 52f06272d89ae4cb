"""Gradients in parts, and with dropout keyed by item, are those of the whole batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import random_model, tiny_config

from retrieval.train.config import TrainConfig
from retrieval.train.data.loader import Batch
from retrieval.train.distributed import ProcessGroup
from retrieval.train.loop import gradcache, precision
from retrieval.train.loop.gradcache import GradCache
from retrieval.train.losses import Positives, chunked
from retrieval.train.model.item_dropout import ItemDropout, has_dropout, item_keys
from retrieval.train.model.param_groups import set_train_mode
from retrieval.train.model.towers import Towers

SIZE = 70  # texts from 64 on are encoded in two halves, by length
CONVOLUTIONS = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_of(*, dropout=True, vision=None):
    """A tiny model in double precision, with dropout in both towers' blocks and in the attention of one."""
    config = tiny_config(width=16, image_size=16, context_length=10)
    config["vision_cfg"] |= vision or {}
    model = random_model(config).double()
    if dropout:
        blocks = [model.transformer.resblocks[0], model.transformer.resblocks[1]]
        blocks += [model.visual.transformer.resblocks[0]] if vision is None else []
        for block in blocks:
            block.mlp.append(torch.nn.Dropout(0.3))
        blocks[0].attn.dropout = 0.25
    return model


def batch_of(*, size=SIZE, side=16):
    random = np.random.default_rng(5)
    tokens = np.zeros((size, 10), np.int64)
    for row in tokens:
        length = random.integers(3, 11)
        row[:length] = [49406, *random.integers(5, 500, length - 2), 49407]
    texts = [int(number) // 2 for number in range(size)]
    return Batch(
        step=3,
        epoch=0,
        images=np.arange(size),
        texts=np.array(texts),
        pixels=random.integers(0, 256, (size, side, side, 3), np.uint8),
        tokens=tokens,
        positives=Positives.from_texts(texts, [[text] for text in texts]),
        weights=random.random(size),
    )


class DoubleTowers(Towers):
    """Towers of a model in double precision."""

    def normalize_pixels(self, pixels):
        """The input, in double precision."""
        return super().normalize_pixels(pixels).double()


def gradients_of(model, batch, **settings):
    model.zero_grad()
    set_train_mode(model)
    towers = DoubleTowers(model, device="cpu", mean=(0.5,) * 3, std=(0.3,) * 3)
    config = TrainConfig(seed=11, precision="float32", **settings)
    loss = GradCache(towers, config, process_group=ProcessGroup()).accumulate(batch)
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return loss.item(), found


def assert_equal(first, second):
    assert first[0] == pytest.approx(second[0], rel=1e-9)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        assert torch.allclose(gradient, second[1][name], atol=1e-9, rtol=1e-7), name


@pytest.mark.parametrize("loss", ["contrastive", "sigmoid", "triplet"])
def test_any_micro_batch_gives_the_gradients_of_the_whole_batch_with_dropout(loss):
    model, batch = model_of(), batch_of()
    if loss == "sigmoid":
        model.logit_bias = torch.nn.Parameter(torch.tensor(-4.0, dtype=torch.float64))
    assert has_dropout(model)
    whole = gradients_of(model, batch, loss=loss)
    for size in (1, 7, 33, 69, 70, 500):
        if size != 1 or loss == "sigmoid":
            assert_equal(gradients_of(model, batch, loss=loss, micro_batch=size), whole)


class Shard(ProcessGroup):
    """One of several processes that already know each other's rows."""

    rows = ()

    def all_gather(self, rows, count):
        """What all processes have, of pictures first and then of texts."""
        everyone = next(self.rows)
        share = self.shard(count)
        assert torch.allclose(everyone[share.start : share.stop], rows, atol=1e-12)
        return everyone.clone()

    def all_reduce_gradients(self, parameters):
        """Nothing: the test does."""


@pytest.mark.parametrize("size", [None, 4])
def test_gradients_of_several_processes_add_up_to_the_whole_with_dropout(monkeypatch, size):
    model, batch = model_of(), batch_of(size=22)
    seen = []
    plain = gradcache.compute_loss
    monkeypatch.setattr(
        gradcache, "compute_loss", lambda *given, **named: (seen.append(given[2]), plain(*given, **named))[1]
    )
    whole = gradients_of(model, batch)
    rows = [side.detach() for side in seen[0]]
    set_train_mode(model)
    towers = DoubleTowers(model, device="cpu", mean=(0.5,) * 3, std=(0.3,) * 3)
    sums = {name: torch.zeros_like(gradient) for name, gradient in whole[1].items()}
    for place in range(3):
        model.zero_grad()
        process_group = Shard(place, 3)
        share = process_group.shard(22)
        own = slice(share.start, share.stop)
        parts = {name: getattr(batch, name)[own] for name in ("images", "texts", "pixels", "tokens")}
        monkeypatch.setattr(Shard, "rows", iter(rows))
        config = TrainConfig(seed=11, precision="float32", micro_batch=size)
        loss = GradCache(towers, config, process_group=process_group).accumulate(
            replace(batch, offset=share.start, **parts)
        )
        assert loss.item() == pytest.approx(whole[0], rel=1e-12)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                sums[name] += parameter.grad
    assert_equal((whole[0], sums), whole)


@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
def test_a_chunked_loss_gives_the_same_gradients(monkeypatch, loss):
    model, batch = model_of(), batch_of(size=12)
    whole = gradients_of(model, batch, loss=loss)
    monkeypatch.setattr(chunked, "_LOGITS_PER_CHUNK", 40)
    assert_equal(gradients_of(model, batch, loss=loss), whole)


@pytest.mark.gpu
def test_half_precision_on_a_gpu_is_near_single_precision_on_the_cpu():
    model, batch = model_of(dropout=False).float(), batch_of(size=24)
    results = []
    for device, kind in (("cpu", "float32"), ("cuda", "auto")):
        model.to(device).zero_grad()
        set_train_mode(model)
        towers = Towers(model, device=device, mean=(0.5,) * 3, std=(0.3,) * 3)
        gradients = GradCache(towers, TrainConfig(precision=kind, micro_batch=7), process_group=ProcessGroup())
        results.append(gradients.accumulate_and_clip(batch, torch.optim.AdamW(model.parameters()))[0])
    assert results[1] == pytest.approx(results[0], rel=0.05)


def test_dropout_depends_on_the_step():
    model, batch = model_of(), batch_of(size=12)
    first = gradients_of(model, batch)
    assert gradients_of(model, batch)[0] == first[0]
    assert gradients_of(model, replace(batch, step=4))[0] != first[0]
    model.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.transformer.resblocks[0].attn.dropout = 0.0
    assert not has_dropout(model)
    assert gradients_of(model, batch)[0] != first[0]


def test_batch_norm_statistics_stay_fixed_with_micro_batches_only():
    """In parts the statistics that are there are used and stay, so that every size of parts gives the same."""
    model, batch = model_of(dropout=False, vision=CONVOLUTIONS | {"patch_size": None}), batch_of(size=12, side=32)
    before = model.visual.bn1.running_mean.clone()
    parts = [gradients_of(model, batch, micro_batch=size) for size in (5, 12)]
    assert_equal(*parts)
    assert torch.equal(model.visual.bn1.running_mean, before)
    gradients_of(model, batch)
    assert not torch.equal(model.visual.bn1.running_mean, before)


def test_an_item_s_dropout_does_not_depend_on_its_batch():
    keys = item_keys(1, step=2, side=0, items=range(6))
    values = torch.ones(6, 5, 8)
    with ItemDropout(keys):
        together = torch.nn.functional.dropout(values, 0.4)
    with ItemDropout(keys[2:3]):
        alone = torch.nn.functional.dropout(values[2:3, :3], 0.4)
    assert torch.equal(together[2:3, :3], alone)
    assert len({tuple(item.flatten().tolist()) for item in together}) == 6


def test_dropout_has_the_given_probability_everywhere():
    with ItemDropout(item_keys(0, step=0, side=1, items=range(64))):
        kept = torch.nn.functional.dropout(torch.ones(64, 100, 32), 0.3) > 0
    deviation = (0.3 * 0.7 / kept.numel()) ** 0.5
    assert kept.double().mean().item() == pytest.approx(0.7, abs=4 * deviation)
    for dimensions in ((1, 2), (0, 2), (0, 1)):
        shares = kept.double().mean(dimensions)
        assert shares.numpy() == pytest.approx(0.7, abs=5 * (0.21 / (kept.numel() / len(shares))) ** 0.5)


def test_keys_differ_by_seed_step_side_and_item():
    keys = [
        int(key)
        for seed in (0, 1)
        for gradcache in (0, 1)
        for side in (0, 1)
        for key in item_keys(seed, step=gradcache, side=side, items=range(10))
    ]
    assert len(set(keys)) == 80
    assert torch.equal(
        item_keys(3, step=1, side=0, items=range(4, 7)), item_keys(3, step=1, side=0, items=range(9))[4:7]
    )


def test_a_frozen_tower_gets_no_gradient_with_micro_batches():
    model, batch = model_of(), batch_of(size=12)
    model.visual.requires_grad_(False)  # noqa: FBT003 (torch's own signature)
    whole, parts = (gradients_of(model, batch, micro_batch=size) for size in (None, 5))
    assert_equal(parts, whole)
    assert not any(name.startswith("visual.") for name in parts[1])


def test_half_precision_leaves_the_loss_close_and_in_single_precision():
    """bfloat16 has three digits; the loss is taken in float32 whatever the towers run in."""
    model, batch = model_of(dropout=False).float(), batch_of(size=24)
    results = []
    for kind in ("float32", "bfloat16"):
        set_train_mode(model)
        towers = Towers(model, device="cpu", mean=(0.5,) * 3, std=(0.3,) * 3)
        results.append(GradCache(towers, TrainConfig(precision=kind), process_group=ProcessGroup()).accumulate(batch))
    assert results[0].dtype == results[1].dtype == torch.float32
    assert results[1].item() == pytest.approx(results[0].item(), rel=0.03)
    assert results[1].item() != results[0].item()


class Follower(ProcessGroup):
    """The second of two processes, whose leading one says the same each time."""

    said = 0.0

    def broadcast_values(self, values):
        """What the leading process has."""
        return [self.said] * len(values)


@pytest.mark.parametrize("said", [True, False])
def test_all_processes_time_both_dtypes_or_none_does(monkeypatch, said):
    """A try waits for all processes, and each may find its products otherwise: the leading one decides."""
    monkeypatch.setattr(precision, "fastest_dtype", lambda _: torch.float32 if said else torch.bfloat16)
    monkeypatch.setattr(Follower, "said", float(said))
    tried = []
    precision.choose_dtype("cpu", weights=10**8, try_step=tried.append, process_group=Follower(1, 2))
    assert sorted(set(tried)) == (["bfloat16", "float32"] if said else [])

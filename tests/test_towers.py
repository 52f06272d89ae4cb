"""Frozen towers: what they make of pictures and texts is computed once, is right, and stays as it was."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_models import random_model, tiny_config, write_model

from retrieval.encoder import load_encoder
from retrieval.pairs import read_pairs
from retrieval.train import Callbacks, TrainConfig, train, training
from retrieval.train.data.image_cache import build_image_cache
from retrieval.train.defaults import apply_defaults
from retrieval.train.model import towers as towers_file
from retrieval.train.model.param_groups import freeze
from retrieval.train.model.towers import Towers

TINY = tiny_config(width=16, image_size=32, context_length=12)
CONVOLUTIONAL = TINY | {
    "custom_text": True,
    "vision_cfg": {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32},
}
MODELS = {"vit": TINY, "timm": CONVOLUTIONAL}


@pytest.fixture(autouse=True)
def one_thread():
    """Models so small are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """24 pictures of four coarse blocks of colour, each with two captions."""
    folder = tmp_path_factory.mktemp("blocks")
    lines = []
    for number in range(24):
        blocks = np.random.default_rng(number).integers(0, 256, (2, 2, 3), np.uint8)
        Image.fromarray(blocks).resize((48, 40), Image.Resampling.NEAREST).save(folder / f"{number}.png")
        lines.append({"file_name": f"{number}.png", "captions": [f"picture {number}", f"the {number}th of all"]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return read_pairs(folder)


def config_of(start, **settings):
    usual = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu", "checkpoint_seconds": 1000}
    return TrainConfig(model=str(start), **{**usual, **settings})


def weights(folder):
    return load_file(folder / "open_clip_model.safetensors")


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("tune", "kept", "moved"), [("text", "image", "text"), ("image", "text", "image")])
def test_a_frozen_tower_keeps_its_weights_statistics_and_fingerprint(pairs, tmp_path, kind, tune, kept, moved):
    start = write_model(tmp_path / "start", MODELS[kind])
    result = train(pairs, tmp_path / "run", config=config_of(start, tune=tune))
    assert result.steps == 9
    before, after = (load_encoder(folder, device="cpu") for folder in (start, tmp_path / "run"))
    assert getattr(before, f"{kept}_fingerprint") == getattr(after, f"{kept}_fingerprint")
    assert getattr(before, f"{moved}_fingerprint") != getattr(after, f"{moved}_fingerprint")
    old, new = weights(start), weights(tmp_path / "run")
    still = [name for name in old if (name.startswith("visual.") if kept == "image" else "text" in name)]
    assert still
    assert all(old[name].numpy().tobytes() == new[name].numpy().tobytes() for name in still)


@pytest.mark.parametrize("kind", MODELS)
def test_tuning_the_heads_changes_nothing_else(pairs, tmp_path, kind):
    start = write_model(tmp_path / "start", MODELS[kind])
    train(pairs, tmp_path / "run", config=config_of(start, tune="heads"))
    old, new = weights(start), weights(tmp_path / "run")
    changed = {name.removeprefix("text.") for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"visual.proj" if kind == "vit" else "visual.head.proj.weight", "text_projection", "logit_scale"}


@pytest.mark.parametrize("tune", ["text", "heads"])
def test_features_of_a_frozen_tower_are_computed_once(pairs, tmp_path, monkeypatch, tune):
    start = write_model(tmp_path / "start", TINY)
    counted = []
    encode = torch.nn.Module.__call__

    def counting(self, *inputs, **options):
        if type(self).__name__ == "VisionTransformer":
            counted.append(len(inputs[0]))
        return encode(self, *inputs, **options)

    monkeypatch.setattr(torch.nn.Module, "__call__", counting)
    train(pairs, tmp_path / "run", config=config_of(start, tune=tune, epochs=5))
    probes = 7 if tune == "heads" else 0  # a grey picture at the start, after each epoch and of the mix: none validate
    assert sum(counted) == 24 + probes


@pytest.mark.parametrize("tune", ["text", "heads"])
def test_ctrl_c_stops_the_precomputation_after_the_batch_in_hand(pairs, tmp_path, monkeypatch, tune):
    """24 pictures in batches of 5: after the second one nothing more is encoded, and the run can go on."""
    start = write_model(tmp_path / "start", TINY)
    monkeypatch.setattr(towers_file, "_PRECOMPUTE_BATCH", 5)
    told = []

    def kept(done, total):
        told.append((done, total))
        if len(told) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(pairs, tmp_path / "run", config=config_of(start, tune=tune), callbacks=Callbacks(on_precomputed=kept))
    assert told == [(5, 24), (10, 24)]
    result = train(pairs, tmp_path / "run", config=config_of(start, tune=tune), resume=True)
    assert result.steps == 9


@pytest.mark.parametrize(("tune", "memory"), [("text", 0), ("heads", 0), ("image", 24), ("both", 24)])
def test_images_that_are_shown_once_are_not_cached(pairs, tmp_path, monkeypatch, tune, memory):
    start = write_model(tmp_path / "start", TINY)
    caches = []

    def opening(*given, **named):
        caches.append(build_image_cache(*given, **named))
        return caches[0]

    monkeypatch.setattr(training, "build_image_cache", opening)
    train(pairs, tmp_path / "run", config=config_of(start, tune=tune, epochs=1))
    assert len(caches[0].in_memory) == memory
    assert (caches[0].disk is None) == (memory == 0)


def test_processes_of_one_machine_share_the_memory_budget(pairs, tmp_path, monkeypatch):
    start = write_model(tmp_path / "start", TINY)
    budgets = []

    def opening(*given, **named):
        budgets.append(named["cache_bytes"])
        return build_image_cache(*given, **named)

    monkeypatch.setattr(training, "build_image_cache", opening)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    train(pairs, tmp_path / "run", config=config_of(start, epochs=1, cache_bytes=8000))
    assert budgets == [1000]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("tune", ["text", "image", "heads"])
def test_precomputed_features_give_the_rows_and_gradients_of_the_model(kind, tune):
    model = random_model(MODELS[kind])
    freeze(model, apply_defaults(TrainConfig(model="a/b", tune=tune)))
    towers = Towers(model, device="cpu", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    inputs = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    tokens = np.random.default_rng(1).integers(1, 49000, (6, 12))
    batch = type("Batch", (), {"images": np.array([4, 1]), "texts": np.array([3, 3, 0])})
    batch.pixels, batch.tokens = inputs[batch.images], tokens[batch.texts]
    results = []
    for keep in (False, True):
        if keep and towers.can_precompute("image"):
            towers.precompute("image", iter(inputs))
        if keep and towers.can_precompute("text"):
            towers.precompute("text", iter(tokens))
        model.eval()
        model.zero_grad()
        images, texts = towers.encode("image", batch), towers.encode("text", batch)
        (images @ texts.T * torch.arange(3)).sum().backward()
        gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        results.append((images.detach(), texts.detach(), gradients))
    (images, texts, plain), (kept_images, kept_texts, kept) = results
    assert torch.allclose(kept_images, images, atol=1e-6)
    assert torch.allclose(kept_texts, texts, atol=1e-6)
    assert plain.keys() == kept.keys()
    assert all(torch.allclose(kept[name], plain[name], atol=1e-5, rtol=1e-4) for name in plain)


@pytest.mark.parametrize("tune", ["text", "image", "heads"])
def test_a_run_with_a_frozen_tower_resumes_to_the_same_bits(pairs, tmp_path, tune):
    start = write_model(tmp_path / "start", CONVOLUTIONAL)
    config = config_of(start, tune=tune, checkpoint_seconds=0)

    def kill(step, *_):
        if step == 4:
            raise ZeroDivisionError

    train(pairs, tmp_path / "whole", config=config, validation=pairs)
    with pytest.raises(ZeroDivisionError):
        train(pairs, tmp_path / "killed", config=config, validation=pairs, progress=kill)
    train(pairs, tmp_path / "killed", config=config, validation=pairs, resume=True)
    for name in ("open_clip_model.safetensors", "training/state.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_text_tower_learns_against_a_frozen_image_tower(pairs, tmp_path):
    start = write_model(tmp_path / "start", tiny_config(width=32, image_size=32, context_length=12))
    config = replace(config_of(start, tune="text", epochs=60, batch_size=24), weight_decay=0.0)
    result = train(pairs, tmp_path / "run", config=config, validation=pairs)
    assert result.before["text_to_image_recall@1"] < 0.2
    assert result.best["text_to_image_recall@1"] > 0.5


@pytest.mark.parametrize(("keep", "moved"), [(None, False), (False, True)])
def test_a_pretrained_model_keeps_its_batch_statistics_by_default(pairs, tmp_path, keep, moved):
    start = write_model(tmp_path / "start", CONVOLUTIONAL)
    train(pairs, tmp_path / "run", config=config_of(start, tune="both", freeze_bn_stats=keep))
    old, new = weights(start), weights(tmp_path / "run")
    statistics = [name for name in old if "running" in name]
    assert statistics
    assert all(torch.equal(old[name], new[name]) is not moved for name in statistics)
    assert not torch.equal(old["visual.trunk.bn1.weight"], new["visual.trunk.bn1.weight"])

"""LoRA: it changes nothing at first, trains where it should, and is plain weights in what is saved."""

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from test_towers import CONVOLUTIONAL, TINY, config_of, one_thread, pairs, weights  # noqa: F401 (fixtures)
from tiny_models import random_model, write_model

from retrieval.encoder import load_encoder
from retrieval.encoder.open_clip_models import save_run
from retrieval.pairs import Pairs
from retrieval.train import train
from retrieval.train.config import TrainConfig
from retrieval.train.defaults import apply_defaults
from retrieval.train.model.averaging import temporary_weights
from retrieval.train.model.lora import is_lora_parameter, merged_state_dict, unmerged_state_dict
from retrieval.train.model.param_groups import freeze, is_frozen, set_train_mode
from retrieval.train.run_folder import RunFolder

CONFIG = apply_defaults(TrainConfig(model="a/b", lora_rank=3))
MODELS = {"vit": TINY, "timm": CONVOLUTIONAL}
PICTURES, TOKENS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(36).reshape(3, 12)


def rows(model):
    with torch.no_grad():
        return model.eval().encode_image(PICTURES), model.encode_text(TOKENS)


def adapted(config, **settings):
    """A model with LoRA whose thin matrices are no longer zero."""
    model = random_model(config)
    freeze(model, replace(CONFIG, **settings))
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if is_lora_parameter(name):
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_adding_lora_does_not_change_the_rows(kind):
    model = random_model(MODELS[kind])
    before = rows(model)
    freeze(model, CONFIG)
    assert all(torch.allclose(now, then, atol=1e-6) for now, then in zip(rows(model), before, strict=True))


@pytest.mark.parametrize("kind", MODELS)
def test_merged_weights_are_a_plain_model_with_the_same_rows(kind, tmp_path):
    model = adapted(MODELS[kind])
    assert merged_state_dict(model).keys() == random_model(MODELS[kind]).state_dict().keys()
    preprocess = model.visual.preprocess_cfg if hasattr(model.visual, "preprocess_cfg") else {"size": 32}
    save_run(model, tmp_path, config=MODELS[kind], preprocess=preprocess, weights=merged_state_dict(model))
    plain, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    start = rows(random_model(MODELS[kind]))
    for ours, theirs, first in zip(rows(model), rows(plain), start, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
        assert not torch.allclose(ours, first, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_plain_weights_can_replace_those_of_a_model_with_lora_temporarily(kind):
    model, other = adapted(MODELS[kind]), random_model(MODELS[kind], seed=7)
    before, wanted = rows(model), rows(other)
    with temporary_weights(model, unmerged_state_dict(model, other.state_dict())):
        assert all(torch.allclose(now, then, atol=1e-6) for now, then in zip(rows(model), wanted, strict=True))
    assert all(torch.equal(now, then) for now, then in zip(rows(model), before, strict=True))


def test_attention_and_mlp_layers_of_every_block_have_low_rank_updates_and_gradients():
    model = adapted(TINY)
    set_train_mode(model)
    (model.encode_image(PICTURES).sum() + model.encode_text(TOKENS).sum()).backward()
    found = {name: parameter for name, parameter in model.named_parameters() if is_lora_parameter(name)}
    layers = ("attn.parametrizations.in_proj_weight", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
    for tower in ("visual.transformer", "transformer"):
        for block in range(2):
            for layer in layers:
                thin = [name for name in found if name.startswith(f"{tower}.resblocks.{block}.{layer}")]
                assert len(thin) == 2, (tower, block, layer)
    assert len(found) == 2 * 2 * 2 * len(layers)
    assert all(parameter.grad.abs().max() > 0 for parameter in found.values())
    resting = {name for name, parameter in model.named_parameters() if parameter.grad is None} - {"logit_scale"}
    assert {"visual.conv1.weight", "token_embedding.weight", "ln_final.weight"} <= resting
    assert all(parameter.requires_grad == (name not in resting) for name, parameter in model.named_parameters())


def test_frozen_towers_and_blocks_get_no_lora():
    assert is_frozen(adapted(TINY, tune="text"), "image")
    blocks = {
        name.split(".")[3]
        for name, _ in adapted(TINY, image_blocks=1).visual.named_parameters()
        if is_lora_parameter(name)
    }
    assert blocks
    names = {
        name for name, _ in adapted(TINY, image_blocks=1, text_blocks=0).named_parameters() if is_lora_parameter(name)
    }
    assert {".".join(name.split(".")[:4]) for name in names} == {"visual.transformer.resblocks.1"}


@pytest.mark.parametrize("kind", MODELS)
def test_a_run_with_lora_learns_and_is_loaded_by_open_clip(pairs: Pairs, tmp_path, kind):  # noqa: F811
    start = write_model(tmp_path / "start", MODELS[kind])
    config = config_of(start, lora_rank=4, epochs=25, wise_ft="off", weight_decay=0.0)
    result = train(pairs, tmp_path / "run", config=config)
    assert result.loss < 1.9  # of 2.08 by chance
    kept, old = weights(tmp_path / "run"), weights(start)
    assert kept.keys() == old.keys()
    changed = {name for name in kept if not torch.equal(kept[name], old[name])}
    assert changed >= {"logit_scale"}
    assert not any("ln_" in name or "embedding" in name or "bn" in name for name in changed)
    ranks = {
        int(torch.linalg.matrix_rank((kept[name] - old[name]).flatten(1).double(), rtol=1e-3))
        for name in changed
        if "resblocks" in name
    }
    assert ranks <= {1, 2, 3, 4}
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'run'}")
    theirs = model.eval().encode_text(open_clip.SimpleTokenizer(context_length=12)(["picture 3"]), normalize=True)
    ours = load_encoder(tmp_path / "run", device="cpu").encode_texts(["picture 3"])
    assert np.allclose(ours, theirs.detach().numpy(), atol=1e-5)
    assert any(
        name.startswith("model.") and "parametrizations" in name
        for name in load_file(RunFolder(tmp_path / "run").checkpoint)
    )

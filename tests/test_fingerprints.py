"""A fingerprint changes with whatever changes a row of its tower, and with nothing else."""

from dataclasses import replace

import open_clip
import pytest
import torch
from tiny_models import random_model, tiny_config, write_tiny_model

from retrieval.encoder.fingerprints import image_fingerprint, text_fingerprint
from retrieval.encoder.open_clip_models import Checkpoint, open_checkpoint

PREPROCESS = {"size": 32, "mode": "RGB", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def checkpoint(config=None, *, seed=0):
    config = config or tiny_config()
    tokenizer = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
    return Checkpoint("name", random_model(config, seed=seed), config, PREPROCESS, tokenizer)


def both(opened):
    return image_fingerprint(opened), text_fingerprint(opened)


@pytest.fixture(scope="module")
def usual():
    return both(checkpoint())


def test_fingerprints_do_not_depend_on_the_folder(tmp_path):
    here, there = (open_checkpoint(str(write_tiny_model(tmp_path / name))) for name in ("here", "there"))
    assert both(here) == both(there)
    assert here.name != there.name


def test_other_weights_have_other_fingerprints(usual):
    assert not set(usual) & set(both(checkpoint(seed=1)))


@pytest.mark.parametrize("tower", ["visual", "text"])
def test_each_tower_has_its_own_fingerprint(usual, tower):
    """So that a text tower trained further leaves the pictures' rows valid, and the other way round."""
    opened = checkpoint()
    weight = opened.model.visual.proj if tower == "visual" else opened.model.text_projection
    with torch.no_grad():
        weight[0, 0] += 1e-4
    changed = [new != old for new, old in zip(both(opened), usual, strict=True)]
    assert changed == [tower == "visual", tower == "text"]


def test_logit_scale_and_bias_change_no_fingerprint(usual):
    opened = checkpoint({**tiny_config(), "init_logit_bias": -10.0})
    with torch.no_grad():
        opened.model.logit_scale += 1
    assert both(opened) == usual


def test_text_tower_has_one_fingerprint_in_clip_and_custom_text_clip(usual):
    assert both(checkpoint({**tiny_config(), "custom_text": True})) == usual


def test_coca_decoder_changes_no_fingerprint():
    config = {**tiny_config(embed_cls=True, output_tokens=True, context_length=76), "custom_text": True}
    config["vision_cfg"] |= {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    config["multimodal_cfg"] = {"context_length": 76, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}
    opened = checkpoint(config)
    before = both(opened)
    with torch.no_grad():
        opened.model.text_decoder.text_projection += 1
    assert both(opened) == before


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"quick_gelu": True}, [False, False]),
        ({"vision_cfg": {"head_width": 32}}, [False, True]),  # heads show in no weight's shape
        ({"text_cfg": {"heads": 4}}, [True, False]),
        ({"vision_cfg": {"patch_dropout": 0.5}}, [True, True]),  # acts in training alone
        ({"vision_cfg": {"mlp_ratio": 4.0}}, [True, True]),  # the default, written out
    ],
)
def test_only_settings_that_change_rows_change_fingerprints(usual, changes, same):
    opened, config = checkpoint(), tiny_config()
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    changed = both(replace(opened, config=config))
    assert [new == old for new, old in zip(changed, usual, strict=True)] == same


def test_preprocessing_counts_for_images_and_the_tokenizer_for_texts(usual):
    opened = checkpoint()
    image = image_fingerprint(replace(opened, preprocess={**PREPROCESS, "interpolation": "bilinear"}))
    text = text_fingerprint(replace(opened, tokenizer=open_clip.SimpleTokenizer(context_length=77, clean="whitespace")))
    assert image != usual[0]
    assert text != usual[1]


def test_weights_stored_in_half_precision_count_by_their_values(usual):
    """Rounding makes other rows, hence another fingerprint; the type of what was rounded already makes none."""
    halved = checkpoint()
    halved.model.half()
    whole = replace(halved, model=checkpoint().model)
    whole.model.load_state_dict(halved.model.state_dict())
    assert both(halved) == both(whole)
    assert both(halved) != usual

"""Texts are encoded without their padding where that changes nothing, and only there."""

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import random_model, tiny_config

from retrieval.encoder.features import count_used_tokens
from retrieval.encoder.text_towers import encode_truncated, find_causal_tower, find_end_token

_END = 49407  # <end_of_text> of open_clip's BPE
TOKENIZE = open_clip.SimpleTokenizer(context_length=77)


def _custom(**changes):
    return {**tiny_config(**changes), "custom_text": True}


CAUSAL = {
    "CLIP, argmax": tiny_config(),
    "CLIP, eos": tiny_config(pool_type="eos", eos_id=_END),
    "CLIP, projection with a bias": tiny_config(proj_bias=True),
    "CustomTextCLIP, argmax": _custom(),
    "CustomTextCLIP, eos": _custom(pool_type="eos", eos_id=_END),
    "CustomTextCLIP, tokens put out too": _custom(output_tokens=True),
}
NOT_CAUSAL = {
    "sees both ways": _custom(no_causal_mask=True),
    "SigLIP: sees both ways, pools the last position": _custom(no_causal_mask=True, pool_type="last", proj_bias=True),
    "pools the last position": _custom(pool_type="last"),
    "CoCa: a class token after the padding": _custom(embed_cls=True, output_tokens=True),
}


@pytest.fixture(scope="module")
def towers():
    return {kind: find_causal_tower(random_model(config)) for kind, config in CAUSAL.items()}


@pytest.mark.parametrize("kind", CAUSAL)
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.sampled_from(["", "a", "a red ball", "日本語のテキスト", "x " * 100]), min_size=1, max_size=5))
def test_causal_tower_gives_the_same_rows_without_padding(towers, kind, texts):
    tokens, tower = TOKENIZE(texts), towers[kind]
    length = count_used_tokens(tokens.numpy(), find_end_token(tower)).max()
    with torch.inference_mode():
        cut = torch.nn.functional.normalize(encode_truncated(tower, tokens[:, :length]))
        full = torch.nn.functional.normalize(encode_truncated(tower, tokens))
        model_s_own = _own(tower, tokens)
    np.testing.assert_allclose(cut, full, rtol=0, atol=1e-5)
    np.testing.assert_allclose(full, torch.nn.functional.normalize(model_s_own), rtol=0, atol=1e-6)


def _own(tower, tokens):
    output = tower.encode_text(tokens) if hasattr(tower, "encode_text") else tower(tokens)
    return output[0] if isinstance(output, tuple) else output


def test_used_tokens_are_start_words_and_end(towers):
    tokens = TOKENIZE(["", "red ball", "x " * 100]).numpy()
    for tower in towers.values():
        assert count_used_tokens(tokens, find_end_token(tower)).tolist() == [2, 4, 77]


@pytest.mark.parametrize("kind", NOT_CAUSAL)
def test_towers_that_padding_reaches_are_not_causal(kind):
    assert find_causal_tower(random_model(NOT_CAUSAL[kind])) is None


def test_encode_truncated_leaves_the_tower_unchanged(towers):
    tower = towers["CLIP, argmax"]
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    encode_truncated(tower, TOKENIZE(["a"])[:, :3])
    assert tower.attn_mask.shape == (77, 77)
    assert all(torch.equal(before[name], tensor) for name, tensor in tower.state_dict().items())

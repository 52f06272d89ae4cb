"""Towers of one's own: timm's and transformers' beside open_clip's, and the CNN + LSTM pair; trained, saved, loaded."""

import json
import shutil
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from test_towers import config_of, one_thread, pairs, weights  # noqa: F401 (fixtures)
from tiny_models import tiny_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from retrieval.encoder import load_encoder
from retrieval.encoder.architectures import LstmText, build_model
from retrieval.encoder.open_clip_models import open_checkpoint
from retrieval.errors import EncoderError, TrainingError
from retrieval.train import TrainConfig, train
from retrieval.train.defaults import apply_defaults
from retrieval.train.model.create import create_model
from retrieval.train.model.param_groups import locate_parameters

LSTM = {"context_length": 12, "vocab_size": 49408, "lstm": {"width": 24, "embedding": 8}}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "picture", "the", "of", "all", "a", *map(str, range(40))]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder with a two-layer BERT and its tokenizer, as transformers saves them."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **sizes)).save_pretrained(folder)
    named = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP")}
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, named["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)
    return folder


def with_bert(folder, **vision):
    vision = {
        "timm_model_name": "test_efficientnet",
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 32,
    } | vision
    text = {
        "hf_model_name": str(folder),
        "hf_tokenizer_name": str(folder),
        "context_length": 12,
        "hf_proj_type": "linear",
    }
    return {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}


def with_lstm(**text):
    return tiny_config(image_size=32) | {"text_cfg": LSTM | text}


def fresh(model, **settings):
    return replace(config_of("."), model=model, **settings)


def rows_of(run):
    encoder = load_encoder(run, device="cpu")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    return encoder.encode_prepared(list(pictures)), encoder.encode_texts(["picture 3", "the 4 of all"])


def test_a_timm_cnn_and_a_bert_are_trained_and_loaded_by_open_clip(pairs, bert, tmp_path):  # noqa: F811
    (tmp_path / "model.json").write_text(json.dumps(with_bert(bert)))
    result = train(pairs, tmp_path / "run", config=fresh(str(tmp_path / "model.json")))
    assert result.steps == 9
    ours = rows_of(tmp_path / "run")
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'run'}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'run'}")(["picture 3", "the 4 of all"])
    theirs = model.eval().encode_text(tokens, normalize=True).detach().numpy()
    assert np.allclose(ours[1], theirs, atol=1e-5)
    assert not np.allclose(theirs[0], theirs[1], atol=1e-3)
    assert preprocess.transforms[0].size in {32, (32, 32)}


def test_a_run_with_a_local_text_model_can_be_moved(pairs, bert, tmp_path):  # noqa: F811
    source = shutil.copytree(bert, tmp_path / "bert")
    train(pairs, tmp_path / "run", config=fresh(with_bert(source)))
    before, fingerprint = rows_of(tmp_path / "run"), load_encoder(tmp_path / "run", device="cpu").text_fingerprint
    shutil.rmtree(source)
    (tmp_path / "run").rename(tmp_path / "moved")
    after = rows_of(tmp_path / "moved")
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert load_encoder(tmp_path / "moved", device="cpu").text_fingerprint == fingerprint
    tuned = config_of(tmp_path / "moved", tune="text")
    train(pairs, tmp_path / "tuned", config=tuned)
    assert load_encoder(tmp_path / "tuned", device="cpu").text_fingerprint != fingerprint


def test_a_text_model_on_the_hub_is_refused_at_once(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EncoderError, match="hub cannot be reached for someone/bert"):
        create_model(fresh(with_bert("someone/bert")))


def test_bert_layers_have_layer_ids(bert):
    model = build_model(with_bert(bert))
    rungs = {name: place.layer_id for name, place in locate_parameters(model).items() if place.side == "text"}
    assert rungs["text.transformer.embeddings.word_embeddings.weight"] == 0
    assert rungs["text.transformer.encoder.layer.1.output.dense.weight"] == 2
    assert rungs["text.proj.weight"] == 3


def test_towers_load_local_weights_and_heads_stay_random(bert, tmp_path):
    torch.manual_seed(9)
    cnn = timm.create_model("test_efficientnet", num_classes=1000)
    save_file(cnn.state_dict(), tmp_path / "cnn.safetensors")
    settings = {"image_weights": str(tmp_path / "cnn.safetensors"), "text_weights": str(bert)}
    config = TrainConfig(model=with_bert(bert), **settings, device="cpu")
    assert (apply_defaults(config).learning_rate, apply_defaults(config).head_learning_rate) == (1e-5, 1e-3)
    model = create_model(apply_defaults(config)).model
    for name, tensor in model.visual.trunk.state_dict().items():
        assert torch.equal(tensor, cnn.state_dict()[name]), name
    given = load_file(bert / "model.safetensors")
    trunk = {name: tensor for name, tensor in model.text.transformer.state_dict().items() if "position_ids" not in name}
    assert all(torch.equal(tensor, given[name]) for name, tensor in trunk.items())


def test_the_body_of_a_text_model_with_a_head_is_loaded(bert, tmp_path):
    given = load_file(bert / "model.safetensors")
    save_file(
        {f"bert.{name}": tensor for name, tensor in given.items()} | {"cls.bias": torch.ones(2)},
        tmp_path / "b.safetensors",
    )
    model = create_model(fresh(with_bert(bert), text_weights=str(tmp_path / "b.safetensors"))).model
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(model.text.transformer.state_dict()[name], given[name])


def test_weights_of_another_model_are_refused_naming_the_missing_tensor(bert, tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match=r"other\.safetensors is of another model than the image tower: it has no "):
        create_model(fresh(with_bert(bert), image_weights=str(tmp_path / "other.safetensors")))
    with pytest.raises(TrainingError, match=r"weights of the image tower, gone\.safetensors, cannot be read"):
        create_model(fresh(with_bert(bert), image_weights="gone.safetensors"))
    (tmp_path / "run").mkdir()
    with pytest.raises(TrainingError, match="has all its weights already"):
        create_model(fresh(str(tmp_path / "run"), image_weights="some.safetensors"))


@pytest.mark.parametrize(("loss", "least"), [("contrastive", 0.4), ("triplet", 0.1)])
def test_lstm_is_trained_and_loaded(pairs, tmp_path, loss, least):  # noqa: F811
    plain = {"crop": 1.0, "flip": 0.0, "color_jitter": 0.0, "weight_decay": 0.0}
    tower = with_lstm(lstm={"width": 64, "embedding": 32})
    config = fresh(tower, loss=loss, epochs=60, learning_rate=3e-3, **plain)
    result = train(pairs, tmp_path / "run", config=config, validation=pairs)
    assert result.best["text_to_image_recall@1"] > least > result.before["text_to_image_recall@1"]
    encoder = load_encoder(tmp_path / "run", device="cpu")
    assert type(open_checkpoint(str(tmp_path / "run")).model.text) is LstmText
    rows = encoder.encode_texts(["picture 3", "the 4th of all", "a " * 50])
    assert np.allclose(rows[:1], encoder.encode_texts(["picture 3"]), atol=1e-6)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_lstm_row_is_its_state_at_the_end_token():
    tower = LstmText(embed_dim=4, context_length=9, width=6, embedding=3, layers=2).eval()
    tokens = open_clip.SimpleTokenizer(context_length=9)(["a dog", "two small dogs and a cat"])
    alone = []
    for row in tokens:
        used = row[: int(row.argmax()) + 1]
        states, _ = tower.lstm(tower.token_embedding(used[None]))
        alone.append(tower.proj(states[0, -1]))
    assert torch.allclose(tower(tokens), torch.stack(alone), atol=1e-6)


def test_lstm_layers_have_layer_ids_above_the_embedding():
    model = build_model(with_lstm(lstm={"width": 8, "embedding": 4, "layers": 2}))
    rungs = {name: place.layer_id for name, place in locate_parameters(model).items() if place.side == "text"}
    assert rungs["text.token_embedding.weight"] == 0
    assert rungs["text.lstm.weight_hh_l0"] == rungs["text.lstm.bias_ih_l0"] == 1
    assert rungs["text.lstm.weight_ih_l1"] == 2
    assert rungs["text.proj.weight"] == 3


def test_an_lstm_can_be_tuned_alone_and_resumed(pairs, tmp_path):  # noqa: F811
    start = config_of(".", epochs=1)
    train(pairs, tmp_path / "start", config=replace(start, model=with_lstm()))
    config = config_of(tmp_path / "start", tune="text", checkpoint_seconds=0)

    def kill(step, *_):
        if step == 4:
            raise ZeroDivisionError

    train(pairs, tmp_path / "whole", config=config)
    with pytest.raises(ZeroDivisionError):
        train(pairs, tmp_path / "killed", config=config, progress=kill)
    train(pairs, tmp_path / "killed", config=config, resume=True)
    assert all(
        torch.equal(tensor, weights(tmp_path / "whole")[name]) for name, tensor in weights(tmp_path / "killed").items()
    )
    encoders = [load_encoder(tmp_path / name, device="cpu") for name in ("start", "whole")]
    assert encoders[0].image_fingerprint == encoders[1].image_fingerprint
    assert encoders[0].text_fingerprint != encoders[1].text_fingerprint


def test_built_in_small_lstm_is_small():
    checkpoint = create_model(apply_defaults(TrainConfig(model="small-lstm")))
    assert type(checkpoint.model.text) is LstmText
    assert sum(parameter.numel() for parameter in checkpoint.model.parameters()) < 10e6

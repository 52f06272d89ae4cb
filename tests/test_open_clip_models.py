"""Names find models; what cannot be opened says so in one line that names a way; run folders are open_clip's own."""

import json
import logging

import huggingface_hub
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import random_model, tiny_config, write_tiny_model

from retrieval.encoder import open_clip_models
from retrieval.encoder.open_clip_models import CONFIG_FILE, WEIGHTS_FILE, open_checkpoint, save_run
from retrieval.errors import EncoderError

PREPROCESS = {"size": 32, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear"}


def message_of(name):
    with pytest.raises(EncoderError) as caught:
        open_checkpoint(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_plain_open_clip_loads_a_saved_run_with_equal_outputs(tmp_path):
    model = random_model(tiny_config(), seed=7)
    save_run(model, tmp_path / "runs" / "new", config=tiny_config(), preprocess=PREPROCESS)
    loaded, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'runs' / 'new'}")
    loaded.eval()
    pictures, tokens = torch.rand(3, 3, 32, 32), open_clip.SimpleTokenizer()(["a red ball", "", "two cats"])
    with torch.inference_mode():
        assert torch.equal(loaded.encode_image(pictures), model.encode_image(pictures))
        assert torch.equal(loaded.encode_text(tokens), model.encode_text(tokens))
    assert transform.transforms[-1].mean == list(PREPROCESS["mean"])


def test_saved_run_opens_with_all_its_parts(tmp_path):
    model = random_model(tiny_config(context_length=20), seed=7)
    save_run(model, tmp_path, config=tiny_config(context_length=20), preprocess=PREPROCESS)
    opened = open_checkpoint(str(tmp_path))
    assert opened.name == str(tmp_path)
    assert opened.config == tiny_config(context_length=20)
    assert opened.preprocess["interpolation"] == "bilinear"
    assert opened.tokenizer(["a"]).shape == (1, 20)
    assert not opened.model.training
    assert all(torch.equal(tensor, opened.model.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_saving_again_replaces_the_model_and_keeps_other_files(tmp_path):
    write_tiny_model(tmp_path, seed=1)
    (tmp_path / "training.json").write_text("{}")
    model = random_model(tiny_config(), seed=2)
    save_run(model, tmp_path, config=tiny_config(), preprocess=PREPROCESS)
    assert sorted(file.name for file in tmp_path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE, "training.json"]
    assert torch.equal(load_file(tmp_path / WEIGHTS_FILE)["visual.proj"], model.visual.proj)


def test_failed_save_leaves_the_former_model_whole(tmp_path, monkeypatch):
    write_tiny_model(tmp_path, seed=1)
    before = (tmp_path / WEIGHTS_FILE).read_bytes()

    def cut_off(_, path, **__):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(open_clip_models, "save_file", cut_off)
    with pytest.raises(OSError, match="no space left"):
        save_run(random_model(tiny_config()), tmp_path, config=tiny_config(), preprocess=PREPROCESS)
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_run_folder_carries_the_transformers_tokenizer_and_text_config(tmp_path):
    transformers = pytest.importorskip("transformers")
    tower = tmp_path / "bert"
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.BertConfig(vocab_size=9, **sizes).save_pretrained(tower)
    config = {**tiny_config(), "custom_text": True}
    names = {"hf_model_name": str(tower), "hf_tokenizer_name": "not/asked", "hf_model_pretrained": False}
    config["text_cfg"] = {**names, "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler", "context_length": 12}
    model = random_model(config)
    save_run(model, tmp_path, config=config, preprocess=PREPROCESS, tokenizer=_word_tokenizer(transformers))
    opened = open_checkpoint(str(tmp_path))
    tokens = opened.tokenizer(["a red ball"])
    assert tokens.tolist() == [[2, 4, 5, 6, 3, 0, 0, 0, 0, 0, 0, 0]]
    with torch.inference_mode():
        assert torch.equal(opened.model.encode_text(tokens), model.encode_text(tokens))
    for file in tmp_path.glob("token*"):
        file.unlink()
    assert "lacks the files of its tokenizer not/asked" in message_of(tmp_path)


def _word_tokenizer(transformers):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "ball"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, words[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def test_folder_takes_precedence_over_a_name(tmp_path, monkeypatch):
    write_tiny_model(tmp_path / "ViT-B-32" / "openai")
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint("ViT-B-32/openai").config["embed_dim"] == 16


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / CONFIG_FILE).unlink(), f"holds no {CONFIG_FILE}"),
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), "holds no weights"),
        (lambda folder: (folder / CONFIG_FILE).write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / CONFIG_FILE).write_text("{}"), "cannot be loaded"),
        (lambda folder: (folder / CONFIG_FILE).write_text('{"model_cfg": {"text_cfg": {}}}'), "cannot be loaded"),
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b""), "cannot be loaded"),
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\0" * 10_000), "cannot be loaded"),
        (lambda folder: _cut_in_half(folder / WEIGHTS_FILE), "cannot be loaded"),
        (lambda folder: _widen(folder / CONFIG_FILE), "size mismatch"),
    ],
)
def test_damaged_folder_is_an_error_of_one_line(tmp_path, damage, said):
    damage(write_tiny_model(tmp_path))
    assert said in message_of(tmp_path)


def _cut_in_half(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _widen(path):
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 64
    path.write_text(json.dumps(config))


class _Harm:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_pickle_with_code_is_refused(tmp_path, capsys):
    write_tiny_model(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    torch.save({"weights": _Harm()}, tmp_path / "open_clip_pytorch_model.bin")
    assert "cannot be loaded" in message_of(tmp_path)
    assert "unpickled" not in capsys.readouterr().out


def test_config_with_trust_remote_code_is_refused(tmp_path):
    config = json.loads((write_tiny_model(tmp_path) / CONFIG_FILE).read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    assert "trust_remote_code" in message_of(tmp_path)


def test_pickled_weights_load_as_weights_only(tmp_path):
    write_tiny_model(tmp_path, seed=4)
    weights = load_file(tmp_path / WEIGHTS_FILE)
    torch.save(weights, tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / WEIGHTS_FILE).unlink()
    assert torch.equal(open_checkpoint(str(tmp_path)).model.visual.proj, weights["visual.proj"])


def test_architecture_without_a_tag_lists_its_tags():
    message = message_of("ViT-B-32-256")
    assert "ViT-B-32-256/datacomp_s34b_b86k" in message
    assert "without trained weights" in message_of("ViT-S-32")
    assert "laion2b_s34b_b79k" in message_of("ViT-B-32/laion2b")


def test_unknown_name_lists_similar_names():
    assert "ViT-B-32-256/datacomp_s34b_b86k" in message_of("vit-b-32-256/datacomp_s34b")
    assert "no model folder and no open_clip name/tag 'xyzzy'" in message_of("xyzzy")


@pytest.fixture
def unreachable(tmp_path, monkeypatch):
    """A hub that cannot be reached and has nothing cached, and the repositories that were asked for."""
    asked = []

    def refuse(url, **_):
        asked.append(url)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    return asked


@pytest.mark.parametrize("name", ["ViT-B-32-256/datacomp_s34b_b86k", "hf-hub:org/model"])
def test_unreachable_hub_is_asked_once_and_the_error_names_the_local_way(unreachable, name):
    message = message_of(name)
    assert "hub cannot be reached" in message
    assert CONFIG_FILE in message
    assert len(unreachable) == 1


def test_folder_whose_text_tower_needs_the_hub_is_an_error(tmp_path, unreachable):
    write_tiny_model(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    config["model_cfg"]["text_cfg"] = {"hf_model_name": "org/bert"}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    assert "hub cannot be reached for org/bert" in message_of(tmp_path)
    assert len(unreachable) == 1


def test_cached_model_does_not_ask_the_hub(tmp_path, unreachable, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path))
    monkeypatch.setattr(open_clip, "create_model_from_pretrained", _recorder({}))
    open_checkpoint("ViT-B-32-256/datacomp_s34b_b86k")
    assert not unreachable


def _recorder(calls):
    """What open_clip is called as, kept in `calls`; a tiny model comes back."""

    def create(source, **options):
        calls[source] = options
        model = random_model(tiny_config())
        model.visual.preprocess_cfg = dict(PREPROCESS)
        return model

    return create


QUICK = {"ViT-B-32/openai": True, "ViT-B-32/laion2b_s34b_b79k": False, "ViT-L-14/metaclip_400m": True}


@pytest.mark.parametrize("name", QUICK)
def test_weights_get_the_activation_that_they_were_trained_with(tmp_path, monkeypatch, name):
    """open_clip only warns that ViT-B-32/openai, say, has the wrong one under this name."""
    calls, quick = {}, QUICK[name]
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path))
    monkeypatch.setattr(open_clip, "create_model_from_pretrained", _recorder(calls))
    opened = open_checkpoint(name)
    assert calls[name.split("/")[0]]["force_quick_gelu"] is quick
    assert opened.config["quick_gelu"] is quick


def test_opening_a_model_leaves_logging_and_random_state_alone(tmp_path):
    write_tiny_model(tmp_path)
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    state = torch.get_rng_state()
    try:
        open_checkpoint(str(tmp_path))
        assert root.handlers == []
    finally:
        root.handlers = handlers
    assert torch.equal(torch.get_rng_state(), state)


def test_warnings_of_open_clip_are_logged(tmp_path, monkeypatch):
    write_tiny_model(tmp_path)
    (tmp_path / WEIGHTS_FILE).rename(tmp_path / "mine.safetensors")
    (tmp_path / "other.safetensors").write_bytes((tmp_path / "mine.safetensors").read_bytes())
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    records = []
    monkeypatch.setattr(open_clip_models._logger, "handle", records.append)
    open_checkpoint(str(tmp_path))
    assert "Multiple checkpoints found" in records[0].getMessage()

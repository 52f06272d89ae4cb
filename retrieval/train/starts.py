"""The model that training starts from: a trained one, or an architecture of open_clip with seeded random weights."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from retrieval.encoder.open_clip_models import Checkpoint, open_checkpoint
from retrieval.errors import TrainingError
from retrieval.train.config import SMALL, TrainConfig

_PARTS = ("embed_dim", "vision_cfg", "text_cfg")


def starting_model(config: TrainConfig) -> Checkpoint:
    """The model that `config.model` names, on the CPU, in eval mode; random weights are drawn from `config.seed`.

    Raises:
        EncoderError: there is no such trained model, or its hub is out of reach.
        TrainingError: the architecture's config cannot be read or built.
    """
    if not config.from_random:
        return open_checkpoint(str(config.model))
    name, described = _described(config.model)
    try:
        return _random(name, described, seed=config.seed)
    except TrainingError:
        raise
    except Exception as error:  # whatever open_clip and timm raise on a config that they cannot build
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise TrainingError(f"open_clip cannot build the model {name}: {text}") from error


def _described(model: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A name and an object of `model_cfg` and `preprocess_cfg`, as open_clip keeps it in a folder's config."""
    if isinstance(model, Mapping):
        return "of this config", _whole("of this config", dict(model))
    if model == SMALL:
        return model, _whole(model, json.loads((files("retrieval") / "small.json").read_text(encoding="utf-8")))
    if model.endswith(".json"):
        return model, _whole(model, _read(Path(model)))
    built_in = open_clip.get_model_config(model)
    if built_in is None:
        raise TrainingError(
            f"there is no model {model!r}: name {SMALL!r}, a folder with a model, a .json file with an open_clip "
            "config, an open_clip name/tag, hf-hub:org/model, or an architecture of open_clip.list_models()"
        )
    return model, {"model_cfg": built_in}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path} cannot be read as an open_clip config: {error}") from error


def _whole(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The config with its outer object, which may be missing."""
    config = config if "model_cfg" in config else {"model_cfg": config}
    missing = [part for part in _PARTS if part not in config["model_cfg"]]
    if missing:
        raise TrainingError(f"the config {name} is no open_clip model config: it lacks {', '.join(missing)}")
    return config


def _random(name: str, described: Mapping[str, Any], *, seed: int) -> Checkpoint:
    config = deepcopy(described["model_cfg"])
    # No weights of parts from anywhere: that would be another start than the one that was asked for.
    config["vision_cfg"] |= {"timm_model_pretrained": False} if "timm_model_name" in config["vision_cfg"] else {}
    config["text_cfg"] |= {"hf_model_pretrained": False} if "hf_model_name" in config["text_cfg"] else {}
    if (config["text_cfg"].get("tokenizer_kwargs") or {}).get("trust_remote_code"):
        raise TrainingError("its config asks to run code that comes with its tokenizer (trust_remote_code); refused")
    settings = {key: value for key, value in config.items() if key != "custom_text"}
    torch.manual_seed(seed)
    model = _model_class(config)(**settings)
    preprocess = merge_preprocess_dict(
        asdict(PreprocessCfg(size=model.visual.image_size)), described.get("preprocess_cfg", {})
    )
    return Checkpoint(name, model.eval(), config, preprocess, _tokenizer(config["text_cfg"]))


def _model_class(config: Mapping[str, Any]) -> Any:
    if "multimodal_cfg" in config:
        return open_clip.CoCa
    custom = config.get("custom_text") or "hf_model_name" in config["text_cfg"]
    return open_clip.CustomTextCLIP if custom else open_clip.CLIP


def _tokenizer(text: Mapping[str, Any]) -> Any:
    length = text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    options = text.get("tokenizer_kwargs") or {}
    if not text.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(context_length=length, **options)
    mode = text.get("tokenizer_mode")
    return open_clip.HFTokenizer(text["hf_tokenizer_name"], context_length=length, tokenizer_mode=mode, **options)

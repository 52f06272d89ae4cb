"""The model that training starts from: a trained one, or an architecture with seeded random weights or given parts."""

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

from retrieval.encoder.architectures import build_model, build_tokenizer, is_local
from retrieval.encoder.open_clip_models import Checkpoint, need_parts, open_checkpoint
from retrieval.errors import EncoderError, TrainingError
from retrieval.train.config import BUILT_IN, SMALL, TrainConfig
from retrieval.train.model.parts import load_tower_weights

_PARTS = ("embed_dim", "vision_cfg", "text_cfg")


def create_model(config: TrainConfig) -> Checkpoint:
    """The model that `config.model` names, on the CPU, in eval mode; random weights are drawn from `config.seed`.

    Raises:
        EncoderError: there is no such trained model, its hub is out of reach, or it asks to run code.
        TrainingError: the architecture's config cannot be read or built, or the weights of a part do not fit.
    """
    parts = {"image": config.image_weights, "text": config.text_weights}
    if not config.from_random:
        if any(parts.values()):
            raise TrainingError(f"{config.model} has all its weights already; leave image_weights and text_weights out")
        return open_checkpoint(str(config.model))
    name, described = _described(config.model)
    try:
        checkpoint = _random(name, described, seed=config.seed)
    except (TrainingError, EncoderError):
        raise
    except Exception as error:  # whatever open_clip and timm raise on a config that they cannot build
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise TrainingError(f"open_clip cannot build the model {name}: {text}") from error
    for side in ("image", "text"):
        if parts[side]:
            load_tower_weights(checkpoint.model, side, Path(parts[side]))
    return checkpoint


def _described(model: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A name and an object of `model_cfg` and `preprocess_cfg`, as open_clip keeps it in a folder's config."""
    if isinstance(model, Mapping):
        return "of this config", _whole("of this config", dict(model))
    if model in BUILT_IN:
        return model, _whole(model, json.loads((files("retrieval") / f"{model}.json").read_text(encoding="utf-8")))
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
    _need_local(config["text_cfg"])
    torch.manual_seed(seed)
    model = build_model(config)
    preprocess = merge_preprocess_dict(
        asdict(PreprocessCfg(size=model.visual.image_size)), described.get("preprocess_cfg", {})
    )
    return Checkpoint(name, model.eval(), config, preprocess, build_tokenizer(config["text_cfg"]))


def _need_local(text: dict[str, Any]) -> None:
    """Make the folders of a text model and its tokenizer absolute, which a run can be loaded by from anywhere."""
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if is_local(text.get(key)):
            text[key] = str(Path(text[key]).resolve())
    need_parts({"text_cfg": text}, "hf_model_name", "hf_tokenizer_name")

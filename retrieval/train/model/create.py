"""The model that training starts from: pretrained, or an architecture with seeded random weights or local towers."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import open_clip
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from retrieval.encoder.architectures import build_model, build_tokenizer, is_local_folder
from retrieval.encoder.open_clip_models import Checkpoint, check_text_parts, open_checkpoint
from retrieval.errors import EncoderError, TrainingError
from retrieval.train.config import BUILT_IN, SMALL, TrainConfig
from retrieval.train.model.param_groups import Side, get_tower

INIT_LOGIT_BIAS: Final = -10.0  # and scale, of a model with random weights: SigLIP's (Zhai et al. 2023, section 3.2)
INIT_LOGIT_SCALE: Final = math.log(10.0)
_BISECTIONS: Final = 40
_BIAS_PAIRS: Final = 1024  # pairs to fit the bias on
_CONFIG_KEYS: Final = ("embed_dim", "vision_cfg", "text_cfg")
_HEAD: Final = re.compile(r"(proj|text_projection)$|(head|fc|classifier|pooler|proj)\.")


def create_model(config: TrainConfig) -> Checkpoint:
    """Return the model that `config.model` names, on the CPU, in eval mode; random weights come from `config.seed`.

    Raises:
        EncoderError: there is no such pretrained model, its hub is out of reach, or it asks to run code.
        TrainingError: the architecture's config cannot be read or built, or the weights of a tower do not fit.
    """
    tower_weights: dict[Side, str] = {"image": config.image_weights, "text": config.text_weights}
    if not config.from_random:
        if any(tower_weights.values()):
            raise TrainingError(
                f"The model {config.model} has all its weights already. Leave out image_weights and text_weights."
            )
        return open_checkpoint(str(config.model))
    name, model_config = _read_model_config(config.model)
    try:
        checkpoint = _create_random(name, model_config, seed=config.seed)
    except (TrainingError, EncoderError):
        raise
    except Exception as error:  # whatever open_clip and timm raise on a config that they cannot build
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise TrainingError(f"open_clip cannot build the model {name}: {text}") from error
    for side, path in tower_weights.items():
        if path:
            load_tower_weights(checkpoint.model, side, Path(path))
    return checkpoint


def _read_model_config(model: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a name and an object of `model_cfg`, which may be given by itself, and perhaps `preprocess_cfg`."""
    name = model if isinstance(model, str) else "of this config"
    if isinstance(model, Mapping):
        config = dict(model)
    elif model in BUILT_IN:
        config = json.loads((files("retrieval") / f"{model}.json").read_text(encoding="utf-8"))
    elif model.endswith(".json"):
        try:
            config = dict(json.loads(Path(model).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(f"{model} cannot be read as an open_clip config: {error}.") from error
    else:
        config = open_clip.get_model_config(model)
        if config is None:
            raise TrainingError(
                f"There is no model {model!r}. Name {SMALL!r}, a folder with a model, a .json file with an open_clip "
                "config, an open_clip name/tag, hf-hub:org/model, or an architecture of open_clip.list_models()."
            )
    config = config if "model_cfg" in config else {"model_cfg": config}
    missing = [key for key in _CONFIG_KEYS if key not in config["model_cfg"]]
    if missing:
        raise TrainingError(f"The config {name} is not an open_clip model config: it lacks {', '.join(missing)}.")
    return name, config


def _create_random(name: str, model_config: Mapping[str, Any], *, seed: int) -> Checkpoint:
    config = deepcopy(model_config["model_cfg"])
    # Pretrained towers would be another start than the one that was asked for.
    config["vision_cfg"] |= {"timm_model_pretrained": False} if "timm_model_name" in config["vision_cfg"] else {}
    config["text_cfg"] |= {"hf_model_pretrained": False} if "hf_model_name" in config["text_cfg"] else {}
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if is_local_folder(config["text_cfg"].get(key)):  # absolute, so that a run can be loaded from anywhere
            config["text_cfg"][key] = str(Path(config["text_cfg"][key]).resolve())
    check_text_parts({"text_cfg": config["text_cfg"]}, "hf_model_name", "hf_tokenizer_name")
    torch.manual_seed(seed)
    model = build_model(config)
    preprocess = merge_preprocess_dict(
        asdict(PreprocessCfg(size=model.visual.image_size)), model_config.get("preprocess_cfg", {})
    )
    return Checkpoint(name, model.eval(), config, preprocess, build_tokenizer(config["text_cfg"]))


def load_tower_weights(model: Any, side: Side, path: Path) -> None:
    """Load pretrained weights into one tower of an open_clip model: all of it but its head.

    `path` is a safetensors file, with the names of timm's model, of transformers' model, or of open_clip's tower; or a
    folder that holds such a file beside its config.

    Raises:
        TrainingError: the file cannot be read, or is of another model.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"The weights of the {side} tower, {file}, cannot be read: {error}.") from error
    tower = get_tower(model, side)
    body = getattr(tower, "trunk", getattr(tower, "transformer", None) if hasattr(tower, "config") else None) or tower
    own = body.state_dict()
    # A model with a head keeps its body under a name, such as "bert.".
    prefixes = sorted({""} | {name.split(".")[0] + "." for name in weights})
    prefix = max(prefixes, key=lambda prefix: sum(prefix + name in weights for name in own))
    weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    fitting = {name: tensor for name, tensor in weights.items() if name in own and tensor.shape == own[name].shape}
    missing = sorted(
        name
        for name, tensor in own.items()
        if name not in fitting and not _HEAD.match(name) and tensor.is_floating_point()
    )
    if missing:
        more = f", nor {len(missing) - 1} more" if len(missing) > 1 else ""
        raise TrainingError(
            f"{file} is of another model than the {side} tower: it has no {missing[0]} of shape "
            f"{tuple(own[missing[0]].shape)}{more}."
        )
    body.load_state_dict(fitting, strict=False)


def add_logit_bias(checkpoint: Checkpoint, *, from_random: bool) -> Checkpoint:
    """Return the model with the trainable bias of the sigmoid loss, and a config by which open_clip loads it."""
    model = checkpoint.model
    if model.logit_bias is not None:
        return checkpoint
    model.logit_bias = nn.Parameter(torch.full_like(model.logit_scale, INIT_LOGIT_BIAS))
    if from_random:
        with torch.no_grad():
            model.logit_scale.fill_(INIT_LOGIT_SCALE)
    return replace(checkpoint, config={**checkpoint.config, "init_logit_bias": INIT_LOGIT_BIAS})


def fit_logit_bias(rows: Sequence[Tensor], scale: Tensor) -> float:
    """Return the bias at which the logits of a batch's `rows` of images and of texts predict as many matches as pairs.

    There the sigmoid loss is smallest for the towers and the temperature as they are. A model pretrained with another
    loss would otherwise spend its first hundreds of steps on pushing everything apart, or together.
    """
    images, texts = (side[:_BIAS_PAIRS].detach() for side in rows)
    logits = (scale * images @ texts.T).double()
    low, high = -float(logits.max()) - 50.0, -float(logits.min()) + 50.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if float((logits + middle).sigmoid().sum()) > len(logits) else (middle, high)
    return (low + high) / 2

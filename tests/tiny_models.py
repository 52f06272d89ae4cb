"""Tiny open_clip models with seeded random weights in open_clip's local layout: the tests have no model hub."""

from pathlib import Path
from typing import Any


def write_tiny_model(folder: Path, *, seed: int = 0, width: int = 32, image_size: int = 32) -> Path:
    """Write a two-layer CLIP (16 dimensions, open_clip's own BPE tokenizer) into `folder` and return the folder."""
    return write_model(folder, tiny_config(width=width, image_size=image_size), seed=seed)


def tiny_config(*, width: int = 32, image_size: int = 32, **changes: Any) -> dict[str, Any]:
    """Return the config of a tiny ViT-and-transformer CLIP; `changes` are laid over its `text_cfg`."""
    vision = {"layers": 2, "width": width, "head_width": 16, "patch_size": 8, "image_size": image_size}
    text = {"context_length": 77, "vocab_size": 49408, "width": width, "heads": 2, "layers": 2}
    return {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {**text, **changes}}


def write_model(folder: Path, config: dict[str, Any], *, seed: int = 0) -> Path:
    """Write the model that `config` describes, with random weights of `seed`, into `folder` and return the folder."""
    from dataclasses import asdict

    from open_clip.transform import PreprocessCfg

    from retrieval.encoder.open_clip_encoder import save_run

    preprocess = asdict(PreprocessCfg(size=config["vision_cfg"]["image_size"]))
    save_run(random_model(config, seed=seed), folder, config=config, preprocess=preprocess)
    return folder


def random_model(config: dict[str, Any], *, seed: int = 0) -> Any:
    """Return the open_clip model that `config` describes, in eval mode, its weights drawn from `seed`."""
    import open_clip
    import torch

    kinds = {"custom_text", "multimodal_cfg"} & config.keys()
    model_class = open_clip.CLIP if not kinds else open_clip.CustomTextCLIP
    if "multimodal_cfg" in kinds:
        model_class = open_clip.CoCa
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(**{name: value for name, value in config.items() if name != "custom_text"}).eval()

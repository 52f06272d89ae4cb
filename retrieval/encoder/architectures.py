"""Build models from a config: open_clip's, text towers of transformers from a local folder, and an LSTM text tower."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

HF_CONFIG = "config.json"  # what transformers calls it


class LstmText(nn.Module):
    """The text tower of VSE++: token embeddings → LSTM → its state at the end token → a projection.

    Faghri et al. 2018, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", arXiv 1707.05612, section
    4.1, with open_clip's subword tokens for words. Padding after the end token never reaches the row.
    """

    def __init__(
        self,
        *,
        embed_dim: int,  # length of a row
        context_length: int = 77,  # maximum number of tokens
        vocab_size: int = 49408,  # of the tokenizer, whose greatest id is the end token
        width: int = 1024,  # length of the LSTM's state
        embedding: int = 300,  # length of a token's embedding
        layers: int = 1,  # stacked LSTM layers
    ) -> None:
        super().__init__()
        self.context_length, self.vocab_size = context_length, vocab_size
        self.token_embedding = nn.Embedding(vocab_size, embedding)
        self.lstm = nn.LSTM(embedding, width, num_layers=layers, batch_first=True)
        self.proj = nn.Linear(width, embed_dim, bias=False)
        nn.init.normal_(self.token_embedding.weight, std=embedding**-0.5)

    def forward(self, text: Tensor) -> Tensor:
        """Return rows (n, embed_dim) of tokens (n, context length)."""
        ends = text.argmax(dim=1)
        states, _ = self.lstm(self.token_embedding(text[:, : int(ends.max()) + 1]))  # (n, length, width)
        rows: Tensor = self.proj(states[torch.arange(len(text), device=text.device), ends])
        return rows


def needs_own_loader(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether plain open_clip cannot build a folder's model: it has an LSTM, or a text model whose folder has moved."""
    text = config["text_cfg"]
    return "lstm" in text or (is_local_folder(text.get("hf_model_name")) and (folder / HF_CONFIG).is_file())


def is_local_folder(name: str | None) -> bool:
    """Whether the name of a text model is a folder, not a repository of the hub."""
    return bool(name) and (Path(str(name)).is_absolute() or Path(str(name)).is_dir())


def build_model(config: Mapping[str, Any]) -> Any:
    """Return the model of an open_clip config, or of one with `"text_cfg": {"lstm": {...}}`, with random weights."""
    settings = {key: value for key, value in config.items() if key != "custom_text"}
    text = config["text_cfg"]
    if "lstm" not in text:
        custom = config.get("custom_text") or "hf_model_name" in text
        model_class = open_clip.CustomTextCLIP if custom else open_clip.CLIP
        return (open_clip.CoCa if "multimodal_cfg" in config else model_class)(**settings)
    tower = {name: text[name] for name in ("context_length", "vocab_size") if name in text}
    placeholder = {"width": 8, "heads": 1, "layers": 1, "vocab_size": 2, "context_length": 2}
    model = open_clip.CustomTextCLIP(**settings | {"text_cfg": placeholder})
    model.text = LstmText(embed_dim=config["embed_dim"], **tower, **text["lstm"])
    model.context_length, model.vocab_size = model.text.context_length, model.text.vocab_size
    return model


def build_tokenizer(text: Mapping[str, Any], *, folder: Path | None = None) -> Any:
    """Return the tokenizer that a `text_cfg` names; one of transformers is read from `folder` unless that is None."""
    length = text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    options = text.get("tokenizer_kwargs") or {}
    if not text.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(context_length=length, **options)
    source, mode = str(folder or text["hf_tokenizer_name"]), text.get("tokenizer_mode")
    return open_clip.tokenizer.HFTokenizer(source, context_length=length, tokenizer_mode=mode, **options)


def text_model_config(model: Any) -> dict[str, Any] | None:
    """Return the architecture of a text tower of transformers, without where it came from; None for other towers."""
    config = getattr(getattr(model, "text", None), "config", None)
    if config is None:
        return None
    provenance = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}
    return {name: value for name, value in json.loads(config.to_json_string()).items() if name not in provenance}

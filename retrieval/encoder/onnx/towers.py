"""The towers of an open_clip model as torch exports them: modules of one tensor, with their dynamic dimensions."""

from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from retrieval.encoder.architectures import LstmText
from retrieval.encoder.open_clip_models import Checkpoint
from retrieval.encoder.text_towers import encode_truncated, find_causal_tower, find_end_token

_MAX_BATCH = 4096


@dataclass(frozen=True, slots=True)
class TowerModule:
    """A tower, and how it is exported."""

    module: nn.Module
    example: Tensor  # an input
    dynamic: dict[int, Any]  # the dimensions of inputs that may have another size
    names: tuple[str, str]  # a parameter is called names[0] + KEY in the module, and names[1] + KEY in the weights


def image_module(checkpoint: Checkpoint) -> TowerModule:
    """Return the image tower, for pixels (n, 3, height, width)."""
    size = checkpoint.preprocess["size"]
    height, width = size if isinstance(size, list | tuple) else (size, size)
    example = torch.linspace(-1, 1, 2 * 3 * height * width).reshape(2, 3, height, width)
    module = _ClassTokenImage if pools_class_token(checkpoint.model.visual) else _Image
    return TowerModule(module(checkpoint.model), example, {0: _batch()}, ("model.", ""))


def pools_class_token(visual: Any) -> bool:
    """Whether a tower is a ViT that takes a picture's vector from the class token alone."""
    return (
        type(visual) is VisionTransformer
        and (visual.pool_type, visual.attn_pool, visual.output_tokens) == ("tok", None, False)
        and visual.proj is not None
        and visual.transformer.batch_first
        and type(visual.transformer.resblocks[-1]) is ResidualAttentionBlock
    )


def text_module(checkpoint: Checkpoint) -> TowerModule:
    """Return the text tower, for tokens (n, length); of any length where `end_token` is not None."""
    model = checkpoint.model
    tokens = checkpoint.tokenizer(["a red ball", ""])
    if end_token(model) is None:
        return TowerModule(_Text(model), tokens, {0: _batch()}, ("model.", ""))
    length = torch.export.Dim("length", min=2, max=tokens.shape[1])
    dynamic = {0: _batch(), 1: length}
    tower = getattr(model, "text", model)
    module = _Lstm(tower) if isinstance(tower, LstmText) else _CausalText(tower)
    return TowerModule(module, tokens[:, :9], dynamic, ("tower.", "" if tower is model else "text."))


def end_token(model: Any) -> int | None:
    """Return the token that ends a text, -1 for the greatest, or None where the tower needs a text's padding too."""
    if isinstance(getattr(model, "text", None), LstmText):
        return -1
    tower = find_causal_tower(model)
    return None if tower is None else find_end_token(tower)


def _batch() -> Any:
    return torch.export.Dim("batch", min=1, max=_MAX_BATCH)


class _Image(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Any:
        return self.model.encode_image(image)


class _ClassTokenImage(nn.Module):
    """A ViT whose last block computes the class token alone, all that is read of it: 7 % less work for ViT-B/32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Any:
        visual = self.model.visual
        *blocks, last = visual.transformer.resblocks
        states = visual._embeds(image)  # noqa: SLF001 (the first step of its own forward)
        for block in blocks:
            states = block(states)
        normed = last.ln_1(states)
        token = states[:, :1] + last.ls_1(last.attention(normed[:, :1], normed, normed))
        token = token + last.ls_2(last.mlp(last.ln_2(token)))
        return visual._pool(token)[0] @ visual.proj  # noqa: SLF001 (the last step)


class _Text(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, text: Tensor) -> Any:
        return self.model.encode_text(text)


class _CausalText(nn.Module):
    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, text: Tensor) -> Tensor:
        return encode_truncated(self.tower, text)


class _Lstm(nn.Module):
    """The LSTM over whole batches: what follows the end token cannot reach the state at it."""

    def __init__(self, tower: LstmText) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, text: Tensor) -> Tensor:
        states, _ = self.tower.lstm(self.tower.token_embedding(text))  # (n, length, width)
        ends = text.argmax(dim=1)[:, None, None].expand(-1, 1, states.shape[-1])
        rows: Tensor = self.tower.proj(states.gather(1, ends)[:, 0])
        return rows

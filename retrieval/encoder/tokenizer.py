"""The tokenizer of an open_clip model without torch, and whether it is the same."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder.clip_tokenizer import CONTEXT_LENGTH, ClipTokenizer
from retrieval.encoder.text_cleaning import CLEANERS
from retrieval.errors import EncoderError

Tokenizer: TypeAlias = Callable[[Sequence[str]], NDArray[np.int64]]
"""A function of texts that returns their tokens, `(n, context length)`; threads may call it at once."""

# Empty, long and far too long; several scripts; spaces, case, marks, digits, emoji; references and broken encodings.
_PROBE_TEXTS = (
    "",
    "a",
    "A photo of 3 red shoes, size 42½ (£9.99)!",
    "don't  STOP\tthe_crème-brûlée &amp; co. <b>we'LL</b>",
    "Ein grüner Fußball 红色的鞋子 красные туфли أحذية लाल जूते 赤い靴 👟👩🏽‍🚀 ﬁ Ⅷ ²",
    "schÃ¶ne â€œSchuheâ€\x9d \u200b\u00a0 İstanbul [CLS] </s> <eos> [SEP] <pad>",
    "one of very many words " * 60,
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 12,
)


def load_tokenizer(text_config: Mapping[str, Any], folder: Path) -> Tokenizer:
    """Return the tokenizer that a model's `text_cfg` names: the same tokens as `architectures.build_tokenizer`'s.

    CLIP's own comes with this package; one of Hugging Face is read from the files in `folder`, as
    `tokenizer.save_pretrained` writes them. An EncoderError says why there is none without torch.
    """
    options = {name: value for name, value in (text_config.get("tokenizer_kwargs") or {}).items() if value}
    length = text_config.get("context_length", CONTEXT_LENGTH)
    if not text_config.get("hf_tokenizer_name"):
        _check_options(options, {"clean"})
        return ClipTokenizer(length, **options)
    from retrieval.encoder.hf_tokenizer import HuggingFaceTokenizer

    _check_options(options, {"clean", "strip_sep_token"})
    mode = text_config.get("tokenizer_mode") or ""
    if mode not in {"", "clips"}:
        raise EncoderError(f"The tokenizer mode {mode!r} is supported by torch only.")
    return HuggingFaceTokenizer(folder, context_length=length, mode=mode, **options)


def find_different_text(tokenizer: Tokenizer, other: Callable[..., Any]) -> str | None:
    """Return the first of some probing texts that two tokenizers split differently, or None.

    transformers builds some tokenizers anew in place of what `tokenizer.json` says, each version in its own way: the
    files alone do not tell.
    """
    theirs = np.asarray(other(list(_PROBE_TEXTS)))
    ours = tokenizer(_PROBE_TEXTS)
    if ours.shape != theirs.shape:
        return _PROBE_TEXTS[0]
    different = np.flatnonzero((ours != theirs).any(axis=1))
    return _PROBE_TEXTS[different[0]] if different.size else None


def _check_options(options: Mapping[str, Any], supported: set[str]) -> None:
    unknown = sorted(options.keys() - supported)
    if unknown:
        raise EncoderError(f"The tokenizer's option {unknown[0]} is supported by torch only.")
    if options.get("clean", "lower") not in CLEANERS:
        raise EncoderError(f"There is no way to clean texts called {options['clean']!r}.")

"""What open_clip's `HFTokenizer` returns, by the `tokenizers` package alone: neither transformers nor torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder.text_cleaning import CLEANERS
from retrieval.errors import EncoderError

TOKENIZER_FILE: Final = "tokenizer.json"
CONFIG_FILES: Final = ("tokenizer_config.json", "special_tokens_map.json")  # the first that names a token counts


class HuggingFaceTokenizer:
    """Texts to tokens, int64 `(n, context length)`: cleaned, with the special tokens of the folder's tokenizer, padded.

    Used for the text towers of SigLIP, SigLIP2, CLIPA and Hugging Face. May be called from several threads at once.

    Args:
        folder: Holds `tokenizer.json`, and `tokenizer_config.json` or `special_tokens_map.json`, as transformers'
            `save_pretrained` writes them.
        context_length: Tokens of a row; a longer text is cut where the tokenizer says.
        clean: How texts are cleaned first: "whitespace", "lower" or "canonicalize".
        strip_sep_token: Write zeros for the token between sentences.
        mode: "clips" puts the token of the class at the end of the row; "" takes rows as the tokenizer makes them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        context_length: int,
        clean: str = "whitespace",
        strip_sep_token: bool = False,
        mode: str = "",
    ) -> None:
        self.context_length = context_length
        self._clean, self._mode = CLEANERS[clean], mode
        self._config = _read_config(folder)
        self._tokenizer = _read_tokenizer(folder)
        needed = [*(["sep_token"] if strip_sep_token else []), "pad_token"]
        needed += ["bos_token", "eos_token", "cls_token"] if mode == "clips" else []
        self._ids = {name: self._find_id(folder, name) for name in needed}
        if mode != "clips":
            pad = {"pad_id": self._ids["pad_token"], "pad_token": _content(self._config["pad_token"])}
            side, end = (self._config.get(f"{action}_side", "right") for action in ("padding", "truncation"))
            self._tokenizer.enable_padding(length=context_length, direction=side, **pad)
            self._tokenizer.enable_truncation(context_length, direction=end)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the tokens of each text."""
        cleaned = [self._clean(text) for text in texts]
        if self._mode == "clips":
            rows = [self._encode_clips(text) for text in cleaned]
        else:  # one by one: a batch would start threads of its own beside the model's
            rows = [self._tokenizer.encode(text).ids for text in cleaned]
        tokens = np.array(rows, np.int64).reshape(len(rows), self.context_length)
        if "sep_token" in self._ids and self._mode != "clips":
            tokens[tokens == self._ids["sep_token"]] = 0
        return tokens

    def _encode_clips(self, text: str) -> list[int]:
        """Return begin, tokens, end, padding, class."""
        pad, bos, eos, cls = (self._ids[f"{name}_token"] for name in ("pad", "bos", "eos", "cls"))
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids[: self.context_length - 3]
        padding = [pad] * (self.context_length - 3 - len(ids))
        return [bos, *ids, eos, *padding, cls]

    def _find_id(self, folder: Path, name: str) -> int:
        token = self._config.get(name)
        number = None if token is None else self._tokenizer.token_to_id(_content(token))
        if number is None:
            raise EncoderError(f"The tokenizer in {folder} names no {name} of its vocabulary.")
        return int(number)


def _read_config(folder: Path) -> dict[str, Any]:
    """Return the settings and special tokens of both files; the first file that names one counts."""
    config: dict[str, Any] = {}
    for path in (folder / name for name in reversed(CONFIG_FILES)):
        if path.is_file():
            try:
                found = dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise EncoderError(f"The tokenizer's settings {path} cannot be read: {error}.") from error
            config |= {key: value for key, value in found.items() if value is not None}
    return config


def _read_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise EncoderError(f"The folder {folder} holds no {TOKENIZER_FILE}, without which only torch tokenizes for it.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises no other type
        raise EncoderError(f"The tokenizer {path} cannot be read: {error}.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _content(token: str | Mapping[str, Any]) -> str:
    """Return a special token's text, which is written plainly or with its settings."""
    return token if isinstance(token, str) else str(token["content"])

"""What encoders of either engine do around their towers: batches, texts of one length together, unit rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import EncoderError

T = TypeVar("T")
Array: TypeAlias = NDArray[np.float32]
Tokenizer: TypeAlias = Callable[[list[str]], NDArray[np.int64]]

TEXTS_PER_IMAGE = 4  # in a batch: a text is ten tokens or so, an image fifty or more
_TEXT_WINDOW = 4096  # texts tokenised and sorted at a time: batches of even length, in bounded memory


def split_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def encode_by_length(
    texts: Sequence[str],
    *,
    tokenize: Tokenizer,
    end_token: int | None,
    encode: Callable[[NDArray[np.int64]], Array],
    dimension: int,
    batch_size: int,
) -> Array:
    """Return the features of texts, (n, dimension), encoded in batches of about one length each.

    Args:
        texts: In any order; one string in place of a list is an EncoderError.
        tokenize: Returns tokens (n, context length).
        end_token: The token after which the tower needs no more of a text, -1 for the greatest; None: it needs all.
        encode: Returns the features (b, dimension) of tokens (b, length), without those that no text of them has.
        dimension: Length of a row.
        batch_size: The most texts to encode at a time.
    """
    if isinstance(texts, str):
        raise EncoderError("encode_texts takes a list of texts. Put the one text into a list.")
    features = np.empty((len(texts), dimension), np.float32)
    for start in range(0, len(texts), _TEXT_WINDOW):
        tokens = tokenize(list(texts[start : start + _TEXT_WINDOW]))
        lengths = count_used_tokens(tokens, end_token)
        for batch in split_batches(np.argsort(lengths, kind="stable").tolist(), batch_size):
            features[start + np.array(batch)] = encode(tokens[batch, : lengths[batch].max()])
    return features


def count_used_tokens(tokens: NDArray[np.int64], end_token: int | None) -> NDArray[np.int64]:
    """Return how many tokens of each text, (n, context), there are up to its first end token."""
    if end_token is None:
        return np.full(len(tokens), tokens.shape[1])
    ends = tokens if end_token < 0 else tokens == end_token
    return np.asarray(ends.argmax(axis=1) + 1, np.int64)


def to_unit_rows(parts: Sequence[Any], *, dimension: int, name: str, kind: str) -> Array:
    """Return the concatenated features at unit length, (n, dimension).

    An EncoderError names the first that is zero or not finite, counted from 1.
    """
    features = np.concatenate([np.empty((0, dimension), np.float32), *parts])
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if bad.size:
        raise EncoderError(
            f"{name} returns a zero, infinite or NaN vector for {kind} {bad[0] + 1} of {len(features)}. "
            "It has no direction: leave it out."
        )
    return np.asarray(features / lengths, np.float32)

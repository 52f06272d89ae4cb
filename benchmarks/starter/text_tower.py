"""The starter's text tower: four layers of 256 that learn to say of any text what MiniLM says of its English meaning.

Token embeddings start as MiniLM's own vectors of the tokens, cut to 256 dimensions: an untrained tower that averages
them is already a bag of words, and two minutes of training find everyday photos (coco_open R@10 .77).
"""

import array
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.transformer import TextTransformer
from teachers import SentenceTeacher
from texts import Lesson
from torch.nn import functional

WIDTH: Final = 256
CONFIG: Final = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 4, "layers": 4}

_SHARES: Final = {  # of each batch, by source; a language that is not named is in "others"
    "classes": 0.06,
    "captions": 0.09,
    "scenes": 0.13,
    "products": 0.06,
    "wordnet things": 0.09,
    "wordnet glosses": 0.05,
    "wordnet words": 0.02,
    "chinese things": 0.22,
    "dictionary zh": 0.04,
    "chinese": 0.10,
    "dictionary ja": 0.02,
    "dictionaries": 0.06,
    "others": 0.06,
}
_TEXTS: Final = 2048  # drawn at a time, and cut into batches of like length
_CUTS: Final = (1 / 3, 2 / 3, 5 / 6)
_PEAK: Final = 1.5e-3  # learning rate
_SHARPNESS: Final = 20.0  # of the softmax over a batch's similarities
_AVERAGE: Final = 0.02  # weight of the newest in the moving average that is kept


@dataclass(frozen=True, slots=True)
class Course:
    """Lessons as numbers: tokens end to end, and for each text its length, meaning and source."""

    tokens: NDArray[np.uint16]
    ends: NDArray[np.int64]  # (n,) where each text's tokens end
    meanings: NDArray[np.int64]  # (n,) row of what it means
    pools: tuple[NDArray[np.int64], ...]  # texts of each of `_SHARES`

    @classmethod
    def of(cls, lessons: Sequence[Lesson], meanings: Mapping[str, int]) -> "Course":
        """Tokenise; what exceeds the context is cut off."""
        tokenizer = open_clip.SimpleTokenizer()
        tokens, lengths = array.array("H"), []
        for lesson in lessons:
            text = [tokenizer.sot_token_id, *tokenizer.encode(lesson.text)[:75], tokenizer.eot_token_id]
            tokens.extend(text)
            lengths.append(len(text))
        groups = np.array([list(_SHARES).index(_group(lesson.source)) for lesson in lessons])
        return cls(
            tokens=np.frombuffer(tokens, np.uint16),
            ends=np.cumsum(lengths),
            meanings=np.array([meanings[lesson.meaning] for lesson in lessons]),
            pools=tuple(np.flatnonzero(groups == group) for group in range(len(_SHARES))),
        )

    def draw(self, random: np.random.Generator) -> list[NDArray[np.int64]]:
        """Batches of texts of like length, in any order."""
        shares = np.array([share * (len(pool) > 0) for share, pool in zip(_SHARES.values(), self.pools, strict=True)])
        counts = random.multinomial(_TEXTS, shares / shares.sum())
        drawn = [random.choice(pool, count) for pool, count in zip(self.pools, counts, strict=True) if count]
        texts = np.concatenate(drawn)
        texts = texts[np.argsort(self._length(texts) + random.random(len(texts)))]
        batches = np.split(texts, [int(cut * len(texts)) for cut in _CUTS])
        return [batches[place] for place in random.permutation(len(batches))]

    def padded(self, texts: NDArray[np.int64]) -> torch.Tensor:
        """Tokens (n, length of the longest)."""
        lengths = self._length(texts)
        table = np.zeros((len(texts), lengths.max()), np.int64)
        for row, (end, length) in enumerate(zip(self.ends[texts], lengths, strict=True)):
            table[row, :length] = self.tokens[end - length : end]
        return torch.from_numpy(table)

    def _length(self, texts: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.ends[texts] - np.where(texts > 0, self.ends[texts - 1], 0)


def _group(source: str) -> str:
    if source in _SHARES:
        return source
    kind, _, language = source.partition(" ")
    if kind == "captions":
        return kind
    if language.lower().startswith("zh"):
        return "chinese"
    return "dictionaries" if kind == "dictionary" else "others"


def fresh_tower(teacher: SentenceTeacher, *, seed: int) -> Any:
    """A tower (n, 77) -> (n, 384) that starts from the teacher's vectors of the tokens."""
    torch.manual_seed(seed)
    tower = TextTransformer(**CONFIG, output_dim=384)
    vectors = teacher.rows(_token_texts())
    vectors = vectors - vectors.mean(0)
    _, _, directions = torch.linalg.svd(vectors[::7], full_matrices=False)
    basis = directions[:WIDTH]  # the 256 directions in which tokens differ most
    embedded = vectors @ basis.T
    with torch.no_grad():
        tower.token_embedding.weight.copy_(0.05 * embedded / embedded.std())
        tower.positional_embedding.normal_(std=0.01)
        tower.text_projection.copy_(0.06 * basis)
    return tower


def _token_texts() -> list[str]:
    tokenizer = open_clip.SimpleTokenizer()
    pieces = [tokenizer.decoder[number].replace("</w>", "") for number in range(tokenizer.vocab_size - 2)]
    texts = [bytes(tokenizer.byte_decoder[sign] for sign in piece).decode("utf-8", "replace") for piece in pieces]
    return [*(text or " " for text in texts), " ", " "]


def trained(
    tower: Any, course: Course, rows: NDArray[np.float16], *, seconds: float, seed: int
) -> dict[str, torch.Tensor]:
    """The moving average of the tower's weights after so many seconds."""
    random, started, said = np.random.default_rng(seed), time.monotonic(), 0.0
    matrices = [weight for weight in tower.parameters() if weight.ndim > 1]
    vectors = [weight for weight in tower.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_PEAK, betas=(0.9, 0.98), eps=1e-6, fused=True)
    average: dict[str, torch.Tensor] = {}
    step = 0
    while (passed := time.monotonic() - started) < seconds:
        for batch in course.draw(random):
            step += 1
            rate = _PEAK * min(1, step / 200) * max(0.02, (1 + math.cos(math.pi * passed / seconds)) / 2)
            for group in optimizer.param_groups:
                group["lr"] = rate
            meant = functional.normalize(torch.from_numpy(rows[course.meanings[batch]].astype(np.float32)), dim=-1)
            loss = _loss(encode(tower, course.padded(batch)), meant)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimizer.step()
            _mix(average, tower, weight=1.0 if step < 400 else _AVERAGE)
        if passed - said > 60:
            said = passed
            print(f"text tower: step {step}, {passed:.0f} of {seconds:.0f} s, loss {loss.item():.3f}", flush=True)
    return average


def encode(tower: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Rows (n, 384), in bfloat16 where that is exact enough, of tokens that are cut to the longest text."""
    length = tokens.shape[1]
    with torch.autocast("cpu", torch.bfloat16):
        rows = before_projection(tower, tokens, length)
    return rows @ tower.text_projection


def before_projection(tower: Any, tokens: torch.Tensor, length: int) -> torch.Tensor:
    """What the projection is handed, (n, 256)."""
    values = tower.token_embedding(tokens) + tower.positional_embedding[:length]
    values = tower.transformer(values, attn_mask=tower.attn_mask[:length, :length])
    rows: torch.Tensor = tower.ln_final(values[torch.arange(len(tokens)), tokens.argmax(-1)]).float()
    return rows


def _loss(rows: torch.Tensor, meant: torch.Tensor) -> torch.Tensor:
    """Point where the teacher points, and be as near to the batch's other meanings as it is; keep lengths near 1."""
    unit = functional.normalize(rows, dim=-1)
    away = (1 - (unit * meant).sum(-1)).mean()
    likeness = (_SHARPNESS * meant @ meant.T).softmax(-1)
    confused = functional.kl_div((_SHARPNESS * unit @ meant.T).log_softmax(-1), likeness, reduction="batchmean")
    return 5 * away + confused + 0.02 * (rows.norm(dim=-1) - 1).square().mean()


def _mix(average: dict[str, torch.Tensor], tower: torch.nn.Module, *, weight: float) -> None:
    for name, value in tower.state_dict().items():
        if name in average:
            average[name].lerp_(value, weight)
        else:
            average[name] = value.clone()

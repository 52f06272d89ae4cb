"""Search pictures by text and texts by picture: pairs in, ranked images and captions out.

Names load what they need on first use: importing this package imports neither torch nor FAISS. Training and evaluation
are functions of the modules that carry their names: `from retrieval.train import train`,
`from retrieval.evaluate import evaluate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retrieval.errors import RetrievalError

if TYPE_CHECKING:
    from retrieval.catalog import Catalog, Hit, SyncReport
    from retrieval.encoder import Encoder, load_encoder
    from retrieval.pairs import Pair, Pairs, read_pairs
    from retrieval.query import Part, Query

__all__ = [
    "Catalog",
    "Encoder",
    "Hit",
    "Pair",
    "Pairs",
    "Part",
    "Query",
    "RetrievalError",
    "SyncReport",
    "load_encoder",
    "read_pairs",
]

_HOME = {
    "Catalog": "catalog",
    "Encoder": "encoder",
    "Hit": "catalog",
    "Pair": "pairs",
    "Pairs": "pairs",
    "Part": "query",
    "Query": "query",
    "SyncReport": "catalog",
    "load_encoder": "encoder",
    "read_pairs": "pairs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

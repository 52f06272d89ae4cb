"""Vectors in, ranked ids out: exact and approximate search by cosine, on numpy and FAISS.

Names load what they need on first use, and FAISS loads when the first structure is built or read.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from index.errors import IndexingError

if TYPE_CHECKING:
    from index.exact import exact_search
    from index.spec import IndexSpec, choose_spec, predicted_bytes
    from index.tuning import least_effort, recall_at_k
    from index.vector_index import VectorIndex
    from index.vectors import Ids, Neighbors, Rows, unit_rows

__all__ = [
    "Ids",
    "IndexSpec",
    "IndexingError",
    "Neighbors",
    "Rows",
    "VectorIndex",
    "choose_spec",
    "exact_search",
    "least_effort",
    "predicted_bytes",
    "recall_at_k",
    "unit_rows",
]

_HOME = {
    "Ids": "vectors",
    "IndexSpec": "spec",
    "Neighbors": "vectors",
    "Rows": "vectors",
    "VectorIndex": "vector_index",
    "choose_spec": "spec",
    "exact_search": "exact",
    "least_effort": "tuning",
    "predicted_bytes": "spec",
    "recall_at_k": "tuning",
    "unit_rows": "vectors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Vectors in, ranked ids out: exact and approximate search by cosine, on numpy and FAISS.

Names load their modules on first use, and FAISS loads when the first index that needs it is built or read.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from index.errors import IndexingError

if TYPE_CHECKING:
    from index.exact import exact_search
    from index.spec import IndexSpec, choose_spec, estimate_bytes
    from index.tuning import recall_at_k, tune_effort
    from index.vector_index import VectorIndex
    from index.vectors import Ids, Neighbors, Rows, unit_rows

_MODULES = {
    "exact": ("exact_search",),
    "spec": ("IndexSpec", "choose_spec", "estimate_bytes"),
    "tuning": ("recall_at_k", "tune_effort"),
    "vector_index": ("VectorIndex",),
    "vectors": ("Ids", "Neighbors", "Rows", "unit_rows"),
}
__all__ = ["Ids", "IndexSpec", "IndexingError", "Neighbors", "Rows", "VectorIndex", "choose_spec", "estimate_bytes"]
__all__ += ["exact_search", "recall_at_k", "tune_effort", "unit_rows"]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

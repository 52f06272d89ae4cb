"""The kinds of index: one file each, loaded when it is used, so that the names cost the command line nothing."""

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from index.candidates import IndexKind

KINDS = {
    "exact": "index.kinds.exact.Exact",
    "hnsw": "index.kinds.hnsw.Hnsw",
    "ivf": "index.kinds.ivf.Ivf",
    "ivfpq": "index.kinds.ivfpq.IvfPq",
}
"""The class of each kind; `auto` prefers the first that fits."""


def create_kind(name: str, sizes: Mapping[str, Any]) -> "IndexKind":
    """Return the kind of that name with those of `sizes` that it uses."""
    module, _, class_name = KINDS[name].rpartition(".")
    kind: type[IndexKind] = getattr(import_module(module), class_name)
    return kind(**{field.name: sizes[field.name] for field in fields(kind)})

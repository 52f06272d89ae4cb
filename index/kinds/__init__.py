"""The kinds of index, a file each. A kind loads when it is used, so that the names cost the command line nothing.

To add one that FAISS builds, subclass `faiss_index.FaissKind` as `hnsw.py` does: with `factory`, its `estimate_bytes`,
and where needed `configure` (what the factory string cannot say), `training_rows()` (at most; by default 0, nothing
is trained) and `search_parameters` (FAISS's, of an effort). For another engine subclass `index.candidates.IndexKind`;
where its package is optional, `engine_problem` says how it is installed.

Add its line below; a size that no kind has yet also needs a field and bounds in `index/spec.py`. `auto` never chooses
it unless its `auto_reason` says why. `retrieval.testing.kinds.check_index_kind(IndexSpec(NAME))` tests it. The
project's own tests run every kind of `KINDS`, at its default sizes or at those of `SMALL` in `tests/oracles.py`.
"""

KINDS = {
    "exact": "index.kinds.exact.Exact",
    "hnsw": "index.kinds.hnsw.Hnsw",
    "ivf": "index.kinds.ivf.Ivf",
    "ivfpq": "index.kinds.ivfpq.IvfPq",
}
"""The class of each kind. `auto` takes the first that has an `auto_reason` and fits: they stand in order of recall."""

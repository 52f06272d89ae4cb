"""The kinds of index, a file each. A kind loads when it is used, so that the names cost the command line nothing."""

KINDS = {
    "exact": "index.kinds.exact.Exact",
    "hnsw": "index.kinds.hnsw.Hnsw",
    "ivf": "index.kinds.ivf.Ivf",
    "ivfpq": "index.kinds.ivfpq.IvfPq",
}
"""The class of each kind; `auto` prefers the first that fits."""

"""The errors of the index package: one tree, so that one `except` catches them all."""


class IndexingError(Exception):
    """Something about vectors or an index of them is wrong; the message says what and what to do."""


class VectorError(IndexingError, ValueError):
    """Vectors of a wrong shape, type or dimension, or with a NaN, an infinity or a zero row."""


class SpecError(IndexingError, ValueError):
    """A kind, size, effort or count of results that no index can have."""


class DeviceError(IndexingError):
    """FAISS or the device that was asked for is not there, or cannot hold the index."""


class StoredIndexError(IndexingError):
    """A saved index is missing, damaged, or was made of other vectors."""

"""The exceptions of the index package: one tree, so that one `except` catches them all."""


class IndexingError(Exception):
    """Vectors or an index of them are wrong; the message says what happened, then what to do."""


class VectorError(IndexingError, ValueError):
    """Vectors of a wrong shape, type or dimension, or with a NaN, an infinity or a zero row."""


class SpecError(IndexingError, ValueError):
    """A kind, size, effort or number of results that is out of range."""


class DeviceError(IndexingError):
    """FAISS or the requested device is missing, or the device cannot hold the index."""


class StoredIndexError(IndexingError):
    """A saved index is missing, damaged, or was made of other vectors."""

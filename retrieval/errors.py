"""The errors of the retrieval package, all subclasses of RetrievalError."""


class RetrievalError(Exception):
    """An error that a user can fix; the message says what happened and what to do next."""


class MissingPackageError(RetrievalError, ImportError):
    """An optional package is not installed; the message is the command that installs it, and `name` the package."""


class PairsError(RetrievalError):
    """A source of image-text pairs is unreadable, or strict reading found a bad row."""


class ColumnError(PairsError):
    """A table lacks a column that was named."""


class ImageError(RetrievalError):
    """A picture is unreadable; the message is the reason, without the picture's name."""


class EncoderError(RetrievalError):
    """An encoder cannot be found or loaded, or does not match the catalog or run it is used with."""


class QueryError(RetrievalError, ValueError):
    """A query, its weights, its filter or its target is invalid."""


class CatalogError(RetrievalError):
    """A catalog cannot be opened or changed as asked."""


class ItemError(CatalogError):
    """An item, or a change of one, is malformed."""


class CatalogLockedError(CatalogError):
    """Another process is writing to the catalog."""


class CatalogFormatError(CatalogError):
    """The catalog was written by a newer version, or is not a catalog."""


class TrainingError(RetrievalError):
    """Training cannot start, continue or be resumed."""


class OtherRunError(TrainingError):
    """A run cannot be resumed with other settings or pairs than it was started with."""


class EvaluationError(RetrievalError):
    """There is nothing to measure, or the inputs do not match."""


class ServiceError(RetrievalError):
    """A service cannot start with its settings."""

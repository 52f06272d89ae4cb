"""The errors of the retrieval package: one tree, so that one `except` catches them all."""


class RetrievalError(Exception):
    """Something went wrong that a user can mend; the message says what happened and what to do next."""


class PairsError(RetrievalError):
    """A source of image-text pairs cannot be read at all, or strict reading met a bad row."""


class ColumnError(PairsError):
    """A table has no column that was asked for by name."""


class ImageError(RetrievalError):
    """One picture cannot be read; the message is the reason, without the picture's name."""


class EncoderError(RetrievalError):
    """An encoder cannot be found or loaded, or does not fit what it is used with."""


class QueryError(RetrievalError, ValueError):
    """A query, its weights, its filter or its target make no sense."""


class CatalogError(RetrievalError):
    """A catalog cannot be opened or changed as asked."""


class ItemError(CatalogError):
    """What was handed in as an item, or as a change of one, is not of that form."""


class CatalogLockedError(CatalogError):
    """Another process is writing to the catalog."""


class CatalogFormatError(CatalogError):
    """The catalog was written by a newer version, or is not a catalog."""


class TrainingError(RetrievalError):
    """Training cannot start, go on or be resumed."""


class OtherRunError(TrainingError):
    """A run was begun with other settings or pairs than it is to be resumed with."""


class EvaluationError(RetrievalError):
    """There is nothing to measure, or what was handed in does not fit together."""


class ServiceError(RetrievalError):
    """A service cannot start as it is set."""

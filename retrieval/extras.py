"""The optional packages: what to install where one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

from retrieval.errors import MissingPackageError

Extra: TypeAlias = Literal["parquet", "plots", "serve", "train"]

_MISSING: Final = {"train": "which a plain installation no longer brings"}  # as 0.1.0 did


@contextmanager
def require_extra(extra: Extra, purpose: str) -> Iterator[None]:
    """Raise a MissingPackageError with the command to run where a package that `purpose` needs is not installed.

    Args:
        extra: The extra of this distribution that brings the package.
        purpose: What needs it, as the subject of a sentence: "Reading Parquet files".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in {"", "index", "retrieval"}:  # not a missing package, but a mistake
            raise
        raise MissingPackageError(
            f"{purpose} needs the package {package}, {_MISSING.get(extra, 'which is not installed')}. "
            f"Run pip install 'crossmodal-retrieval[{extra}]'.",
            name=package,
        ) from error

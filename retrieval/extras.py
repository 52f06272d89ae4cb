"""The optional packages: what to install where one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

from retrieval.errors import MissingPackageError

Extra: TypeAlias = Literal["gpu", "parquet", "plots", "serve", "train"]

_FORMERLY_PLAIN: Final = {"open_clip", "torch"}  # packages that 0.1.0 brought without an extra


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
        problem = "a plain installation no longer brings" if package in _FORMERLY_PLAIN else "is not installed"
        raise MissingPackageError(
            f"{purpose} needs the package {package}, which {problem}. Run pip install 'crossmodal-retrieval[{extra}]'.",
            name=package,
        ) from error

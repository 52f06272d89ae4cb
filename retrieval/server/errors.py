"""What goes wrong, as an answer: one mapping from our errors to status codes, and one form of body."""

import errno
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from index.errors import IndexingError
from retrieval.errors import (
    CatalogError,
    CatalogFormatError,
    CatalogLockedError,
    EncoderError,
    ImageError,
    ItemError,
    QueryError,
    RetrievalError,
)

logger = logging.getLogger("retrieval.server")

_WAIT_FOR_WRITER = "5"  # seconds that a client is asked to wait while another process writes
_SHOWN = 300  # characters of a text of the client's in a message

_STATUS: tuple[tuple[type[RetrievalError], int], ...] = (
    (QueryError, 422),
    (ImageError, 422),
    (ItemError, 422),
    (CatalogLockedError, 409),
    (CatalogFormatError, 503),
    (EncoderError, 503),
    (CatalogError, 409),
)


class ApiError(Exception):
    """An answer that says what is wrong and what to do."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


class BusyError(ApiError):
    """More is waiting than may wait."""

    def __init__(self, what: str) -> None:
        super().__init__(503, f"Too many {what} are waiting: try again in a second.", headers={"Retry-After": "1"})


def to_api_error(error: BaseException, *, folder: str = "") -> ApiError:
    """Return what a client is told of an error; what we did not foresee is logged, and told without its text.

    Args:
        error: What was raised.
        folder: The catalog's, which clients need not know: messages say "the catalog" in its place.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TimeoutError):
        return ApiError(504, "This took longer than the service allows: ask for less, or try again.")
    status = _status(error) if isinstance(error, RetrievalError) else 500
    if status in {500, 503}:
        logger.error("a request failed", exc_info=error)
    if status == 500:  # noqa: PLR2004
        return ApiError(500, "Something went wrong in the service; its log says what.")
    message = str(error).replace(folder, "the catalog") if folder else str(error)
    headers = {"Retry-After": _WAIT_FOR_WRITER} if isinstance(error, CatalogLockedError) else {}
    return ApiError(status, message[:1].upper() + message[1:], headers=headers)


def error_response(problem: ApiError) -> JSONResponse:
    """Return the answer that tells of a problem."""
    return JSONResponse({"error": problem.message}, problem.status, problem.headers)


def to_field_error(error: ValidationError | RequestValidationError) -> ApiError:
    """Return what a client is told of fields that are not of their form; what it sent is not sent back."""
    found = [f"{_place(one['loc'])}: {one['msg']}" for one in error.errors()[:3]]
    return ApiError(422, escape_surrogates("; ".join(found))[:_SHOWN] + ". /openapi.json says what is taken.")


def escape_surrogates(text: str) -> str:
    """Return a text that every JSON reader takes."""
    return text.encode("utf-8", "backslashreplace").decode()


def add_exception_handlers(app: FastAPI) -> None:
    """Give what the routing refuses the form of every other problem."""
    app.add_exception_handler(HTTPException, _refused_by_routing)
    app.add_exception_handler(RequestValidationError, _refused_by_form)


async def _refused_by_routing(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    told = {404: "There is nothing at this address.", 405: "This address does not take this method."}
    message = told.get(error.status_code, str(error.detail))
    return error_response(ApiError(error.status_code, message, headers=error.headers))


async def _refused_by_form(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    return error_response(to_field_error(error))


def _status(error: RetrievalError) -> int:
    if isinstance(error, ItemError) or not isinstance(error, CatalogError):
        return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    causes = list(_causes(error))
    if any(_is_full(cause) for cause in causes):
        return 507
    if any(isinstance(cause, OSError | sqlite3.Error | IndexingError) for cause in causes):
        return 503
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return isinstance(error, sqlite3.Error) and "full" in str(error)


def _place(where: tuple[Any, ...]) -> str:
    return ".".join(str(one) for one in where) or "body"

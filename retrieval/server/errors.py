"""Errors as HTTP responses: one mapping from exceptions to status codes, and one response body."""

import errno
import logging
import sqlite3
from collections.abc import Mapping

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

_RETRY_WHILE_LOCKED = "5"  # seconds until a client may try again while another process writes
_MAX_DETAIL = 300  # characters

# The first class that an error is an instance of decides: CatalogError is the base of others.
_STATUS: Mapping[type[RetrievalError], int] = {
    QueryError: 422,
    ImageError: 422,
    ItemError: 422,
    CatalogLockedError: 409,
    CatalogFormatError: 503,
    EncoderError: 503,
    CatalogError: 409,
}


class ApiError(Exception):
    """An error that is answered with this status; the message says what is wrong and what to do."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


class BusyError(ApiError):
    """A queue is full."""

    def __init__(self, calls: str) -> None:
        super().__init__(503, f"Too many {calls} are waiting. Try again in a second.", headers={"Retry-After": "1"})


def to_api_error(error: BaseException, *, folder: str = "") -> ApiError:
    """Return the API error for an exception; an unexpected one is logged, and its text kept from the client.

    Args:
        error: What was raised.
        folder: The catalog's path, which clients need not know: their message says "the catalog" instead.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TimeoutError):
        return ApiError(504, "The request took longer than the service allows. Ask for less, or try again.")
    status = _status_of(error) if isinstance(error, RetrievalError) else 500
    if status in {500, 503}:
        logger.error("A request failed.", exc_info=error)
    if status == 500:  # noqa: PLR2004
        return ApiError(500, "The service failed unexpectedly. Its log has the details.")
    message = str(error).replace(folder, "the catalog") if folder else str(error)
    headers = {"Retry-After": _RETRY_WHILE_LOCKED} if isinstance(error, CatalogLockedError) else None
    return ApiError(status, message[:1].upper() + message[1:], headers=headers)


def error_response(error: ApiError) -> JSONResponse:
    """Return the response for an API error."""
    return JSONResponse({"error": error.message}, error.status, error.headers)


def to_field_error(error: ValidationError | RequestValidationError) -> ApiError:
    """Return the API error for invalid fields: their names and reasons, without the values that the client sent."""
    reasons = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors()[:3]]
    return ApiError(422, "; ".join(reasons)[:_MAX_DETAIL] + ". See /openapi.json for the schema.")


def add_exception_handlers(app: FastAPI) -> None:
    """Answer the errors of routing and of FastAPI's own validation in the form of all others."""

    @app.exception_handler(HTTPException)
    async def answer_http_error(_request: Request, error: HTTPException) -> JSONResponse:
        messages = {404: "There is nothing at this address.", 405: "This address does not support this method."}
        message = messages.get(error.status_code, error.detail)
        return error_response(ApiError(error.status_code, message, headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def answer_field_error(_request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(to_field_error(error))


def _status_of(error: RetrievalError) -> int:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    cause = error.__cause__ if isinstance(error, CatalogError) and not isinstance(error, ItemError) else None
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}:
            return 507
        if isinstance(cause, sqlite3.Error) and "full" in str(cause):
            return 507
        if isinstance(cause, OSError | sqlite3.Error | IndexingError):
            status = 503
        cause = cause.__cause__
    return status

"""The route of bulk requests: lines of JSON in, one line out for each, once its change is durable."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from retrieval.errors import RetrievalError
from retrieval.server.auth import WRITE_ACCESS
from retrieval.server.catalog_api import ChangeResult, ItemChange
from retrieval.server.errors import ApiError, BusyError, to_api_error
from retrieval.server.parsing import check_images, parse_model, require_media_type
from retrieval.server.schemas import ChangeBody, ChangeResponse, error_responses, request_body
from retrieval.server.service import Service, ServiceDep

_NDJSON = "application/x-ndjson"
_BATCH_LINES = 64
_BATCH_BYTES = 8 * 2**20
_BATCH_SECONDS = 0.5  # a started batch is committed when no bytes have come for this long
_MAX_REQUESTS = 4  # bulk requests at a time

router = APIRouter()


@router.post(
    "/items",
    dependencies=WRITE_ACCESS,
    response_class=Response,
    responses={
        200: {
            "content": {_NDJSON: {"schema": ChangeResponse.model_json_schema()}},
            "description": "One line for each line of the request.",
        },
        **error_responses(401, 403, 415, 503),
    },
    openapi_extra=request_body({_NDJSON: ChangeBody}),
    summary="Put, patch and delete many items",
)
async def change_items(request: Request, service: ServiceDep) -> Response:
    """Accept lines of `{"put": {...}}`, `{"patch": {...}}` or `{"delete": "id"}`, and answer each with its own line.

    Lines are committed in batches, in order; a line that is answered with a status below 300 is durable. A line that
    fails stops no other. Responses are sent while lines still come; a client may also read them at the end.
    """
    require_media_type(request, _NDJSON, "application/ndjson", "application/jsonl")
    service.require_writable()
    if service.bulk_requests >= _MAX_REQUESTS:
        raise BusyError("bulk requests")
    return _BulkResponse(service)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line as it came; without data if it was too long."""

    number: int
    data: bytes | None


@dataclass(slots=True)
class _LineSplitter:
    """Splits chunks into lines of at most `max_bytes`, numbered from 1; blank ones are skipped."""

    max_bytes: int
    _number: int = 1
    _rest: bytearray = field(default_factory=bytearray)
    _is_too_long: bool = False

    def feed(self, chunk: bytes) -> list[_Line]:
        """Return the lines that this chunk ends."""
        *ends, rest = chunk.split(b"\n")
        lines = []
        for end in ends:
            self._append(end)
            lines += self.flush()
        self._append(rest)
        return lines

    def flush(self) -> list[_Line]:
        """Return the rest as a line, unless it is blank."""
        line = _Line(self._number, None if self._is_too_long else bytes(self._rest).strip())
        self._number += 1
        self._rest.clear()
        self._is_too_long = False
        return [] if line.data == b"" else [line]

    def _append(self, part: bytes) -> None:
        self._is_too_long = self._is_too_long or len(self._rest) + len(part) > self.max_bytes
        if self._is_too_long:
            self._rest.clear()
        else:
            self._rest += part


class _BulkResponse(Response):
    """Reads the request while it answers it: neither side has to finish first."""

    def __init__(self, service: Service) -> None:
        super().__init__(media_type=_NDJSON)
        self._service = service
        self._answers: asyncio.Queue[bytes | None] = asyncio.Queue()  # no longer than a request has lines
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._service.bulk_requests += 1
        work = asyncio.create_task(self._process(Request(scope, receive)))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (answer := await self._answers.get()) is not None:
                message = {"type": "http.response.body", "body": answer, "more_body": True}
                await asyncio.wait_for(send(message), self._service.settings.client_timeout)
            await send({"type": "http.response.body", "body": b""})
            await work
        finally:
            self._service.bulk_requests -= 1
            work.cancel()

    async def _process(self, request: Request) -> None:
        try:
            async for lines in batch_lines(request.stream(), self._service):
                self._answer(await _apply_lines(self._service, lines))
        except ClientDisconnect:
            pass  # committed changes stay; an incomplete line is not one
        except ApiError as error:
            self._answer([{"id": None, "status": error.status, "error": error.message}])
        finally:
            self._answers.put_nowait(None)

    def _answer(self, answers: Sequence[dict[str, Any]]) -> None:
        for answer in answers:
            self._service.metrics.lines.labels(str(answer["status"])).inc()
        text = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
        self._answers.put_nowait(text.encode())


async def batch_lines(chunks: AsyncIterator[bytes], service: Service) -> AsyncIterator[list[_Line]]:
    """Yield batches of a stream's lines, which do not wait long for more; ApiError 413 after the last allowed line."""
    splitter, limit, batch = _LineSplitter(service.settings.max_body), service.settings.max_lines, list[_Line]()
    async for chunk in _with_pauses(chunks):
        lines = splitter.flush() if chunk is None else splitter.feed(chunk)
        allowed = [line for line in lines if line.number <= limit]
        for line in allowed:
            batch.append(line)
            if len(batch) >= _BATCH_LINES or sum(len(one.data or b"") for one in batch) >= _BATCH_BYTES:
                yield batch
                batch = []
        is_over = len(allowed) < len(lines)
        if batch and (not chunk or is_over):
            yield batch
            batch = []
        if is_over:
            raise ApiError(413, f"A request has at most {limit:,} lines. Send the rest in another.")


async def _with_pauses(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """Yield the chunks, b"" whenever none came for a while, and None at the end."""
    coming: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(chunks, None))
            await asyncio.wait({coming}, timeout=_BATCH_SECONDS)
            if not coming.done():
                yield b""
                continue
            chunk, coming = coming.result(), None
            if chunk != b"":
                yield chunk
            if chunk is None:
                return
    finally:
        if coming is not None:
            coming.cancel()


async def _apply_lines(service: Service, lines: Sequence[_Line]) -> list[dict[str, Any]]:
    """Return an answer for each line, once its change is durable."""
    parsed: Sequence[ItemChange | ApiError]
    try:
        parsed = await service.read_executor.run(lambda: [_parse_line(line, service) for line in lines])
    except BusyError as error:
        parsed = [error] * len(lines)
    changes = [one for one in parsed if isinstance(one, ItemChange)]
    try:
        results = iter(await service.apply(changes))
    except ApiError as error:
        results = iter([ChangeResult(error.status, error)] * len(changes))
    return [_answer_line(line, one, results) for line, one in zip(lines, parsed, strict=True)]


def _parse_line(line: _Line, service: Service) -> ItemChange | ApiError:
    if line.data is None:
        return ApiError(413, f"The line is too long: the limit is {service.settings.max_body:,} bytes.")
    try:
        change = parse_model(ChangeBody, line.data)
        kind: Any = next(iter(change.model_fields_set))
        body = getattr(change, kind)
        if kind == "delete":
            return ItemChange(kind, body, None)
        check_images(body.images, service.settings.max_pixels)
    except (ApiError, RetrievalError) as error:
        return to_api_error(error)
    return ItemChange(kind, body.id, body)


def _answer_line(line: _Line, parsed: ItemChange | ApiError, results: Iterator[ChangeResult]) -> dict[str, Any]:
    result = next(results) if isinstance(parsed, ItemChange) else ChangeResult(parsed.status, parsed)
    item_id = parsed.id if isinstance(parsed, ItemChange) else None
    answer = {"line": line.number, "id": item_id, "status": result.status}
    return answer if result.error is None else answer | {"error": result.error.message}

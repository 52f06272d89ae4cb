"""Many changes in one request: lines of JSON in, a line of JSON out for each, once it is on the disk."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from retrieval.errors import RetrievalError
from retrieval.server.auth import WRITE_ACCESS
from retrieval.server.changes import ChangeResult, ItemChange, check_images
from retrieval.server.errors import ApiError, BusyError, to_api_error
from retrieval.server.openapi import error_responses, request_body
from retrieval.server.parsing import parse_json, require_media_type, validate_model
from retrieval.server.schemas import ChangeBody, ChangeResponse
from retrieval.server.service import Service, ServiceDep

_LINES = "application/x-ndjson"
_TYPES = (_LINES, "application/ndjson", "application/jsonl")
_BATCH_LINES = 64
_BATCH_BYTES = 8 * 2**20
_BATCH_SECONDS = 0.5  # lines that are there are committed when nothing has come for so long
_AT_ONCE = 4  # bulk requests


def add_routes(app: FastAPI) -> None:
    """Add the route of bulk requests."""
    content = {_LINES: {"schema": ChangeResponse.model_json_schema()}}
    app.add_api_route(
        "/items",
        change_many,
        methods=["POST"],
        dependencies=WRITE_ACCESS,
        response_class=Response,
        responses={200: {"content": content, "description": "A line for each."}, **error_responses(401, 403, 415, 503)},
        openapi_extra=request_body(lines=ChangeBody),
        summary="Put, patch and delete many items",
    )


async def change_many(request: Request, service: ServiceDep) -> Response:
    """Take lines of `{"put": {...}}`, `{"patch": {...}}` or `{"delete": "id"}`, and answer each with its own line.

    Lines are committed in batches, in their order; a line that is answered with a status below 300 is on the disk. A
    line that fails stops no other. Answers come while lines are sent, and whoever reads them at the end gets them all.
    """
    require_media_type(request, *_TYPES)
    service.require_writable()
    if service.bulks >= _AT_ONCE:
        raise BusyError("bulk requests")
    return _Answers(service)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line as it came; None where it was too long to keep."""

    number: int
    data: bytes | None


@dataclass(slots=True)
class _Lines:
    """Cuts chunks into lines of bounded length, numbered from 1; blank ones are left out."""

    most: int
    number: int = 1
    _rest: bytearray = field(default_factory=bytearray)
    _too_long: bool = False

    def feed(self, chunk: bytes) -> list[_Line]:
        """Return the lines that this chunk ends."""
        *ended, rest = chunk.split(b"\n")
        lines = []
        for part in ended:
            self._add(part)
            lines += self.end()
            self.number += 1
        self._add(rest)
        return lines

    def end(self) -> list[_Line]:
        """Return what is there as a line, unless it is blank."""
        line = _Line(self.number, None if self._too_long else bytes(self._rest).strip())
        self._rest.clear()
        self._too_long = False
        return [] if line.data == b"" else [line]

    def _add(self, part: bytes) -> None:
        self._too_long = self._too_long or len(self._rest) + len(part) > self.most
        if self._too_long:
            self._rest.clear()
        else:
            self._rest += part


class _Answers(Response):
    """Reads the request while it answers it: neither side has to be done first."""

    def __init__(self, service: Service) -> None:
        super().__init__(media_type=_LINES)
        self._served = service
        self._answers: asyncio.Queue[bytes | None] = asyncio.Queue()  # no longer than a request has lines
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer line by line."""
        self._served.bulks += 1
        work = asyncio.create_task(self._work(Request(scope, receive)))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (answer := await self._answers.get()) is not None:
                message = {"type": "http.response.body", "body": answer, "more_body": True}
                await asyncio.wait_for(send(message), self._served.settings.slow)
            await send({"type": "http.response.body", "body": b""})
            await work
        finally:
            self._served.bulks -= 1
            work.cancel()

    async def _work(self, request: Request) -> None:
        try:
            async for lines in batches(request.stream(), self._served):
                self._say(await _outcomes(self._served, lines))
        except ClientDisconnect:
            pass  # what was committed stays; a line that broke off is not one
        except ApiError as problem:
            self._say([{"id": None, "status": problem.status, "error": problem.message}])
        finally:
            self._answers.put_nowait(None)

    def _say(self, answers: Sequence[dict[str, Any]]) -> None:
        for answer in answers:
            self._served.metrics.lines.labels(str(answer["status"])).inc()
        text = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
        self._answers.put_nowait(text.encode())


async def batches(chunks: AsyncIterator[bytes], service: Service) -> AsyncIterator[list[_Line]]:
    """Cut a stream into lines, and these into batches; a batch does not wait long for more.

    Raises:
        Problem: there are more lines than a request may have; those before it were given.
    """
    lines, batch, most = _Lines(service.settings.max_body), list[_Line](), service.settings.max_lines
    async for chunk in _with_pauses(chunks):
        ended = lines.end() if chunk is None else lines.feed(chunk)
        over = any(line.number > most for line in ended)
        for line in ended:
            if line.number > most:
                break
            batch.append(line)
            if _is_full(batch):
                yield batch
                batch = []
        if batch and (chunk in {None, b""} or over):
            yield batch
            batch = []
        if over:
            raise ApiError(413, f"A request has at most {most:,} lines: send the rest in another.")


def _is_full(batch: Sequence[_Line]) -> bool:
    return len(batch) >= _BATCH_LINES or sum(len(line.data or b"") for line in batch) >= _BATCH_BYTES


async def _with_pauses(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """Give the chunks, b"" whenever none came for a while, and None at the end."""
    coming = asyncio.ensure_future(_next(chunks))
    try:
        while True:
            await asyncio.wait({coming}, timeout=_BATCH_SECONDS)
            if not coming.done():
                yield b""
            elif (chunk := coming.result()) is None:
                break
            else:
                coming = asyncio.ensure_future(_next(chunks))
                if chunk:
                    yield chunk
        yield None
    finally:
        coming.cancel()


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


async def _outcomes(service: Service, lines: Sequence[_Line]) -> list[dict[str, Any]]:
    """Return an answer for each line, once what it asks for is on the disk."""
    read = [await _in_lane(line, service) for line in lines]
    changes = [one for one in read if isinstance(one, ItemChange)]
    done = iter(await _changed(service, changes))
    answers = []
    for line, one in zip(lines, read, strict=True):
        outcome = next(done) if isinstance(one, ItemChange) else ChangeResult(one.status, one)
        answers.append(_answer(line, one.id if isinstance(one, ItemChange) else None, outcome))
    return answers


async def _changed(service: Service, changes: Sequence[ItemChange]) -> Sequence[ChangeResult]:
    try:
        return await service.change(changes)
    except ApiError as problem:
        return [ChangeResult(problem.status, problem)] * len(changes)


async def _in_lane(line: _Line, service: Service) -> ItemChange | ApiError:
    try:
        return await service.read_executor.run(_read, line, service)
    except BusyError as problem:
        return problem


def _read(line: _Line, service: Service) -> ItemChange | ApiError:
    if line.data is None:
        return ApiError(413, f"The line is too long: at most {service.settings.max_body:,} bytes are taken.")
    try:
        change = validate_model(ChangeBody, parse_json(line.data))
        item = change.put or change.patch
        check_images(() if item is None else item.images, service.settings.max_pixels)
    except (ApiError, RetrievalError) as error:
        return to_api_error(error)
    return ItemChange("put" if change.put else "patch" if change.patch else "delete", change.id, item)


def _answer(line: _Line, name: str | None, outcome: ChangeResult) -> dict[str, Any]:
    answer = {"line": line.number, "id": name, "status": outcome.status}
    return answer if outcome.error is None else answer | {"error": outcome.error.message}

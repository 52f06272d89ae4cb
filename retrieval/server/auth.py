"""Who may do what: keys with a scope each, compared in constant time; kept only as their SHA-256."""

import hmac
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from retrieval.errors import ServiceError
from retrieval.server.errors import ApiError
from retrieval.server.settings import Settings

Scope: TypeAlias = Literal["read", "write"]

_bearer = HTTPBearer(auto_error=False, description="A key, as `Authorization: Bearer KEY`.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key, where a bearer token is in the way.")


class ApiKeys:
    """The keys of a service; without any, everybody who reaches it may do everything."""

    def __init__(self, settings: Settings) -> None:
        self._read = _digests(settings.read_keys)
        self._write = _digests(settings.write_keys)
        self.open = not settings.has_keys

    def find_scope(self, key: str) -> Scope | None:
        """Return what a key may do, None where it is none of ours; all keys are compared, whichever fits."""
        digest = _digest(key)
        require_write_key = _among(digest, self._write)
        require_read_key = _among(digest, self._read)
        return "write" if require_write_key else "read" if require_read_key else None


def read_key_file(path: Path) -> dict[Scope, tuple[str, ...]]:
    """Return the keys of a file: lines of `read KEY` or `write KEY`; blank lines and those with # are left out.

    Raises:
        ServiceError: the file cannot be read, or a line is of another form.
    """
    found: dict[Scope, list[str]] = {"read": [], "write": []}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"The keys in {path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, start=1):
        match line.partition("#")[0].split():
            case []:
                pass
            case [("read" | "write") as scope, key]:
                found[scope].append(key)
            case _:
                raise ServiceError(f"{path}, line {number}: write `read KEY` or `write KEY`.")
    return {scope: tuple(keys) for scope, keys in found.items()}


Bearer: TypeAlias = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
Header: TypeAlias = Annotated[str | None, Depends(_header)]


async def require_read_key(request: Request, bearer: Bearer, header: Header) -> None:
    """Let a request with a key of either scope through."""
    _check(request.app.state.keys, _given(bearer, header), "read")


async def require_write_key(request: Request, bearer: Bearer, header: Header) -> None:
    """Let a request with a key that may write through."""
    _check(request.app.state.keys, _given(bearer, header), "write")


READ_ACCESS: list[Any] = [Depends(require_read_key)]
WRITE_ACCESS: list[Any] = [Depends(require_write_key)]


def _given(bearer: HTTPAuthorizationCredentials | None, header: str | None) -> str | None:
    return header if bearer is None else bearer.credentials


def _check(keys: ApiKeys, key: str | None, scope: Scope) -> None:
    if keys.open:
        return
    held = None if key is None else keys.find_scope(key)
    if held is None:
        what = "This needs a key" if key is None else "This key is not known"
        raise ApiError(401, f"{what}: send one as `Authorization: Bearer KEY`.", headers={"WWW-Authenticate": "Bearer"})
    if scope == "write" and held != "write":
        raise ApiError(403, "This key may only read; a change needs one that may write.")


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def _digests(keys: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(_digest(key) for key in keys)


def _among(digest: bytes, known: Iterable[bytes]) -> bool:
    return any([hmac.compare_digest(digest, one) for one in known])  # noqa: C419 - all of them, whichever fits

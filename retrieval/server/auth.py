"""API keys, each with a scope; kept only as SHA-256, and compared in constant time."""

import hmac
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from retrieval.errors import ServiceError
from retrieval.server.errors import ApiError
from retrieval.server.settings import Settings

Scope: TypeAlias = Literal["read", "write"]

_BEARER = HTTPBearer(auto_error=False, description="A key, as `Authorization: Bearer KEY`.")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key, where Authorization has another use.")


class ApiKeys:
    """The keys of a service; without any, everyone who can reach it may do everything."""

    def __init__(self, settings: Settings) -> None:
        scopes: dict[Scope, tuple[str, ...]] = {"read": settings.read_keys, "write": settings.write_keys}
        self._digests = [(_digest(key), scope) for scope, keys in scopes.items() for key in keys]
        self.required = settings.has_keys

    def find_scope(self, key: str) -> Scope | None:
        """Return the scope of a key, None if it is unknown; every key is compared, whichever matches."""
        digest = _digest(key)
        scopes = [scope for known, scope in self._digests if hmac.compare_digest(digest, known)]
        return "write" if "write" in scopes else "read" if scopes else None


def read_key_file(path: Path) -> dict[Scope, tuple[str, ...]]:
    """Return the keys in a file of lines `read KEY` or `write KEY`; blank lines and comments after # are skipped.

    Raises:
        ServiceError: The file cannot be read, or a line has another form.
    """
    keys: dict[Scope, list[str]] = {"read": [], "write": []}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"The key file {path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, start=1):
        match line.partition("#")[0].split():
            case []:
                pass
            case [("read" | "write") as scope, key]:
                keys[scope].append(key)
            case _:
                raise ServiceError(f"{path}, line {number}: write `read KEY` or `write KEY`.")
    return {scope: tuple(found) for scope, found in keys.items()}


def _require_scope(scope: Scope) -> list[Any]:
    async def check_key(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
        header: Annotated[str | None, Depends(_HEADER)],
    ) -> None:
        keys: ApiKeys = request.app.state.keys
        if not keys.required:
            return
        key = header if bearer is None else bearer.credentials
        granted = None if key is None else keys.find_scope(key)
        if granted is None:
            reason = "This request needs a key" if key is None else "This key is unknown"
            headers = {"WWW-Authenticate": "Bearer"}
            raise ApiError(401, f"{reason}. Send one as `Authorization: Bearer KEY`.", headers=headers)
        if scope == "write" and granted != "write":
            raise ApiError(403, "This key has read scope. A change needs a key with write scope.")

    return [Depends(check_key)]


READ_ACCESS = _require_scope("read")
"""Dependencies of a route that a key of either scope opens."""
WRITE_ACCESS = _require_scope("write")
"""Dependencies of a route that only a key with write scope opens."""


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()

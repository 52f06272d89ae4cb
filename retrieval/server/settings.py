"""How a service is set: by flags, else by RETRIEVAL_* variables, else by default; checked before anything starts."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from retrieval.errors import ServiceError
from retrieval.images import MAX_PIXELS

PREFIX = "RETRIEVAL_"
_LEAST_KEY = 16  # characters: fewer can be guessed
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Settings:
    """What a service heeds; every field is a flag of `retrieval serve` or a variable RETRIEVAL_<NAME>.

    Attributes:
        host: Address to listen on. Anything but loopback needs keys.
        port: 0 takes a free one.
        read_only: Refuse every change.
        read_keys: Keys that may search and read.
        write_keys: Keys that may do that and change items.
        cors_origins: Origins of pages whose scripts may call, such as "https://shop.example".
        max_body: Bytes of a request, and of a line of a bulk request.
        max_pixels: Of a picture that is sent.
        max_results: Hits of a search, `offset` + `k`.
        max_lines: Lines of a bulk request.
        queue: Requests that may wait, of searches, reads, changes and checks each; the next one is told to come again.
        batch: Searches that go through the encoder and the index together; 0 measures at the start what pays.
        timeout: Seconds that a request may take; a bulk request may take as long as its lines do.
        slow: Seconds to wait for a client's next bytes.
        stop: Seconds that requests under way have to finish once the service is told to stop. A change or a search that
            runs by then is waited for, but no longer answered.
        thumbnails: Bytes of memory for small pictures.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    read_only: bool = False
    read_keys: tuple[str, ...] = field(default=(), repr=False)
    write_keys: tuple[str, ...] = field(default=(), repr=False)
    cors_origins: tuple[str, ...] = ()
    max_body: int = 32 * 2**20
    max_pixels: int = MAX_PIXELS
    max_results: int = 1000
    max_lines: int = 100_000
    queue: int = 256
    batch: int = 0
    timeout: float = 30.0
    slow: float = 15.0
    stop: float = 20.0
    thumbnails: int = 64 * 2**20

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ServiceError: a number out of its range, a weak key, an origin that is none, or no keys where others reach.
        """
        for one in fields(self):
            if one.type in {int, float} and getattr(self, one.name) < (one.name not in {"port", "batch"}):
                raise ServiceError(f"{_shown(one.name)} is {getattr(self, one.name)}; it is to be at least 1.")
        if self.port > _MAX_PORT:
            raise ServiceError(f"There is no port {self.port}; ports go up to {_MAX_PORT}.")
        for key in (*self.read_keys, *self.write_keys):
            _check_key(key)
        for origin in self.cors_origins:
            _check_origin(origin)
        if not self.has_keys and not is_loopback(self.host):
            raise ServiceError(
                f"Listening on {self.host} lets other machines in, and there are no keys: set {PREFIX}READ_KEYS or "
                f"{PREFIX}WRITE_KEYS, or name --keys, or stay on 127.0.0.1."
            )

    @property
    def has_keys(self) -> bool:
        """Whether a request needs a key."""
        return bool(self.read_keys or self.write_keys)


def read_settings(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Return settings from the flags that are not None, then from the environment; the rest as it is by default.

    Raises:
        ServiceError: a variable that is not of its form; and what Settings refuses.
    """
    known = {one.name: one.type for one in fields(Settings)}
    values = {
        name: _parsed(PREFIX + name.upper(), environment[PREFIX + name.upper()], kind)
        for name, kind in known.items()
        if environment.get(PREFIX + name.upper())
    }
    return Settings(**{**values, **{name: value for name, value in flags.items() if value is not None}})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _parsed(name: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        return kind(text) if kind in {str, int, float} else tuple(text.replace(",", " ").split())
    except (ValueError, KeyError):
        wanted = {bool: "1 or 0", int: "a whole number", float: "a number"}[kind]
        raise ServiceError(f"{name} is {text!r}; it is to be {wanted}.") from None


def _check_key(key: str) -> None:
    if len(key) < _LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ServiceError(
            f"A key has at least {_LEAST_KEY} printable ASCII characters and no blanks; one of yours has not. "
            f"`openssl rand -hex 24` makes one."
        )


def _check_origin(origin: str) -> None:
    parts = urlsplit(origin)
    if parts.scheme not in {"http", "https"} or origin != f"{parts.scheme}://{parts.netloc}":
        raise ServiceError(f"{origin!r} is no origin; write one such as https://shop.example, without a path or *.")


def _shown(name: str) -> str:
    return "--" + name.replace("_", "-")

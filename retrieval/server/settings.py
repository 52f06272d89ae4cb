"""Settings of a service, declared once: checks, the options of `retrieval serve` and RETRIEVAL_* variables derive."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from retrieval.errors import ServiceError
from retrieval.settings import check_settings, setting

_MIN_KEY = 16  # characters: fewer can be guessed


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a service; `settings_table(Settings)` is the reference.

    Raises:
        ServiceError: A number is out of its range, a key is weak, an origin is malformed, or an address that other
            machines reach has no keys.
    """

    host: str = setting("127.0.0.1", "Address to listen on; any but loopback needs keys.", metavar="ADDRESS")
    port: int = setting(8000, "Port to listen on; 0 takes a free one.", low=0, high=65_535)
    read_only: bool = setting(False, "Accept no changes.")
    read_keys: tuple[str, ...] = setting((), "Keys with read scope: search and read.", hidden=True, secret=True)
    write_keys: tuple[str, ...] = setting((), "Keys with write scope: changes too.", hidden=True, secret=True)
    cors_origins: tuple[str, ...] = setting(
        (), "Origin whose pages may send requests; repeatable.", flag="--cors-origin", metavar="URL"
    )
    max_body: int = setting(
        32 * 2**20, "Largest request, and largest line of a bulk request, in bytes.", low=1, metavar="BYTES"
    )
    max_pixels: int = setting(89_478_485, "Largest image of a request, in pixels.", low=1)
    max_results: int = setting(1000, "Largest offset + k of a search.", low=1)
    max_lines: int = setting(100_000, "Most lines of a bulk request.", low=1, hidden=True)
    queue: int = setting(256, "Waiting requests of each kind, above which a client must retry.", low=1)
    batch_size: int = setting(0, "Most searches in a forward pass; 0 measures what pays.", low=0, old_name="batch")
    timeout: float = setting(
        30.0,
        "Seconds until a request is ended.",
        details="A bulk request may take as long as its lines do.",
        low=1,
    )
    client_timeout: float = setting(
        15.0, "Seconds to wait for a client's next bytes.", low=1, old_name="slow", hidden=True
    )
    shutdown_timeout: float = setting(
        20.0,
        "Seconds for requests in progress after a signal to stop.",
        details="Longer changes and searches still finish, but are no longer answered.",
        low=1,
        old_name="stop",
    )
    thumbnail_cache: int = setting(
        64 * 2**20, "Memory of the thumbnail cache, in bytes.", low=1, old_name="thumbnails", hidden=True
    )

    def __post_init__(self) -> None:
        """Check every setting."""
        check_settings(self, error=ServiceError)
        for key in (*self.read_keys, *self.write_keys):
            if len(key) < _MIN_KEY or not key.isascii() or not key.isprintable() or " " in key:
                raise ServiceError(
                    f"A key needs at least {_MIN_KEY} printable ASCII characters and no spaces, and one of yours is"
                    " different. `openssl rand -hex 24` creates one."
                )
        for origin in self.cors_origins:
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or origin != f"{parts.scheme}://{parts.netloc}":
                raise ServiceError(
                    f"Invalid origin: {origin!r}. Write one such as https://shop.example, without a path or *."
                )
        if not self.has_keys and not _is_loopback(self.host):
            raise ServiceError(
                f"The address {self.host} admits other machines, and there are no keys. Set RETRIEVAL_READ_KEYS or"
                " RETRIEVAL_WRITE_KEYS, pass --keys, or stay on 127.0.0.1."
            )

    @property
    def has_keys(self) -> bool:
        """Whether requests need a key."""
        return bool(self.read_keys or self.write_keys)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

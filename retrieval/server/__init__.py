"""A catalog over HTTP: searches, items, pictures. `make_app` makes the application, `run.serve` serves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from retrieval.catalog import Catalog
from retrieval.server.auth import ApiKeys
from retrieval.server.catalog_api import CatalogAPI
from retrieval.server.errors import add_exception_handlers
from retrieval.server.metrics import RequestMetrics
from retrieval.server.middleware.browser_security import HeadAndOptions, SameOrigin, SecurityHeaders
from retrieval.server.middleware.limits import BodyLimitMiddleware, ErrorMiddleware
from retrieval.server.paths import RawItemPaths
from retrieval.server.routes import bulk, facets, health, images, items, page, search
from retrieval.server.service import Service
from retrieval.server.settings import Settings, read_settings

__all__ = ["Service", "Settings", "make_app", "read_settings"]

_DAY = 86_400
_ABOUT = """Search pictures by text, and texts by picture.

An id in an address is one segment, percent-encoded as a whole ("a/b" is `a%2Fb`). Errors are `{"error": "..."}`."""


def make_app(catalog: Catalog, settings: Settings | None = None) -> FastAPI:
    """Return an ASGI application that serves a catalog; whoever opened the catalog closes it.

    Its `state.service` says when it is ready. Settings that let other machines in have keys.
    """
    settings = settings or Settings()
    service = Service(CatalogAPI(catalog), settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    # No documentation pages: they load scripts from elsewhere.
    app = FastAPI(
        title="crossmodal-retrieval",
        version=_version(),
        description=_ABOUT,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.service, app.state.keys = service, ApiKeys(settings)
    for room in (search, facets, items, bulk, images, health, page):
        room.add_routes(app)
    add_exception_handlers(app)
    _add_middleware(app, service)
    return app


def _add_middleware(app: FastAPI, service: Service) -> None:
    """Add it from the inside out: the last one sees a request first."""
    settings = service.settings
    app.add_middleware(BodyLimitMiddleware, settings=settings)
    app.add_middleware(HeadAndOptions, routes=app.routes)
    app.add_middleware(RawItemPaths)
    if not settings.has_keys:
        app.add_middleware(SameOrigin, settings=settings)
    app.add_middleware(ErrorMiddleware, timeout=settings.timeout, folder=service.api.folder)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "If-None-Match"],
            expose_headers=["ETag", "Retry-After"],
            max_age=_DAY,
        )
    app.add_middleware(SecurityHeaders, shared=bool(settings.cors_origins))
    app.add_middleware(RequestMetrics, metrics=service.metrics)


def _version() -> str:
    try:
        return version("crossmodal-retrieval")
    except PackageNotFoundError:
        return "0"

"""A catalog over HTTP: `make_app` creates the application, `uvicorn_server.serve` runs it.

Importing the package loads no web framework: the command line needs its settings only.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from retrieval.extras import require_extra
from retrieval.server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from retrieval.catalog import Catalog
    from retrieval.server.service import Service

__all__ = ["Settings", "make_app"]

_DAY = 86_400
_DESCRIPTION = """Search images by text, and texts by image.

An id in a path is one segment, percent-encoded as a whole ("a/b" is `a%2Fb`). Errors are `{"error": "..."}`."""


def make_app(catalog: "Catalog", settings: Settings | None = None) -> "FastAPI":
    """Return an ASGI application that serves an open catalog, which remains the caller's to close.

    Its `state.service` says when it is ready. Settings that admit other machines need keys.
    """
    with require_extra("serve", "Serving"):
        from fastapi import FastAPI

        from retrieval.server.auth import ApiKeys
        from retrieval.server.catalog_api import CatalogAPI
        from retrieval.server.errors import add_exception_handlers
        from retrieval.server.routes import bulk, facets, health, images, items, page, search
        from retrieval.server.service import Service

    settings = settings or Settings()
    service = Service(CatalogAPI(catalog), settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="crossmodal-retrieval",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # nor documentation pages: they load scripts from elsewhere
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.keys = ApiKeys(settings)
    for module in (search, facets, items, bulk, images, health, page):
        app.routes.extend(module.router.routes)  # `include_router` would hide them from HEAD, OPTIONS and the metrics
    add_exception_handlers(app)
    _add_middleware(app, service)
    return app


def _add_middleware(app: "FastAPI", service: "Service") -> None:
    """Add the middleware from the inside out: the last one handles a request first."""
    from starlette.middleware.cors import CORSMiddleware

    from retrieval.server.middleware.browser_security import HeadAndOptions, SameOrigin, SecurityHeaders
    from retrieval.server.middleware.item_paths import RawItemPaths
    from retrieval.server.middleware.limits import BodyLimitMiddleware, ErrorMiddleware
    from retrieval.server.middleware.request_metrics import RequestMetrics

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
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("crossmodal-retrieval")
    except PackageNotFoundError:
        return "0"

"""The routes of those who run a service: is it alive, is it ready, how does it fare, what does it take."""

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from retrieval.server.auth import READING
from retrieval.server.errors import Problem, problem_of
from retrieval.server.metrics import CONTENT_TYPE
from retrieval.server.openapi import describe, told
from retrieval.server.service import Served


def add_routes(app: FastAPI) -> None:
    """Add the routes of health, readiness, figures and of the OpenAPI document."""
    text = {200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}, **told(401)}
    app.add_api_route("/health", health, methods=["GET"], summary="Whether the service is alive")
    app.add_api_route("/ready", ready, methods=["GET"], summary="Whether it is warm", responses=told(503))
    app.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        dependencies=READING,
        response_class=Response,
        responses=text,
        summary="Figures for Prometheus",
    )
    app.add_api_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False)


async def health() -> dict[str, str]:
    """Say that the service answers."""
    return {"status": "alive"}


async def ready(served: Served) -> JSONResponse:
    """Say whether the encoder is warm and the catalog opens; send it no searches before."""
    if served.trouble is not None:
        raise Problem(503, problem_of(served.trouble, folder=served.engine.folder).message)
    if not served.ready:
        raise Problem(503, "The service is getting warm: try again in a second.", headers={"Retry-After": "1"})
    return JSONResponse({"status": "ready", "items": await served.checks.run(served.engine.count)})


async def metrics(served: Served) -> Response:
    """Return the figures."""
    return Response(await served.checks.run(served.metrics.text), headers={"Content-Type": CONTENT_TYPE})


async def openapi(request: Request) -> JSONResponse:
    """Return the OpenAPI document."""
    return JSONResponse(describe(request.app))

"""The routes of those who run a service: is it alive, is it ready, how does it fare, what does it take."""

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from retrieval.server.auth import READ_ACCESS
from retrieval.server.errors import ApiError, to_api_error
from retrieval.server.metrics import CONTENT_TYPE
from retrieval.server.openapi import error_responses, openapi_document
from retrieval.server.service import ServiceDep


def add_routes(app: FastAPI) -> None:
    """Add the routes of health, readiness, figures and of the OpenAPI document."""
    text = {200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}, **error_responses(401)}
    app.add_api_route("/health", health, methods=["GET"], summary="Whether the service is alive")
    app.add_api_route("/ready", ready, methods=["GET"], summary="Whether it is warm", responses=error_responses(503))
    app.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        dependencies=READ_ACCESS,
        response_class=Response,
        responses=text,
        summary="Figures for Prometheus",
    )
    app.add_api_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False)


async def health() -> dict[str, str]:
    """Say that the service answers."""
    return {"status": "alive"}


async def ready(service: ServiceDep) -> JSONResponse:
    """Say whether the encoder is warm and the catalog opens; send it no searches before."""
    if service.startup_error is not None:
        raise ApiError(503, to_api_error(service.startup_error, folder=service.api.folder).message)
    if not service.ready:
        raise ApiError(503, "The service is getting warm: try again in a second.", headers={"Retry-After": "1"})
    return JSONResponse({"status": "ready", "items": await service.health_executor.run(service.api.count)})


async def metrics(service: ServiceDep) -> Response:
    """Return the figures."""
    return Response(await service.health_executor.run(service.metrics.text), headers={"Content-Type": CONTENT_TYPE})


async def openapi(request: Request) -> JSONResponse:
    """Return the OpenAPI document."""
    return JSONResponse(openapi_document(request.app))

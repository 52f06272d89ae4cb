"""Routes for operators: health, readiness, metrics, and the OpenAPI document."""

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from retrieval.server.auth import READ_ACCESS
from retrieval.server.errors import ApiError, to_api_error
from retrieval.server.schemas import error_responses, openapi_document
from retrieval.server.service import ServiceDep

router = APIRouter()


@router.get("/health", summary="Whether the service is alive")
async def check_health() -> dict[str, str]:
    """Answer as long as the service runs."""
    return {"status": "alive"}


@router.get("/ready", responses=error_responses(503), summary="Whether the service is ready")
async def check_readiness(service: ServiceDep) -> JSONResponse:
    """Say whether the encoder is loaded and the catalog opens; send the service no searches before."""
    if service.startup_error is not None:
        raise ApiError(503, to_api_error(service.startup_error, folder=service.api.folder).message)
    if not service.ready:
        raise ApiError(503, "The service is warming up. Try again in a second.", headers={"Retry-After": "1"})
    return JSONResponse({"status": "ready", "items": await service.health_executor.run(service.api.count_items)})


@router.get(
    "/metrics",
    dependencies=READ_ACCESS,
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}, **error_responses(401)},
    summary="Prometheus metrics",
)
async def render_metrics(service: ServiceDep) -> Response:
    """Return the metrics."""
    return Response(
        await service.health_executor.run(service.metrics.render), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )


@router.get("/openapi.json", include_in_schema=False)
async def get_openapi_document(request: Request) -> JSONResponse:
    """Return the OpenAPI document."""
    return JSONResponse(openapi_document(request.app))

"""``GET /healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ragweave.serving.errors import UnavailableError
from ragweave.serving.routes.dependencies import ServiceDependency, errors
from ragweave.serving.schemas import Status

router = APIRouter(tags=["service"])


@router.get("/healthz", response_model=Status)
async def healthz() -> Status:
    """Whether the process is alive."""
    return Status(status="ok")


@router.get("/readyz", response_model=Status, responses=errors(404, 503))
async def readyz(service: ServiceDependency) -> Status:
    """Whether questions are accepted."""
    if not service.batcher.ready:
        raise UnavailableError("The service is starting or stopping. Try again later.")
    return Status(status="ready")


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(401, 404)},
)
async def metrics(service: ServiceDependency) -> Response:
    """Prometheus metrics."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

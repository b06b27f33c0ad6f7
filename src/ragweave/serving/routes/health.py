"""``GET /healthz``, ``/readyz``, ``/metrics`` and ``/v1/knowledge-base``: how the service is."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from ragweave.serving.engine import Engine, public_name
from ragweave.serving.errors import UnavailableError
from ragweave.serving.routes.shared import Given, errors
from ragweave.serving.schemas import KnowledgeBaseResponse

router = APIRouter(tags=["service"])


class Status(BaseModel):
    """A word for how it is."""

    status: str


@router.get("/healthz", response_model=Status)
async def healthz() -> Status:
    """Whether the process is alive."""
    return Status(status="ok")


@router.get("/readyz", response_model=Status, responses=errors(503))
async def readyz(service: Given) -> Status:
    """Whether questions are being answered."""
    if not service.ready:
        raise UnavailableError("The service is starting or stopping.")
    return Status(status="ready")


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(401)},
)
async def metrics(service: Given) -> Response:
    """Figures for Prometheus."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/knowledge-base", response_model=KnowledgeBaseResponse, responses=errors(401, 429, 503, 504))
async def knowledge_base(service: Given) -> KnowledgeBaseResponse:
    """The version that is answered from, its size, and what may be asked of it."""
    defaults = service.options()
    limits = {
        **asdict(service.settings.limits),
        "max_queue": service.settings.batching.max_queue,
        "deadline": round(service.settings.batching.deadline),
    }

    def described(engine: Engine) -> KnowledgeBaseResponse:
        engine.refresh()
        base = engine.base
        return KnowledgeBaseResponse(
            version=base.version,
            created=base.manifest.created,
            documents=base.manifest.documents,
            passages=base.manifest.passages,
            encoder=public_name(base.manifest.encoder.name),
            dimension=base.manifest.dimension,
            formulation=engine.formulation,
            defaults={
                "n_docs": defaults.n_docs,
                "num_beams": defaults.num_beams,
                "max_new_tokens": defaults.max_new_tokens,
            },
            limits=limits,
        )

    return await service.look(described)

"""``GET /v1/knowledge-base``, ``POST /v1/documents`` and ``DELETE /v1/documents/{id}``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path

from ragweave.serving.engine import public_name
from ragweave.serving.routes.dependencies import AdminServiceDependency, ServiceDependency, errors
from ragweave.serving.schemas import ChangeResponse, DocumentsRequest, KnowledgeBaseResponse

router = APIRouter(prefix="/v1")
_ERRORS = errors(400, 401, 404, 409, 413, 422, 429, 503, 504)


@router.get(
    "/knowledge-base",
    tags=["service"],
    response_model=KnowledgeBaseResponse,
    responses=errors(401, 429, 503, 504),
)
async def knowledge_base(service: ServiceDependency) -> KnowledgeBaseResponse:
    """The version in use, its size, and the defaults and limits of requests."""
    defaults = asdict(service.options())
    formulation, _ = defaults.pop("formulation"), defaults.pop("where")
    limits = {
        **asdict(service.settings.limits),
        "max_queue": service.settings.batching.max_queue,
        "deadline": round(service.settings.batching.deadline),
    }

    await service.queries.run(service.engine.refresh)
    base = service.engine.base
    return KnowledgeBaseResponse(
        **ChangeResponse.of(base).model_dump(),
        created=base.manifest.created,
        encoder=public_name(base.manifest.encoder.name),
        dimension=base.manifest.dimension,
        formulation=formulation,
        defaults=defaults,
        limits=limits,
    )


@router.post("/documents", tags=["documents"], response_model=ChangeResponse, responses=_ERRORS)
async def add(body: DocumentsRequest, service: AdminServiceDependency) -> ChangeResponse:
    """Add documents. Each replaces the document with the same id that was added over HTTP before.

    The knowledge base gets a new version, which answers all further questions.
    """
    return await service.add(body.documents)


@router.delete(
    "/documents/{document_id:path}", tags=["documents"], response_model=ChangeResponse, responses=_ERRORS
)
async def delete(
    document_id: Annotated[str, Path(min_length=1, description="Id of a document or of a passage.")],
    service: AdminServiceDependency,
) -> ChangeResponse:
    """Delete a document. Running answers still use it."""
    return await service.delete(document_id)

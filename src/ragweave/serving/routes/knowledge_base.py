"""``/v1/knowledge-base``, ``/v1/documents``, ``/v1/files`` and ``/v1/sources``: the documents and their changes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from ragweave.knowledge.ingest.loaders.loader import ending_of
from ragweave.serving.engine import public_name
from ragweave.serving.routes.dependencies import AdminServiceDependency, ServiceDependency, errors
from ragweave.serving.schemas import (
    ID,
    ChangeResponse,
    DocumentsRequest,
    KnowledgeBaseResponse,
    SourcesResponse,
)

router = APIRouter(prefix="/v1")
_ERRORS = errors(400, 401, 404, 409, 413, 422, 429, 503, 504)


@router.get(
    "/knowledge-base",
    tags=["service"],
    response_model=KnowledgeBaseResponse,
    responses=errors(401, 404, 422, 429, 503, 504),
)
async def knowledge_base(request: Request, service: ServiceDependency) -> KnowledgeBaseResponse:
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
        name=service.name,
        names=list(request.app.state.services),
        changes=service.settings.changes,
    )


@router.post("/documents", tags=["documents"], response_model=ChangeResponse, responses=_ERRORS)
async def add(body: DocumentsRequest, service: AdminServiceDependency) -> ChangeResponse:
    """Add documents. Each replaces the document with the same id that was added over HTTP before.

    The knowledge base gets a new version, which is used for all further questions.
    """
    return await service.add(body.documents)


@router.put(
    "/files/{name}",
    tags=["documents"],
    response_model=ChangeResponse,
    responses=_ERRORS,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(
    name: Annotated[
        str, Path(max_length=255, pattern=ID, description="The file's name; its ending determines its kind.")
    ],
    request: Request,
    service: AdminServiceDependency,
) -> ChangeResponse:
    """Add the documents of a file, in place of those of an earlier upload of this name."""
    with TemporaryDirectory(prefix="ragweave-") as folder:
        path = FilePath(folder) / f"upload{ending_of(name)[:20]}"  # no supported ending is longer
        with path.open("wb") as file:
            async for part in request.stream():
                file.write(part)
        return ChangeResponse.of(await service.changes.run(service.documents.upload, path, name))


@router.get(
    "/sources",
    tags=["documents"],
    response_model=SourcesResponse,
    responses=errors(401, 404, 422, 429, 503, 504),
)
async def sources(
    service: ServiceDependency,
    search: Annotated[str, Query(description="Only sources whose names contain this.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> SourcesResponse:
    """The sources of the documents in the knowledge base."""
    found = await service.queries.run(service.documents.sources, search)
    return SourcesResponse(sources=found[:limit], total=len(found))


@router.put("/sources/{source_id}", tags=["documents"], response_model=ChangeResponse, responses=_ERRORS)
async def read_again(source_id: str, service: AdminServiceDependency) -> ChangeResponse:
    """Read the file of a source again."""
    return ChangeResponse.of(await service.changes.run(service.documents.read_again, source_id))


@router.delete("/sources/{source_id}", tags=["documents"], response_model=ChangeResponse, responses=_ERRORS)
async def delete_source(source_id: str, service: AdminServiceDependency) -> ChangeResponse:
    """Delete the passages of a source. Running answers still use them."""
    return ChangeResponse.of(await service.changes.run(service.documents.delete_source, source_id))


@router.delete(
    "/documents/{document_id:path}", tags=["documents"], response_model=ChangeResponse, responses=_ERRORS
)
async def delete(
    document_id: Annotated[str, Path(min_length=1, description="Id of a document or of a passage.")],
    service: AdminServiceDependency,
) -> ChangeResponse:
    """Delete a document. Running answers still use it."""
    return await service.delete(document_id)

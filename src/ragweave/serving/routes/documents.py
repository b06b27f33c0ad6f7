"""``POST /v1/documents`` and ``DELETE /v1/documents/{id}``, for those who have the key for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path

from ragweave.serving.engine import NewDocument
from ragweave.serving.routes.shared import Administered, errors
from ragweave.serving.schemas import ChangeResponse, DocumentsRequest

if TYPE_CHECKING:
    from ragweave.knowledge.base import KnowledgeBase

router = APIRouter(prefix="/v1/documents", tags=["documents"])
_ERRORS = errors(400, 401, 403, 404, 409, 413, 422, 429, 503, 504)


@router.post("", response_model=ChangeResponse, responses=_ERRORS)
async def add(body: DocumentsRequest, service: Administered) -> ChangeResponse:
    """Add documents, each in place of the one with its id that was added here before.

    The knowledge base gets a new version, which questions from now on are answered from.
    """
    documents = [NewDocument(own.id, own.title, own.text) for own in body.documents]
    return _changed(await service.add(documents))


@router.delete("/{document_id:path}", response_model=ChangeResponse, responses=_ERRORS)
async def delete(
    document_id: Annotated[str, Path(min_length=1, description="Id of a document, or of one passage.")],
    service: Administered,
) -> ChangeResponse:
    """Delete a document; what is being answered from it is answered."""
    return _changed(await service.delete(document_id))


def _changed(base: KnowledgeBase) -> ChangeResponse:
    return ChangeResponse(
        version=base.version, documents=base.manifest.documents, passages=base.manifest.passages
    )

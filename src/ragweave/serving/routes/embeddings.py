"""``POST /v1/embeddings``: the vectors of the encoder, for OpenAI clients."""

from __future__ import annotations

from base64 import b64encode

from fastapi import APIRouter, Request

from ragweave.serving.errors import UnsupportedError
from ragweave.serving.openai_schemas import Embedding, EmbeddingsRequest, EmbeddingsResponse, EmbeddingsUsage
from ragweave.serving.routes.chat import find_model
from ragweave.serving.routes.dependencies import ServiceDependency, errors
from ragweave.serving.routes.streaming import while_connected

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.post(
    "/embeddings",
    response_model=EmbeddingsResponse,
    responses=errors(400, 401, 404, 413, 422, 429, 503, 504),
)
async def embed(request: Request, body: EmbeddingsRequest, service: ServiceDependency) -> EmbeddingsResponse:
    """Embed texts with the encoder that retrieves; the vectors are those of the knowledge base."""
    service, _ = find_model(request, service, body.model)
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not all(isinstance(text, str) for text in texts):
        raise UnsupportedError(
            "The tokens are those of another encoder. Send texts; in LangChain, set check_embedding_ctx_length=False."
        )
    service.check_limits(embeddings=len(texts))
    dimension = service.engine.base.manifest.dimension
    if body.dimensions not in (None, dimension):
        raise UnsupportedError(f"The vectors have {dimension} dimensions. Leave dimensions out.")
    embedding = service.embeddings.run(service.engine.embed, texts)
    vectors, tokens = await while_connected(request, embedding)
    as_text = body.encoding_format == "base64"
    data = [
        Embedding(index=i, embedding=b64encode(vector.astype("<f4")).decode() if as_text else vector.tolist())
        for i, vector in enumerate(vectors)
    ]
    return EmbeddingsResponse(
        model=body.model, data=data, usage=EmbeddingsUsage(prompt_tokens=tokens, total_tokens=tokens)
    )

"""The application: a service behind HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

import ragweave
from ragweave.serving.failures import LastResort, install_handlers
from ragweave.serving.guards import BodyLimit, Guard, SecurityHeaders
from ragweave.serving.metrics import MetricsMiddleware
from ragweave.serving.routes import answers, chat, documents, health, page
from ragweave.serving.service import Service
from ragweave.serving.settings import ServingSettings

if TYPE_CHECKING:
    from ragweave.pipeline.rag_pipeline import RagPipeline


def create_app(pipeline: RagPipeline, settings: ServingSettings | None = None) -> FastAPI:
    """Put a pipeline behind HTTP.

    Args:
        pipeline: What answers; from a knowledge base.
        settings: How.

    Returns:
        An ASGI application, to be run in one process: a pipeline is not shared between several.

    Raises:
        ConfigurationError: The pipeline has no knowledge base.

    Example:
        ```python
        pipeline = RagPipeline.from_pretrained("embedded", knowledge_base="kb")
        uvicorn.run(create_app(pipeline))
        ```
    """
    settings = settings or ServingSettings()
    service = Service(pipeline, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="ragweave",
        version=ragweave.__version__,
        summary="Answers from a knowledge base, and where each of their tokens came from.",
        docs_url=None,  # what FastAPI shows there is loaded from elsewhere; `page` has one of its own
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    install_handlers(app)
    for own in (answers, chat, documents, health, page):
        app.include_router(own.router)
    app.mount("/static", StaticFiles(directory=page.STATIC), name="static")
    # The last that is added is the first that a request meets.
    app.add_middleware(BodyLimit, most=settings.limits.body_bytes)
    rings = (settings.keys, settings.admin_keys) if settings.keys is not None else ()
    app.add_middleware(
        Guard, rings=tuple(ring for ring in rings if ring is not None), hosts=settings.allowed_hosts
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(LastResort)
    app.add_middleware(MetricsMiddleware, metrics=service.metrics)
    app.add_middleware(SecurityHeaders, shared=bool(settings.cors_origins))
    return app

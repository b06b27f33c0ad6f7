"""The ASGI application, and the socket that it listens on."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

import ragweave
from ragweave.errors import ConfigurationError
from ragweave.pipeline.answer_pipeline import AnswerPipeline
from ragweave.serving.errors import install_handlers
from ragweave.serving.metrics import MetricsMiddleware
from ragweave.serving.middleware import (
    STATIC,
    AccessMiddleware,
    BodyLimitMiddleware,
    ErrorMiddleware,
    SecurityHeadersMiddleware,
)
from ragweave.serving.routes import (
    answers,
    chat,
    document_page,
    embeddings,
    health,
    knowledge_base,
    responses,
)
from ragweave.serving.routes.dependencies import errors
from ragweave.serving.service import Service
from ragweave.serving.settings import ServingSettings


def create_app(
    pipeline: AnswerPipeline | Mapping[str, AnswerPipeline], settings: ServingSettings | None = None
) -> FastAPI:
    """Create the ASGI application that serves a pipeline.

    Args:
        pipeline: Pipeline over a knowledge base, or several that share their model, by the names of the knowledge
            bases; see `ragweave.pipeline.loading.with_knowledge_base`.
        settings: Settings of the service.

    Returns:
        An ASGI application. Run it in one process: it has one queue and one model.

    Raises:
        ConfigurationError: The pipeline has no knowledge base.

    Example:
        ```python
        pipeline = RagPipeline.from_pretrained("embedded", knowledge_base="kb")
        uvicorn.run(create_app(pipeline))  # `ragweave.serving.server` has more limits
        ```
    """
    settings = settings or ServingSettings()
    pipelines = pipeline if isinstance(pipeline, Mapping) else {"": pipeline}
    lock = threading.Lock()
    services = {name: Service(one, settings, name=name, model_lock=lock) for name, one in pipelines.items()}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for service in services.values():
            service.start()
        yield
        await asyncio.gather(*(service.stop() for service in services.values()))

    app = FastAPI(
        title="ragweave",
        version=ragweave.__version__,
        summary="Answers from a knowledge base, with the provenance of each token.",
        docs_url=None,  # FastAPI's page loads scripts from a CDN; ragweave serves its own at /docs
        redoc_url=None,
        lifespan=lifespan,
        responses=errors(403, 500),  # a disallowed host, and unexpected errors
    )
    app.state.services = services
    install_handlers(app)
    for module in (answers, chat, responses, embeddings, document_page, knowledge_base, health):
        app.include_router(module.router)
    _add_pages(app)
    # The middleware that is added last runs first.
    app.add_middleware(BodyLimitMiddleware, limits=settings.limits)
    rings = (settings.keys, settings.admin_keys) if settings.keys is not None else ()
    app.add_middleware(
        AccessMiddleware,
        rings=tuple(ring for ring in rings if ring is not None),
        hosts=settings.allowed_hosts,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(ErrorMiddleware)
    app.add_middleware(MetricsMiddleware, metrics=next(iter(services.values())).metrics)
    app.add_middleware(SecurityHeadersMiddleware, cross_origin=bool(settings.cors_origins))
    return app


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 is any free port.

    Raises:
        ConfigurationError: The address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {host}, port {port} ({error.strerror}). Choose another --host or --port."
        ) from error


def _add_pages(app: FastAPI) -> None:
    """Add the question page, the API reference, and their scripts and styles."""
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    def add_page(path: str, file: str) -> None:
        @app.get(path, include_in_schema=False)
        async def page() -> FileResponse:
            return FileResponse(STATIC / file, headers={"Cache-Control": "no-cache"})

    add_page("/", "index.html")
    add_page("/docs", "reference.html")

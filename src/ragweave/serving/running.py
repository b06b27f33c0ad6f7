"""Running the application in a server that ends gracefully."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from ragweave.errors import ConfigurationError
from ragweave.serving.app import create_app
from ragweave.serving.settings import ServingSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ragweave.pipeline.rag_pipeline import RagPipeline

_SPARE_SECONDS = 5


def run(
    pipeline: RagPipeline,
    settings: ServingSettings,
    *,
    host: str,
    port: int,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until the process is interrupted or asked to end; then finish what has begun.

    Args:
        pipeline: What answers.
        settings: How.
        host: Address to listen on.
        port: Port; 0 for any that is free.
        ready: Called with the address when requests are served.

    Raises:
        ConfigurationError: The address cannot be listened on.
    """
    with listening(host, port) as own:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{own.getsockname()[1]}"
        server = server_of(create_app(pipeline, settings), settings, ready=lambda: ready(address))
        with suppress(KeyboardInterrupt):  # raised again when all is finished
            server.run(sockets=[own])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        ConfigurationError: The address cannot be listened on.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigurationError(
            f"The address {host}, port {port} cannot be listened on ({error.strerror}): choose another with --host "
            "or --port."
        ) from error


def server_of(
    app: FastAPI, settings: ServingSettings, *, ready: Callable[[], None] = lambda: None
) -> uvicorn.Server:
    """A server for an application; its ``run`` serves until it is told to end.

    Args:
        app: The application.
        settings: Its settings.
        ready: Called when requests are served.
    """
    # What has begun may take as long as any request may, and no longer.
    patience = math.ceil(settings.batching.deadline) + _SPARE_SECONDS
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=patience,
        timeout_keep_alive=5,
        lifespan="on",
    )
    return _Server(config, ready)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

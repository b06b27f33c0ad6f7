"""A real server on loopback, in a thread of the test's process or in a process of its own."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import uvicorn

from ragweave import RagPipeline
from ragweave.serving.app import create_app, listen
from ragweave.serving.server import create_server
from ragweave.serving.settings import ServingSettings
from tests.support.processes import Command, command
from tests.support.waiting import PATIENCE, wait_until

KEY = "a-key-for-tests-only"
ADMIN_KEY = "another-key-for-tests"

# uvicorn sleeps for a tenth of a second before it looks whether to stop, and again when it does; tests stop hundreds.
uvicorn.server.asyncio = SimpleNamespace(
    **{**vars(asyncio), "sleep": lambda seconds: asyncio.sleep(seconds / 10)}
)


def http_client(url: str, **options: Any) -> httpx.Client:
    """A client that loads no certificates, which takes longer than most tests."""
    return httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False, verify=False, **options)  # noqa: S501


@contextmanager
def in_thread(server: uvicorn.Server) -> Iterator[tuple[str, threading.Thread]]:
    """Run a server within a context; its URL and its thread."""
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", thread
        server.should_exit = True
        thread.join(timeout=60)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Running:
    """A running server.

    Attributes:
        url: Its URL.
        app: The application.
        server: The uvicorn server.
        thread: The thread that runs it.
    """

    url: str
    app: Any
    server: Any
    thread: threading.Thread

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return http_client(self.url, headers=headers, **options)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=60)
        assert not self.thread.is_alive()

    @property
    def service(self) -> Any:
        """The service of the first knowledge base."""
        return next(iter(self.app.state.services.values()))

    def figure(self, name: str, **labels: str) -> float:
        """One of the service's metrics."""
        return self.service.metrics.registry.get_sample_value(name, labels or None) or 0.0


@contextmanager
def served(
    pipeline: RagPipeline | dict[str, RagPipeline], settings: ServingSettings | None = None
) -> Iterator[Running]:
    """Serve a pipeline within a context."""
    settings = settings or ServingSettings()
    app = create_app(pipeline, settings)
    server = create_server(app, settings)
    with in_thread(server) as (url, thread):
        yield Running(url, app, server, thread)


class Gated(RagPipeline):
    """A pipeline that waits before each batch until the test opens its gate."""

    gate: threading.Event
    begun: threading.Semaphore

    @classmethod
    def over(cls, pipeline: RagPipeline) -> Gated:
        gated = cls(pipeline.model, pipeline.retriever, pipeline.encoder, extractive=pipeline.extractive)
        gated.gate, gated.begun = threading.Event(), threading.Semaphore(0)
        return gated

    def stream(self, *arguments: Any, **options: Any) -> Any:
        self.begun.release()
        assert self.gate.wait(timeout=60)
        return super().stream(*arguments, **options)


@contextmanager
def serve_command(
    model_path: Path, base_path: Path, folder: Path, *options: str, descriptors: int = 1024
) -> Iterator[tuple[str, Command]]:
    """The URL of ``ragweave serve``, and its process, which writes its output to a folder."""
    arguments = ("serve", "--kb", base_path, "--model", model_path, "--port", 0, *options)
    with command(*arguments, folder=folder, descriptors=descriptors) as process:
        wait_until(lambda: not process.is_running or "\n" in process.stderr)
        url = re.search(r"http://[\d.]+:\d+", process.stderr)
        assert url, process.stderr
        yield url[0], process

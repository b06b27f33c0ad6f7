"""One writer at a time."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.layout import Layout


@contextmanager
def writer_lock(layout: Layout) -> Iterator[None]:
    """Hold the lock of a knowledge base; it goes with the process, however that ends.

    Raises:
        KnowledgeBaseError: Another writer holds it, who is named, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(layout.lock, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise KnowledgeBaseError(
            f"Another process is changing {layout.root} ({_owner(layout)}): try again when it has finished."
        ) from error
    except OSError as error:
        raise KnowledgeBaseError(
            f"{layout.root} cannot be written ({error.strerror or error}): check its permissions."
        ) from error
    try:
        owner = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        layout.writer.write_text(json.dumps(owner), encoding="utf-8")
        yield
    finally:
        try:
            layout.writer.unlink(missing_ok=True)
        finally:
            lock.release()


def _owner(layout: Layout) -> str:
    try:
        owner = json.loads(layout.writer.read_bytes())
        return f"process {owner['process']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has not said who it is"

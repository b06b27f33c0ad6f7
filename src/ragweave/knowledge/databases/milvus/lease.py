"""One writer at a time, as far as a database without locks allows.

A writer leaves a record with its name, and renews it while it works. Whoever finds one waits to see whether it is
renewed: so no two clocks are compared. Two that begin at once both leave theirs, wait, and look again: the record
holds the name of the later one, and the earlier one gives up (Fischer's algorithm). That is safe as long as a write
becomes visible within the time that is waited. A writer that was suspended for so long that another took its place
finds that out before its change comes into force, or is taken back.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.databases.milvus.collections import read_records, remove_records, write_records
from ragweave.knowledge.databases.uri import MilvusUri

SETTLED, RENEWED, GONE = 1.0, 3.0, 15.0
"""Seconds: until a write is seen by all, between renewals, and without one until a writer counts as gone."""

_KEY = "writer"


@contextmanager
def lease(client: MilvusClient, uri: MilvusUri) -> Iterator[Callable[[], None]]:
    """Be the one writer of a knowledge base on a server.

    Yields:
        A function that checks that this has not changed.

    Raises:
        KnowledgeBaseError: Another process is, which is named.
    """
    own = {
        "token": secrets.token_hex(8),
        "owner": f"process {os.getpid()} on {socket.gethostname()}",
        "beat": 0,
    }
    _wait_for_the_other(client, uri)
    write_records(client, uri.collection, {_KEY: own})
    time.sleep(SETTLED)

    def check() -> None:
        now = _read(client, uri)
        if now.get("token") != own["token"]:
            raise _taken(now, uri)

    check()
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(client, uri, own, check, done), daemon=True)
    renewing.start()
    try:
        yield check
    finally:
        done.set()
        renewing.join()
        # Where the server is gone, the record stays, and the next writer finds it unrenewed.
        with suppress(KnowledgeBaseError, MilvusException, grpc.RpcError):
            check()
            remove_records(client, uri.collection, [_KEY])


def _read(client: MilvusClient, uri: MilvusUri) -> dict[str, Any]:
    found: dict[str, Any] = read_records(client, uri.collection, [_KEY]).get(_KEY, {})
    return found


def _wait_for_the_other(client: MilvusClient, uri: MilvusUri) -> None:
    """Return when there is no other writer, or none that still lives."""
    first = _read(client, uri)
    given_up = time.monotonic() + GONE
    while first and time.monotonic() < given_up:
        time.sleep(min(RENEWED / 2, GONE))
        now = _read(client, uri)
        if not now:
            return
        if now != first:
            raise _taken(now, uri)


def _taken(record: dict[str, Any], uri: MilvusUri) -> KnowledgeBaseError:
    return KnowledgeBaseError(
        f"Another process is changing {uri.shown} ({record.get('owner', 'it has not said who it is')}): try again "
        "when it has finished."
    )


def _renew(
    client: MilvusClient,
    uri: MilvusUri,
    own: dict[str, Any],
    check: Callable[[], None],
    done: threading.Event,
) -> None:
    while not done.wait(RENEWED):
        with suppress(KnowledgeBaseError, MilvusException, grpc.RpcError):
            check()
            own["beat"] += 1
            write_records(client, uri.collection, {_KEY: own})

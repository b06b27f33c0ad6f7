"""The connection to Milvus: made when it is needed, and made again when it was lost."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from ragweave.errors import KnowledgeBaseError
from ragweave.knowledge.databases.uri import MILVUS_TOKEN, MilvusUri

_T = TypeVar("_T")

READ, WRITE = 10.0, 300.0
"""Seconds after which a server that does not answer is given up."""

_CONNECT = 5.0
_NOT_FOUND, _NOT_LOADED = 100, 101
_NO_CONNECTION = {1, 2}  # of pymilvus: not connected, could not connect
_LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


class Connection:
    """One client that several threads use.

    Args:
        uri: The database.
        load: Has the server load what is to be searched.
    """

    def __init__(self, uri: MilvusUri, load: Callable[[MilvusClient], None]) -> None:
        self.uri = uri
        self._load = load
        self._client: MilvusClient | None = None
        self._lock = threading.Lock()

    def run(self, work: Callable[[MilvusClient], _T]) -> _T:
        """Do something that may be done twice: again where the connection was lost, or collections are not loaded.

        Raises:
            KnowledgeBaseError: The server cannot be reached, or refuses.
        """
        with sentences(self.uri):
            client = self._connected()
            try:
                return work(client)
            except (MilvusException, grpc.RpcError) as error:
                if _is_lost(error):
                    self._drop(client)
                elif _code(error) != _NOT_LOADED:
                    raise
            client = self._connected()
            self._load(client)  # a server that was restarted may not have done so
            return work(client)

    def close(self) -> None:
        """Close the connection; the next use makes another."""
        if self._client is not None:
            self._drop(self._client)

    def _connected(self) -> MilvusClient:
        with self._lock:
            if self._client is None:
                self._client = _connect(self.uri)
            return self._client

    def _drop(self, client: MilvusClient) -> None:
        with self._lock:
            if self._client is client:
                self._client = None
        with suppress(MilvusException, grpc.RpcError):
            client.close()


@contextmanager
def sentences(uri: MilvusUri) -> Iterator[None]:
    """Turn errors of Milvus into ones that say what to do."""
    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        if _is_lost(error) or _code(error) == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise KnowledgeBaseError(
                f"Milvus at {uri.host} does not answer: check that it runs, that the URI is right and, where one is "
                f"needed, the token in {MILVUS_TOKEN}; then run the command again. It was {uri.shown}."
            ) from error
        raise KnowledgeBaseError(
            f"Milvus at {uri.host} could not do this in {uri.shown} ({_reason(error)}): open the knowledge base "
            "again, which may have been built anew; if that does not help, build it again with --overwrite."
        ) from error


def is_missing(error: MilvusException) -> bool:
    """Whether an error says that there is no such collection."""
    return bool(_code(error) == _NOT_FOUND)


def _connect(uri: MilvusUri) -> MilvusClient:
    # pymilvus prints every error with its traceback before it raises it.
    for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if uri.file is not None:
        return _open_file(uri)
    return MilvusClient(
        uri=uri.address,
        db_name=uri.database,
        token=os.environ.get(MILVUS_TOKEN, ""),
        timeout=_CONNECT,
        dedicated=True,
    )


def _open_file(uri: MilvusUri) -> MilvusClient:
    try:
        return MilvusClient(uri=uri.address, timeout=_CONNECT, dedicated=True)
    except MilvusException as error:
        raise KnowledgeBaseError(
            f"{uri.host} cannot be opened: another process may have it open, and Milvus Lite allows one; or it is "
            "damaged, or the folder above it cannot be written. A server of Milvus takes any number."
        ) from error


def close_file(file: Path) -> None:
    """End the server that Milvus Lite runs in this process for a file."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(file))


def _code(error: MilvusException | grpc.RpcError) -> object:
    code = error.code
    return code() if callable(code) else code


def _is_lost(error: MilvusException | grpc.RpcError) -> bool:
    code = _code(error)
    return code in _LOST or (code in _NO_CONNECTION and "onnect" in str(error))


def _reason(error: MilvusException | grpc.RpcError) -> str:
    text = getattr(error, "message", "") or str(error)
    return " ".join(str(text).split())[:300].rstrip(".")

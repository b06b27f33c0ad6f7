"""Clients that are silent, slow or broken neither stop the service nor fill its log."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ragweave import RagPipeline
from ragweave.serving.settings import ServingSettings
from tests.support.serving import Gated, Running, http_client, serve_command, served
from tests.support.waiting import PATIENCE, wait_until

QUESTION = {"question": "Where is Lima?", "max_new_tokens": 4}
HEAD = (
    b"POST /v1/answers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 50\r\n\r\n"
)


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=PATIENCE)


def until_closed(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    received = b""
    try:
        while part := connection.recv(4096):
            received += part
    except ConnectionResetError:
        pass
    return received


def test_silent_connections_do_not_keep_others_out(pipeline: RagPipeline):
    gated = Gated.over(pipeline)
    with (
        served(gated, ServingSettings(max_connections=10)) as running,
        ExitStack() as stack,
        ThreadPoolExecutor(1) as pool,
        running.client() as client,
    ):
        running_question = pool.submit(client.post, "/v1/answers", json=QUESTION)
        assert gated.begun.acquire(timeout=PATIENCE)
        silent = [stack.enter_context(connect(running.url)) for _ in range(30)]
        with running.client() as other:
            assert other.get("/healthz").status_code == 200
        assert until_closed(silent[0]) == b""
        assert len(running.server.server_state.connections) <= 10
        gated.gate.set()
        assert running_question.result().status_code == 200


@pytest.mark.parametrize(
    ("sent", "again", "received"),
    [
        (b"", b"", b""),
        (b"POST /v1/answers HTTP/1.1\r\nHost: a\r\n", b"a", b""),
        (HEAD + b'{"question', b"", b"HTTP/1.1 408 "),
        (HEAD + b'{"question', b"a", b"HTTP/1.1 408 "),
    ],
)
def test_a_request_that_takes_too_long_is_closed(
    pipeline: RagPipeline, sent: bytes, again: bytes, received: bytes
):
    """Sending a little more, again and again, wins no time."""
    with (
        served(pipeline, ServingSettings(request_seconds=0.5)) as running,
        connect(running.url) as connection,
    ):
        connection.sendall(sent)
        closed = threading.Event()

        def trickle() -> None:
            while again and not closed.wait(0.1):
                try:
                    connection.sendall(again)
                except OSError:
                    return

        with ThreadPoolExecutor(1) as pool:
            pool.submit(trickle)
            assert until_closed(connection).startswith(received)
            closed.set()
        with running.client() as client:
            assert client.post("/v1/answers", json=QUESTION).status_code == 200


def test_a_client_that_reads_no_response_is_closed(pipeline: RagPipeline):
    with (
        served(pipeline, ServingSettings(request_seconds=0.5)) as running,
        connect(running.url) as connection,
    ):
        connection.setblocking(False)
        request = b"GET /static/style.css HTTP/1.1\r\nHost: a\r\n\r\n" * 100

        def is_closed() -> bool:
            try:
                connection.send(request)
            except BlockingIOError:
                return False
            except OSError:
                return True
            return False

        wait_until(is_closed)
        wait_until(lambda: not running.server.server_state.connections)


def test_broken_requests_do_not_fill_the_log(server: Running):
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    try:
        for _ in range(50):
            with connect(server.url) as connection:
                connection.sendall(b"nonsense\r\n\r\n")
                assert until_closed(connection).startswith(b"HTTP/1.1 400 ")
    finally:
        logger.removeHandler(handler)
    assert 1 <= len(lines) <= 5


def test_more_connections_than_descriptors(model_path: Path, base_path: Path, tmp_path: Path):
    """The server stays up and answers, and stops when it is told to."""
    with (
        serve_command(model_path, base_path, tmp_path, descriptors=256) as (url, process),
        ExitStack() as stack,
    ):
        for _ in range(300):
            stack.enter_context(connect(url))
        with http_client(url) as client:
            assert client.post("/v1/answers", json=QUESTION).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(30)  # the deadline of a question is 60 s
        log = process.stderr
        assert "connections are open" in log
        assert "Traceback" not in log
        assert len(log.splitlines()) < 20


def test_a_request_that_its_client_never_finishes_does_not_delay_the_shutdown(
    pipeline: RagPipeline, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ragweave.serving.server._GRACE_SECONDS", 0.2)
    with served(pipeline) as running, connect(running.url) as unfinished:
        unfinished.sendall(HEAD + b"{")
        with running.client() as client:
            assert client.get("/healthz").status_code == 200
        running.stop()
        assert until_closed(unfinished).startswith(b"HTTP/1.1 408 ")


def test_a_second_interrupt_ends_the_command_at_once(model_path: Path, base_path: Path, tmp_path: Path):
    def refuses() -> bool:
        try:
            connect(url).close()
        except ConnectionRefusedError:
            return True
        return False

    with serve_command(model_path, base_path, tmp_path) as (url, process), connect(url) as unfinished:
        unfinished.sendall(HEAD + b"{")  # the shutdown waits for the rest
        with http_client(url) as client:
            assert client.get("/healthz").status_code == 200
        process.send_signal(signal.SIGINT)
        wait_until(refuses)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        _, *lines = process.stderr.splitlines()  # the first has the URL
        assert lines == ["Stopped at once; running requests were cut off."]


def test_what_outlasts_the_shutdown_is_told_so(pipeline: RagPipeline, caplog: pytest.LogCaptureFixture):
    gated = Gated.over(pipeline)
    with served(gated) as running, ThreadPoolExecutor(1) as pool, running.client() as client:
        running.server.config.timeout_graceful_shutdown = 0.1
        question = pool.submit(client.post, "/v1/answers", json=QUESTION)
        assert gated.begun.acquire(timeout=PATIENCE)
        running.server.should_exit = True
        response = question.result()
        gated.gate.set()
        assert response.status_code == 503
        assert "stopping" in response.json()["error"]["message"]
    assert "Traceback" not in caplog.text

"""Load, deadlines, disconnecting clients and shutdown: nothing is lost and nothing grows without bound."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from ragweave import RagPipeline
from ragweave.serving.settings import Batching, Limits, ServingSettings
from tests.support.serving import Gated, Running, http_client, serve_command, served
from tests.support.waiting import PATIENCE, wait_until

QUESTION = {"question": "Where is Lima?", "max_new_tokens": 4}


def post(running: Running, body: dict[str, object]) -> socket.socket:
    """Send a request over a connection that can be closed at any time."""
    url, content = urlsplit(running.url), json.dumps(body).encode()
    connection = socket.create_connection((url.hostname, url.port))
    head = f"POST /v1/answers HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json"
    connection.sendall(f"{head}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def refuses_connections(running: Running) -> bool:
    try:
        with running.client() as client:
            client.get("/healthz", timeout=1)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        pass  # asyncio forgets a connection that it accepts while it stops listening
    return False


def waiting(running: Running) -> float:
    return running.figure("ragweave_waiting_questions")


def test_concurrent_clients_share_batches(pipeline: RagPipeline):
    expected = {
        text: pipeline(text, max_new_tokens=4).answer for text in ("Where is Lima?", "Is Chile long?")
    }
    with served(pipeline, ServingSettings(batching=Batching(max_wait=0.05))) as running:

        def ask(number: int) -> None:
            text = list(expected)[number % 2]
            with running.client() as client:
                response = client.post("/v1/answers", json={"question": text, "max_new_tokens": 4})
            assert response.json()["answers"][0]["answer"] == expected[text]

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(32)))
        assert running.figure("ragweave_batch_questions_sum") == 32
        assert running.figure("ragweave_batch_questions_count") < 32
        assert running.figure("ragweave_requests_total", endpoint="/v1/answers", status="200") == 32


def test_overload_is_rejected_and_the_queue_is_bounded(pipeline: RagPipeline):
    gated = Gated.over(pipeline)
    limits, batching = Limits(questions=3), Batching(max_queue=3, max_batch=1, max_wait=0)
    with (
        served(gated, ServingSettings(limits=limits, batching=batching)) as running,
        ThreadPoolExecutor(8) as pool,
        running.client() as client,
    ):
        sent = [pool.submit(client.post, "/v1/answers", json=QUESTION)]
        assert gated.begun.acquire(timeout=PATIENCE)
        sent += [pool.submit(client.post, "/v1/answers", json=QUESTION) for _ in range(3)]
        wait_until(lambda: waiting(running) == 3)
        for _ in range(5):
            rejected = client.post("/v1/answers", json=QUESTION)
            assert rejected.status_code == 429
            assert int(rejected.headers["Retry-After"]) >= 1
            assert rejected.json()["error"]["code"] == "overloaded"
        rejected = client.post("/v1/answers", json={**QUESTION, "stream": True})
        assert rejected.status_code == 429
        assert waiting(running) == 3
        assert client.post("/v1/retrieve", json={"question": "Where is Lima?"}).status_code == 200
        gated.gate.set()
        assert [response.result().status_code for response in sent] == [200] * 4


def test_deadlines_hold_in_the_queue_and_in_a_batch(pipeline: RagPipeline):
    gated = Gated.over(pipeline)
    with (
        served(gated, ServingSettings(batching=Batching(deadline=0.3))) as running,
        running.client() as client,
    ):
        response = client.post("/v1/answers", json=QUESTION)
        assert response.status_code == 504
        assert "limit deadline" in response.json()["error"]["message"]
        assert client.post("/v1/answers", json={**QUESTION, "stream": True}).status_code == 504
        wait_until(lambda: waiting(running) == 0)
        gated.gate.set()


@pytest.mark.parametrize("formulation", ["token", "sequence"])
@pytest.mark.parametrize("beams", [1, 2])
def test_generation_stops_at_the_deadline(pipeline: RagPipeline, formulation: str, beams: int):
    answered, layers = threading.Event(), pipeline.model.generator.model.layers
    calls = []

    def wait(*_: object) -> None:
        calls.append(formulation)
        assert answered.wait(timeout=PATIENCE)

    hook = layers[0].register_forward_pre_hook(wait)
    try:
        with (
            served(pipeline, ServingSettings(batching=Batching(deadline=0.3))) as running,
            running.client() as client,
        ):
            body = {**QUESTION, "formulation": formulation, "num_beams": beams}
            assert client.post("/v1/answers", json=body).status_code == 504
            answered.set()
    finally:
        hook.remove()
    assert len(calls) <= 1  # none if the deadline passed before


def test_a_disconnect_removes_a_question_from_the_queue(pipeline: RagPipeline):
    gated = Gated.over(pipeline)
    with served(gated, ServingSettings(batching=Batching(max_wait=0))) as running, running.client() as client:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, "/v1/answers", json=QUESTION)
            assert gated.begun.acquire(timeout=PATIENCE)
            for stream in (False, True):
                connection = post(running, {**QUESTION, "stream": stream})
                wait_until(lambda: waiting(running) == 1)
                connection.close()
                wait_until(lambda: waiting(running) == 0)
            gated.gate.set()
            assert first.result().status_code == 200
        assert running.figure("ragweave_batch_questions_sum") == 1


def test_a_disconnect_stops_the_answer(pipeline: RagPipeline):
    steps, disconnected = [], threading.Event()

    class Slow(RagPipeline):
        def stream(self, *arguments, **options):
            def processor(ids, scores):
                steps.append(len(ids))
                if len(steps) > 10:  # the first tokens are on their way to the client
                    assert disconnected.wait(PATIENCE)
                    time.sleep(0.05)
                scores[:, self.model.rag.special_tokens.eos] = float("-inf")
                return scores

            return super().stream(*arguments, logits_processor=[processor], **options)

    slow = Slow(pipeline.model, pipeline.retriever, pipeline.encoder)
    body = {"question": "Where is Lima?", "max_new_tokens": 200, "stream": True}
    with served(slow) as running, running.client() as client:
        with client.stream("POST", "/v1/answers", json=body) as response:
            for line in response.iter_lines():
                if line == "event: token":
                    break
        disconnected.set()
        # The next answer comes when the first has been stopped.
        response = client.post("/v1/answers", json={**body, "stream": False, "max_new_tokens": 3})
        assert response.status_code == 200
        assert len(steps) < 150


def test_stopping_finishes_running_requests(pipeline: RagPipeline):
    gated = Gated.over(pipeline)
    with (
        served(gated, ServingSettings(batching=Batching(max_wait=0))) as running,
        ThreadPoolExecutor(4) as pool,
    ):
        with running.client() as client:
            sent = [pool.submit(client.post, "/v1/answers", json=QUESTION)]
            assert gated.begun.acquire(timeout=PATIENCE)
            sent += [pool.submit(client.post, "/v1/answers", json=QUESTION) for _ in range(2)]
            wait_until(lambda: waiting(running) == 2)
            stopping = threading.Thread(target=running.stop)
            stopping.start()
            wait_until(lambda: refuses_connections(running))
            gated.gate.set()
            assert [response.result().status_code for response in sent] == [200] * 3
        stopping.join()


def test_an_unexpected_error_is_a_500_without_details(
    pipeline: RagPipeline, caplog: pytest.LogCaptureFixture
):
    class Broken(RagPipeline):
        def stream(self, questions, **options):
            if "break" in questions[0]:
                raise OSError("/secret/path is gone")
            return super().stream(questions, **options)

    broken = Broken(pipeline.model, pipeline.retriever, pipeline.encoder)
    with served(broken) as running, running.client() as client:
        for stream in (False, True):
            response = client.post("/v1/answers", json={"question": "break", "stream": stream})
            assert response.status_code == 500
            assert "secret" not in response.text
            assert "Traceback" not in response.text
        assert client.post("/v1/answers", json=QUESTION).status_code == 200
    assert "OSError" in caplog.text
    assert "secret" not in caplog.text
    assert "Traceback" not in caplog.text


def test_serve_command(model_path: Path, base_path: Path, tmp_path: Path):
    """It prints its URL, answers, and finishes running requests when it is interrupted."""
    waits = "--max-wait", "1000", "--deadline", "2000"  # the question waits until the server stops
    with (
        serve_command(model_path, base_path, tmp_path, *waits) as (url, process),
        http_client(url) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.get("/healthz", headers={"Host": "rebound.example"}).status_code == 403
        sent = pool.submit(client.post, "/v1/answers", json=QUESTION)
        wait_until(lambda: sent.done() or "ragweave_waiting_questions 1.0" in client.get("/metrics").text)
        process.send_signal(signal.SIGINT)
        assert sent.result().status_code == 200
        assert process.wait() == 0
        assert len(process.stderr.splitlines()) == 1  # with the URL


@pytest.fixture
def cut_off(base_path: Path, tmp_path: Path) -> Callable[[bool], None]:
    """Cuts a file of a copy of the knowledge base off in place, or restores it."""
    vectors = shutil.copytree(base_path, tmp_path / "kb") / "segments" / "000001" / "vectors.npy"
    content = vectors.read_bytes()

    def set_size(cut: bool) -> None:
        with vectors.open("r+b") as file:
            file.truncate(0 if cut else len(content))
            file.write(b"" if cut else content)

    return set_size


def test_no_question_reads_a_file_that_was_cut_off(
    model_path: Path, tmp_path: Path, cut_off: Callable[[bool], None]
):
    with (
        serve_command(model_path, tmp_path / "kb", tmp_path) as (url, process),
        http_client(url) as client,
    ):
        assert client.post("/v1/answers", json=QUESTION).status_code == 200
        cut_off(True)
        time.sleep(1.1)  # the server looks for a new version once a second
        for endpoint in ("/v1/answers", "/v1/retrieve"):
            response = client.post(endpoint, json={"question": "Where is Lima?"})
            assert response.status_code == 503
            assert "The file vectors.npy was cut off" in response.json()["error"]["message"]
        cut_off(False)
        assert client.post("/v1/answers", json=QUESTION).status_code == 200
        assert process.is_running


def test_a_file_that_is_cut_off_before_a_question_reads_it_leaves_a_line(
    model_path: Path, tmp_path: Path, cut_off: Callable[[bool], None]
):
    """This happens within a second of a look for a new version, so it is tried until it does."""
    with (
        serve_command(model_path, tmp_path / "kb", tmp_path) as (url, process),
        http_client(url) as client,
    ):

        def ends() -> bool:
            assert client.post("/v1/answers", json=QUESTION).status_code == 200
            cut_off(True)
            with suppress(httpx.TransportError):
                assert client.post("/v1/answers", json=QUESTION).status_code == 503
                cut_off(False)
                return False
            return True

        wait_until(ends)
        assert process.wait() == -signal.SIGBUS
        assert "Fatal Python error: Bus error" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--api-key-file", "none.txt"], "key file none.txt"),
        (["--port", "1", "--host", "256.0.0.1"], "Cannot listen on 256.0.0.1"),
        (["--kb", "nowhere"], "knowledge base"),
    ],
)
def test_serve_command_rejects_wrong_arguments(
    model_path: Path, base_path: Path, arguments: list[str], words: str
):
    from typer.testing import CliRunner

    from ragweave.cli import app

    defaults = ["--kb", str(base_path), "--model", str(model_path)]
    result = CliRunner().invoke(app, ["serve", *defaults, *arguments])
    assert result.exit_code == 1
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert json.dumps(result.stdout) == '""'

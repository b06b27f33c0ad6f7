"""Keys, security headers, body sizes, and errors that reveal nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize

import httpx
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragweave import RagPipeline
from ragweave.serving.settings import KeyRing, Limits, ServingSettings
from tests.support.serving import ADMIN_KEY, KEY, Running, served

BODY = {"question": "Where is Lima?", "max_new_tokens": 2}


@pytest.fixture(scope="module")
def locked(pipeline: RagPipeline) -> Iterator[Running]:
    """A service that requires keys."""
    locked_settings = ServingSettings(
        keys=KeyRing([KEY]), admin_keys=KeyRing([ADMIN_KEY]), limits=Limits(body_bytes=20_000)
    )
    with served(pipeline, locked_settings) as running:
        yield running


def paths_of(running: Running) -> list[tuple[str, str]]:
    """Every endpoint of the OpenAPI schema."""
    schema = running.app.openapi()
    return [(method, path) for path, methods in schema["paths"].items() for method in methods]


def test_only_health_and_the_page_need_no_key(locked: Running):
    with locked.client() as nobody, locked.client("wrong-key-of-no-one") as stranger:
        open_ = {"/healthz", "/readyz"}
        for method, path in [*paths_of(locked), ("get", "/openapi.json"), ("get", "/nothing"), ("post", "/")]:
            for client in (nobody, stranger):
                response = client.request(
                    method, path.replace("{document_id}", "a").replace("{name}", "ragweave")
                )
                if path in open_ or (path, method) == ("/", "post"):
                    assert response.status_code in (200, 405)
                else:
                    assert response.status_code == 401, (method, path)
                    assert response.headers["WWW-Authenticate"] == "Bearer"
                    assert "key" in response.json()["error"]["message"]
        assert nobody.get("/").status_code == 200


def test_a_browser_without_a_key_is_asked_for_it(locked: Running):
    address = "/documents?id=peru.txt%230"
    page = {"Accept": "text/html,*/*;q=0.8"}
    with locked.client() as nobody, locked.client(KEY) as reader:
        asked = nobody.get(address, headers=page)
        assert asked.status_code == 401
        assert 'src="/static/key.js"' in asked.text
        assert "Lima" not in asked.text
        assert nobody.get(address).json()["error"]["code"] == "invalid_api_key"
        assert "Lima" in reader.get(address, headers=page).text


def test_documents_need_the_admin_key(locked: Running):
    with locked.client(KEY) as client:
        assert client.post("/v1/answers", json=BODY).status_code == 200
        assert client.get("/metrics").status_code == 200
        assert client.get("/openapi.json").status_code == 200
        assert client.post("/v1/documents", json={"documents": [{"id": "a", "text": "a"}]}).status_code == 401
        assert client.delete("/v1/documents/peru.txt").status_code == 401
    with locked.client(ADMIN_KEY) as admin:
        assert admin.post("/v1/answers", json=BODY).status_code == 200
        assert admin.delete("/v1/documents/nothing").status_code == 404


def test_openai_client_sends_the_key(locked: Running):
    for key, valid in ((KEY, True), ("wrong-key-of-no-one", False)):
        options = {"api_key": key, "max_retries": 0, "http_client": httpx.Client(trust_env=False)}
        with openai.OpenAI(base_url=f"{locked.url}/v1", **options) as chat:
            if valid:
                assert list(chat.models.list())
            else:
                with pytest.raises(openai.AuthenticationError):
                    chat.models.list()


def test_a_key_with_umlauts_is_accepted_however_it_is_encoded(pipeline: RagPipeline, tmp_path: Path):
    key, file = "schlüssel-für-größeres", tmp_path / "keys.txt"
    file.write_text(f"# für alle\n{normalize('NFD', key)}\n", encoding="utf-8-sig")
    ring = KeyRing.from_file(file)
    with served(pipeline, ServingSettings(keys=ring, admin_keys=ring)) as running, running.client() as client:
        for encoding, status in (("utf-8", 200), ("latin-1", 200), ("cp437", 401)):
            headers = {"Authorization": b"Bearer " + key.encode(encoding)}
            assert client.get("/v1/knowledge-base", headers=headers).status_code == status
            if status == 200:
                assert client.delete("/v1/documents/nothing", headers=headers).status_code == 404
        other = {"Authorization": f"Bearer {key[:-1]}ß".encode()}
        assert client.get("/v1/knowledge-base", headers=other).status_code == 401


def test_without_an_admin_key_documents_cannot_change(client: httpx.Client):
    for response in (
        client.post("/v1/documents", json={"documents": [{"id": "a", "text": "a"}]}),
        client.delete("/v1/documents/peru.txt"),
    ):
        assert response.status_code == 403


def test_security_headers(client: httpx.Client):
    for response in (
        client.get("/"),
        client.get("/healthz"),
        client.get("/nothing"),
        client.post("/v1/answers"),
    ):
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "server" not in response.headers
    assert client.post("/v1/answers", json=BODY).headers["Cache-Control"] == "no-store"


def test_only_allowed_origins_may_read_responses(client: httpx.Client, pipeline: RagPipeline):
    origin = {"Origin": "https://example.org"}
    preflight = {**origin, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.post("/v1/answers", json=BODY, headers=origin).headers
    assert client.options("/v1/answers", headers=preflight).status_code == 405
    cors_settings = ServingSettings(cors_origins=("https://example.org",), keys=KeyRing([KEY]))
    with served(pipeline, cors_settings) as running, running.client() as other:
        allowed = other.options("/v1/answers", headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == "https://example.org"
        rejected = other.options("/v1/answers", headers={**preflight, "Origin": "https://example.com"})
        assert "access-control-allow-origin" not in rejected.headers
        assert other.post("/v1/answers", json=BODY, headers=origin).status_code == 401


def test_only_allowed_hosts_are_served(pipeline: RagPipeline):
    with (
        served(pipeline, ServingSettings(allowed_hosts=("127.0.0.1", "::1"))) as running,
        running.client() as client,
    ):
        assert client.get("/healthz").status_code == 200
        assert client.get("/healthz", headers={"Host": "[::1]:8000"}).status_code == 200
        for name in ("example.org", "example.org:8000", "[", ""):
            assert client.get("/healthz", headers={"Host": name}).status_code == 403


def test_large_requests_are_rejected(locked: Running):
    with locked.client(KEY) as client:
        body = json.dumps({"question": "a" * 30_000}).encode()
        announced = client.post("/v1/answers", content=body, headers={"Content-Type": "application/json"})
        in_parts = client.post(
            "/v1/answers",
            content=(body[at : at + 1000] for at in range(0, len(body), 1000)),
            headers={"Content-Type": "application/json"},
        )
        for response in (announced, in_parts):
            assert response.status_code == 413
            assert "limit body_bytes" in response.json()["error"]["message"]


def test_form_posts_from_other_sites_are_rejected(client: httpx.Client):
    response = client.post("/v1/answers", content=json.dumps(BODY), headers={"Content-Type": "text/plain"})
    assert response.status_code == 422


def test_errors_have_one_format(client: httpx.Client):
    for response in (
        client.get("/nothing"),
        client.put("/v1/answers"),
        client.post("/v1/answers", content=b"{", headers={"Content-Type": "application/json"}),
    ):
        error = response.json()["error"]
        assert error["status"] == response.status_code
        assert error["message"]


def test_metrics(client: httpx.Client):
    client.post("/v1/answers", json=BODY)
    text = client.get("/metrics").text
    assert 'ragweave_requests_total{endpoint="/v1/answers",status="200"}' in text
    assert "ragweave_passages 3.0" in text


def test_generated_requests_get_documented_responses(server: Running):
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.specs.openapi.checks.status_code_conformance,
        schemathesis.specs.openapi.checks.content_type_conformance,
        schemathesis.specs.openapi.checks.response_schema_conformance,
    ]
    seen = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        seen.add(operation.path)

        @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def holds(case):
            case.call_and_validate(checks=checks)

        holds()
    assert {"/v1/answers", "/v1/chat/completions", "/v1/documents/{document_id}", "/documents"} <= seen


bodies = st.binary(max_size=200) | st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=True)
    | st.integers()
    | st.text(st.characters(), max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())
QUESTIONS = st.text(st.characters(), max_size=40)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(
        [
            f"/v1/{name}"
            for name in ("answers", "retrieve", "chat/completions", "responses", "embeddings", "documents")
        ]
    ),
    body=bodies,
)
def test_arbitrary_bytes(client: httpx.Client, path: str, body: bytes):
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500
    assert "Traceback" not in response.text


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=QUESTIONS)
def test_arbitrary_questions(client: httpx.Client, question: str):
    body = json.dumps({"question": question, "max_new_tokens": 2})
    response = client.post("/v1/answers", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 422)
    if response.status_code == 200:
        assert response.json()["answers"][0]["question"] == question.strip()

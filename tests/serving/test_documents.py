"""Documents are added and deleted over HTTP while questions are answered."""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragweave import KnowledgeBase, RagPipeline
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.knowledge.ingest import folder_writer
from ragweave.knowledge.ingest.transaction import transaction
from ragweave.serving.settings import KeyRing, ServingSettings
from tests.support.serving import ADMIN_KEY, Running, served

QUESTION = "Where is the lighthouse of ulm?"
LIGHTHOUSE = {"id": "towers/lighthouse", "title": "Ulm", "text": QUESTION}


def best_passage(client: httpx.Client, question: str = QUESTION) -> dict:
    response = client.post("/v1/retrieve", json={"question": question, "n_docs": 1}).json()
    return response["results"][0]["passages"][0]


def texts(client: httpx.Client) -> dict[str, str]:
    """The texts of all passages by id."""
    response = client.post("/v1/retrieve", json={"question": QUESTION, "n_docs": 20}).json()
    return {passage["id"]: passage["text"] for passage in response["results"][0]["passages"]}


def test_documents_are_added_replaced_and_deleted(own_server: Running):
    with own_server.client(ADMIN_KEY) as client:
        before = client.get("/v1/knowledge-base").json()
        response = client.post("/v1/documents", json={"documents": [LIGHTHOUSE]})
        assert response.status_code == 200, response.text
        added = response.json()
        assert added["documents"] == before["documents"] + 1
        assert added["version"] == client.get("/v1/knowledge-base").json()["version"] != before["version"]
        assert best_passage(client)["id"] == "towers/lighthouse#0"
        (answer,) = client.post("/v1/answers", json={"question": QUESTION}).json()["answers"]
        assert "towers/lighthouse#0" in [passage["id"] for passage in answer["passages"]]
        # The same document changes nothing; another text replaces the first.
        assert client.post("/v1/documents", json={"documents": [LIGHTHOUSE]}).json() == added
        changed = {**LIGHTHOUSE, "text": f"{QUESTION} It was moved."}
        replaced = client.post("/v1/documents", json={"documents": [changed]}).json()
        assert replaced["documents"] == added["documents"]
        assert texts(client)["towers/lighthouse#0"] == changed["text"]
        deleted = client.delete("/v1/documents/towers/lighthouse").json()
        assert deleted["documents"] == before["documents"]
        assert "towers/lighthouse#0" not in texts(client)
        again = client.delete("/v1/documents/towers/lighthouse")
        assert again.status_code == 404
        assert "no document 'towers/lighthouse'" in again.json()["error"]["message"]


def test_a_document_with_the_text_of_another_is_shown_and_replaced(own_server: Running):
    with own_server.client(ADMIN_KEY) as client:
        same = {**LIGHTHOUSE, "id": "towers/same"}
        for document in (LIGHTHOUSE, same):
            response = client.post("/v1/documents", json={"documents": [document]})
            assert response.status_code == 200, response.text
        assert QUESTION in client.get("/documents", params={"id": "towers/same#0"}).text
        changed = {**same, "text": "It was moved."}
        response = client.post("/v1/documents", json={"documents": [changed]})
        assert response.status_code == 200, response.text
        assert (texts(client)["towers/lighthouse#0"], texts(client)["towers/same#0"]) == (
            QUESTION,
            "It was moved.",
        )
        for document in (LIGHTHOUSE, same):
            client.delete(f"/v1/documents/{document['id']}")


def test_documents_of_separate_requests_are_all_kept(own_server: Running):
    with own_server.client(ADMIN_KEY) as client:
        for number in range(3):
            document = {"id": f"d{number}", "text": f"The number is {number}."}
            assert client.post("/v1/documents", json={"documents": [document]}).status_code == 200
        assert client.get("/v1/knowledge-base").json()["documents"] == 6


def test_a_document_from_another_source_is_not_replaced(own_server: Running):
    with own_server.client(ADMIN_KEY) as client:
        response = client.post("/v1/documents", json={"documents": [{**LIGHTHOUSE, "id": "peru.txt"}]})
        assert response.status_code == 409
        assert "'peru.txt'" in response.json()["error"]["message"]
        assert client.delete("/v1/documents/peru.txt").status_code == 200


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([], "documents"),
        ([{"id": "a", "text": " \n"}], "empty"),
        ([{"id": "", "text": "a"}], "id"),
        ([{"id": " a", "text": "a"}], "white space"),
        ([{"id": "a#1", "text": "a"}], "id"),
        ([{"id": "a", "text": "a"}] * 2, "two documents have the same id"),
        ([{"id": f"{number}", "text": "a"} for number in range(65)], "limit documents"),
        ([{"id": "a", "text": "a" * 200_001}], "limit document_characters"),
        ([{"id": "a", "text": "a", "path": "/etc/passwd"}], "path"),
    ],
)
def test_invalid_documents_are_rejected(refused_admin: httpx.Client, documents: list, words: str):
    response = refused_admin.post("/v1/documents", json={"documents": documents})
    assert response.status_code == 422
    assert words in response.json()["error"]["message"]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), min_size=1, max_size=30), st.text(st.characters(), max_size=10))
def test_arbitrary_documents(own_server: Running, text: str, title: str):
    with own_server.client(ADMIN_KEY) as client:
        body = json.dumps({"documents": [{"id": "any", "title": title, "text": text}]})
        response = client.post("/v1/documents", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in (200, 422), response.text


def refused(client: httpx.Client, folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """The message of a 503 for a change, which the log repeats. Neither names the server's folders."""
    response = client.post("/v1/documents", json={"documents": [LIGHTHOUSE]})
    assert response.status_code == 503
    message: str = response.json()["error"]["message"]
    assert message in caplog.text
    assert str(folder) not in message + caplog.text
    return message


def test_a_refused_change_says_who_holds_the_lock(
    own_server: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with own_server.client(ADMIN_KEY) as client, transaction(tmp_path / "kb"):
        message = refused(client, tmp_path, caplog)
    assert message.startswith(f"Another process is changing kb (process {os.getpid()} on ")


def test_a_refused_change_says_what_is_damaged(
    own_server: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "kb" / "CURRENT").write_text("damaged")
    with own_server.client(ADMIN_KEY) as client:
        message = refused(client, tmp_path, caplog)
    assert message.startswith(
        "The pointer CURRENT is damaged. Make a version current with 'ragweave rollback kb"
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EMFILE, "ulimit -n"), (errno.EROFS, "permissions")],
)
def test_a_refused_change_says_what_the_system_lacks(
    own_server: Running,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    words: str,
):
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with own_server.client(ADMIN_KEY) as client:
        monkeypatch.setattr(os, "fsync", fail)
        assert words in refused(client, tmp_path, caplog)
        monkeypatch.undo()
        assert client.post("/v1/documents", json={"documents": [LIGHTHOUSE]}).status_code == 200


def test_exhausted_descriptors_are_named(own_server: Running):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with own_server.client(ADMIN_KEY) as client:
        # Opens the connection, and imports what a change needs.
        other = {"id": "other", "text": "The mill is old."}
        assert client.post("/v1/documents", json={"documents": [other]}).status_code == 200
        lowest_free = os.dup(0)
        os.close(lowest_free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
            response = client.post("/v1/documents", json={"documents": [LIGHTHOUSE]})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert response.status_code == 503
        assert "ulimit -n" in response.json()["error"]["message"]
        assert client.post("/v1/documents", json={"documents": [LIGHTHOUSE]}).status_code == 200


def test_a_version_of_another_process_is_loaded(own_server: Running, tmp_path: Path, tiny_encoder_path: Path):
    with own_server.client() as client:
        assert best_passage(client)["id"] != "lighthouse.txt#0"
        (tmp_path / "lighthouse.txt").write_text(QUESTION)
        base = KnowledgeBase.open(tmp_path / "kb")
        base.add([tmp_path / "lighthouse.txt"], encoder=TextEncoder.from_pretrained(tiny_encoder_path))
        (answer,) = client.post("/v1/answers", json={"question": QUESTION}).json()["answers"]
        assert "lighthouse.txt#0" in [passage["id"] for passage in answer["passages"]]
        assert best_passage(client)["id"] == "lighthouse.txt#0"


def test_a_damaged_version_is_not_loaded(
    own_server: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with own_server.client() as client:
        before = best_passage(client)
        (tmp_path / "kb" / "CURRENT").write_text("damaged")
        assert best_passage(client) == before
        assert client.post("/v1/answers", json={"question": QUESTION}).status_code == 200
    assert own_server.figure("ragweave_refresh_failures") >= 1
    assert "cannot be used" in caplog.text
    assert "The pointer CURRENT is damaged." in caplog.text
    assert str(tmp_path) not in caplog.text


def test_no_question_is_lost_while_documents_change(own_server: Running, own_pipeline: RagPipeline):
    def ask(number: int) -> int:
        with own_server.client() as client:
            path = "/v1/answers" if number % 2 else "/v1/retrieve"
            return client.post(path, json={"question": QUESTION, "n_docs": 3}).status_code

    with own_server.client(ADMIN_KEY) as client, ThreadPoolExecutor(6) as pool:
        responses = [pool.submit(ask, number) for number in range(40)]
        for number in range(5):
            document = {**LIGHTHOUSE, "text": f"{QUESTION} {number}"}
            assert client.post("/v1/documents", json={"documents": [document]}).status_code == 200
        assert {response.result() for response in responses} == {200}


def test_changes_leave_a_bounded_number_of_versions(
    own_pipeline: RagPipeline, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    settings_ = ServingSettings(admin_keys=KeyRing([ADMIN_KEY]), refresh_seconds=0, keep_versions=2)
    base, opened = own_pipeline.knowledge_base, []

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with served(own_pipeline, settings_) as running, running.client(ADMIN_KEY) as client:

        def post(number: int) -> int:
            document = {**LIGHTHOUSE, "text": f"{QUESTION} {number}"}
            assert client.post("/v1/documents", json={"documents": [document]}).status_code == 200
            assert document["text"] in texts(client).values()
            opened.append(weakref.ref(own_pipeline.knowledge_base.storage))
            return len(base.version_names())

        assert [post(number) for number in range(5)] == [2, 3, 3, 3, 3]
        with monkeypatch.context() as patch:
            patch.setattr(folder_writer, "remove_versions", fail)
            assert post(5) == 4
        assert (
            "Old versions of the knowledge base were not deleted: The service lacks a permission"
            in caplog.text
        )
        assert post(6) == 3
    gc.collect()
    assert [version() is not None for version in opened] == [False] * 6 + [True]


def test_a_knowledge_base_that_is_built_again_is_loaded(
    own_server: Running, own_pipeline: RagPipeline, tiny_encoder: TextEncoder, tmp_path: Path
):
    path, source = own_pipeline.knowledge_base.path, tmp_path / "lighthouse.txt"
    source.write_text(QUESTION)
    with own_server.client() as client:
        before = client.get("/v1/knowledge-base").json()
        assert best_passage(client)["text"] != QUESTION
        shutil.rmtree(path)
        rebuilt = KnowledgeBase.build([source], path, encoder=tiny_encoder)
        assert rebuilt.version == before["version"]
        assert best_passage(client)["text"] == QUESTION
        assert client.get("/v1/knowledge-base").json()["documents"] == 1

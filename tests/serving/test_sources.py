"""Sources are listed, uploaded, read again and deleted, and a service may have several knowledge bases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ragweave import RagPipeline
from ragweave.errors import EncoderMismatchError
from ragweave.pipeline.loading import with_knowledge_base
from ragweave.serving.settings import KeyRing, Limits, ServingSettings
from ragweave.types import ANSWER_FORMULATIONS
from tests.support.encoders import save_tiny_encoder
from tests.support.pipelines import build_knowledge_base
from tests.support.serving import ADMIN_KEY, KEY, Running, served

NAMES = ["chile.txt", "kenya.txt", "peru.txt"]
QUESTION = {"question": "How is the llama of ulm called?", "n_docs": 9}


@pytest.fixture
def admin(own_server: Running) -> Iterator[httpx.Client]:
    with own_server.client(ADMIN_KEY) as client:
        yield client


def listed(client: httpx.Client, **options: str) -> dict[str, dict]:
    response = client.get("/v1/sources", params=options).raise_for_status().json()
    assert [one["name"] for one in response["sources"]] == sorted(one["name"] for one in response["sources"])
    return {one["name"]: one for one in response["sources"]}


def hits(client: httpx.Client) -> list[dict]:
    return client.post("/v1/retrieve", json=QUESTION).json()["results"][0]["passages"]


def test_sources_are_listed_without_folders(client: httpx.Client):
    sources = listed(client)
    assert list(sources) == NAMES
    assert all(len(one["id"]) == 16 and one["passages"] and not one["uploaded"] for one in sources.values())
    assert list(listed(client, search="KEN")) == ["kenya.txt"]
    response = client.get("/v1/sources", params={"limit": 1}).json()
    assert ([one["name"] for one in response["sources"]], response["total"]) == (["chile.txt"], 3)


def test_files_are_uploaded_replaced_and_deleted(admin: httpx.Client):
    added = admin.put("/v1/files/ulm.md", content="# Ulm\n\nThe llama of ulm is called Berta.")
    assert added.status_code == 200, added.text
    assert added.json()["documents"] == 4
    source = listed(admin)["ulm.md"]
    assert source["uploaded"]
    assert "is called Berta" in admin.get("/documents", params={"source": source["id"]}).text
    assert "ulm.md" in [hit["source"] for hit in hits(admin)]
    again = admin.put("/v1/files/ulm.md", content="The llama of ulm is called Frieda.")
    assert again.json()["documents"] == 4
    assert [hit["text"] for hit in hits(admin) if "llama" in hit["text"]] == [
        "The llama of ulm is called Frieda."
    ]
    rows = "id,title,text\n1,a,The first row.\n2,b,The second row.\n"
    assert admin.put("/v1/files/rows.csv", content=rows).json()["documents"] == 6
    for name in ("ulm.md", "rows.csv"):
        assert admin.delete(f"/v1/sources/{listed(admin)[name]['id']}").status_code == 200
    assert list(listed(admin)) == NAMES


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b" ", "has no text"),
        ("picture.png", b"\x89PNG", "kind .png"),
        ("a." + "b" * 250, b"text", "cannot be read"),
        ("broken.pdf", b"%PDF-1.7 nothing", "The document was not added"),
        ("a%23b.txt", b"text", "name"),
        ("a%0Ab.txt", b"text", "name"),
        ("peru.txt", b"Another Peru.", "The document was not added"),
    ],
)
def test_files_that_cannot_be_added(refused_admin: httpx.Client, name: str, content: bytes, words: str):
    response = refused_admin.put(f"/v1/files/{name}", content=content)
    assert response.status_code == 422, response.text
    message = response.json()["error"]["message"]
    assert words in message
    assert "ragweave-" not in message
    assert list(listed(refused_admin)) == NAMES


@pytest.mark.parametrize("name", ["..%2F..%2Fevil.txt", "a/b.txt"])
def test_names_with_folders_are_rejected(refused_admin: httpx.Client, name: str):
    assert refused_admin.put(f"/v1/files/{name}", content=b"text").status_code in (404, 405, 422)
    assert list(listed(refused_admin)) == NAMES


def test_a_changed_file_is_read_again(admin: httpx.Client, own_pipeline: RagPipeline):
    source = listed(admin)["peru.txt"]
    sources = own_pipeline.retriever.index.base.sources()
    path = Path(next(one for one in sources if one.endswith("peru.txt")))
    before = admin.get("/v1/knowledge-base").json()["version"]
    assert admin.put(f"/v1/sources/{source['id']}").json()["version"] == before
    path.write_text("Peru has a new port, Chancay.")
    changed = admin.put(f"/v1/sources/{source['id']}").json()
    assert (changed["version"] > before, changed["documents"]) == (True, 3)
    assert "Chancay" in admin.get("/documents", params={"id": "peru.txt"}).text
    path.unlink()
    missing = admin.put(f"/v1/sources/{source['id']}")
    assert (missing.status_code, "Upload it" in missing.text) == (404, True)
    assert list(listed(admin)) == NAMES


def test_a_table_that_is_read_again_keeps_the_ids_of_its_rows(
    own_pipeline: RagPipeline, tmp_path: Path, tiny_encoder_path: Path
):
    (tmp_path / "other").mkdir()
    path = build_knowledge_base(
        tmp_path / "other", tiny_encoder_path, {"ulm/rows.csv": "name,age\nBerta,4\n"}
    )
    settings = ServingSettings(open_changes=True, refresh_seconds=0)
    with served(with_knowledge_base(own_pipeline, path), settings) as running, running.client() as client:
        (tmp_path / "other" / "documents" / "ulm" / "rows.csv").write_text("name,age\nBerta,5\n")
        (source,) = listed(client).values()
        client.put(f"/v1/sources/{source['id']}").raise_for_status()
        assert "age: 5" in client.get("/documents", params={"id": "ulm/rows.csv:2"}).text


def test_names_with_patterns_delete_nothing_else(admin: httpx.Client):
    for name in ("a*.txt", "ab.txt", "[ab].txt"):
        admin.put(f"/v1/files/{name}", content=f"This is {name}.").raise_for_status()
    for name in ("a*.txt", "[ab].txt"):
        admin.delete(f"/v1/sources/{listed(admin)[name]['id']}").raise_for_status()
    assert list(listed(admin)) == ["ab.txt", *NAMES]


def test_unknown_sources(admin: httpx.Client):
    for send in (admin.delete, admin.put):
        assert send("/v1/sources/0123456789abcdef").status_code == 404
    assert admin.get("/documents", params={"source": "0123456789abcdef"}).status_code == 404
    assert admin.get("/documents").status_code == 422


def test_uploads_have_a_limit_of_their_own(own_pipeline: RagPipeline):
    settings = ServingSettings(open_changes=True, limits=Limits(body_bytes=100, upload_bytes=200))
    with served(own_pipeline, settings) as running, running.client() as client:
        assert client.put("/v1/files/a.txt", content=b"word " * 30).status_code == 200
        response = client.put("/v1/files/b.txt", content=b"word " * 50)
        assert (response.status_code, "limit upload_bytes" in response.text) == (413, True)
        assert list(listed(client)) == ["a.txt", *NAMES]


@pytest.mark.parametrize(
    ("settings", "key", "changes", "status"),
    [
        (ServingSettings(), None, "nobody", 403),
        (ServingSettings(open_changes=True), None, "everybody", 200),
        (ServingSettings(open_changes=True, keys=KeyRing([KEY])), KEY, "nobody", 403),
        (ServingSettings(open_changes=True, admin_keys=KeyRing([ADMIN_KEY])), None, "admin key", 401),
        (ServingSettings(admin_keys=KeyRing([ADMIN_KEY])), ADMIN_KEY, "admin key", 200),
    ],
)
def test_who_may_change_documents(
    own_pipeline: RagPipeline, settings: ServingSettings, key: str | None, changes: str, status: int
):
    with served(own_pipeline, settings) as running, running.client(key) as client:
        assert client.get("/v1/knowledge-base").json()["changes"] == changes
        assert client.put("/v1/files/a.txt", content=b"Some words.").status_code == status
        # A page of another site may only post forms; before anything else, its browser asks.
        form = b'{"documents": [{"id": "a", "text": "b"}]}'
        response = client.post("/v1/documents", content=form, headers={"Content-Type": "text/plain"})
        assert response.status_code in (401, 403, 422)
        preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
        response = client.options("/v1/files/a.txt", headers=preflight)
        assert "access-control-allow-origin" not in response.headers


def test_several_knowledge_bases(own_pipeline: RagPipeline, tmp_path: Path, tiny_encoder_path: Path):
    (tmp_path / "other").mkdir()
    documents = {"ulm.txt": "The llama of ulm is called Berta."}
    path = build_knowledge_base(tmp_path / "other", tiny_encoder_path, documents)
    pipelines = {"lands": own_pipeline, "animals": with_knowledge_base(own_pipeline, path)}
    settings = ServingSettings(open_changes=True, refresh_seconds=0)
    with served(pipelines, settings) as running, running.client() as client:
        assert client.get("/v1/knowledge-base").json()["names"] == ["lands", "animals"]
        assert list(listed(client)) == NAMES
        assert list(listed(client, kb="animals")) == ["ulm.txt"]
        names = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert names[:: len(ANSWER_FORMULATIONS) + 1] == ["ragweave", "ragweave/lands", "ragweave/animals"]
        assert client.get("/v1/models/ragweave/animals-token").json()["id"] == "ragweave/animals-token"
        messages = [{"role": "user", "content": "How is the llama called?"}]
        for model, is_animals in (("ragweave", False), ("ragweave/animals", True)):
            body = {"model": model, "messages": messages, "max_tokens": 4}
            message = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
            url = message["annotations"][0]["url_citation"]["url"]
            assert ("ulm" in url) == is_animals
            assert client.get(url).status_code == 200
        body = {"question": "How is the llama called?", "max_new_tokens": 4, "stream": True}
        streamed = client.post("/v1/answers?kb=animals", json=body).text
        passages = json.loads(streamed.split("data: ")[1].split("\n")[0])["passages"]
        assert [passage["source"] for passage in passages] == ["ulm.txt"]
        client.put("/v1/files/new.txt?kb=animals", content=b"New.").raise_for_status()
        assert (len(listed(client)), len(listed(client, kb="animals"))) == (3, 2)
        assert client.get("/v1/sources", params={"kb": "plants"}).status_code == 404


def test_files_of_the_same_name_are_told_apart_by_their_folders(
    own_pipeline: RagPipeline, tmp_path: Path, tiny_encoder_path: Path
):
    (tmp_path / "other").mkdir()
    documents = {"ulm/readme.md": "The llama of ulm is called Berta.", "lima/readme.md": "Lima has a fox."}
    path = build_knowledge_base(tmp_path / "other", tiny_encoder_path, documents)
    settings = ServingSettings(open_changes=True, refresh_seconds=0)
    with served(with_knowledge_base(own_pipeline, path), settings) as running, running.client() as client:
        assert list(listed(client)) == ["lima/readme.md", "ulm/readme.md"]
        assert list(listed(client, search="ulm/r")) == ["ulm/readme.md"]
        assert {hit["source"] for hit in hits(client)} == {"lima/readme.md", "ulm/readme.md"}
        assert "ulm/readme.md" in client.get("/documents", params={"id": "ulm/readme.md"}).text
        client.put("/v1/files/new.txt", content=b"New.").raise_for_status()
        assert list(listed(client)) == ["lima/readme.md", "new.txt", "ulm/readme.md"]


def test_another_encoder_cannot_share_a_model(own_pipeline: RagPipeline, tmp_path: Path):
    encoder = save_tiny_encoder(tmp_path / "encoder", seed=7)
    (tmp_path / "other").mkdir()
    path = build_knowledge_base(tmp_path / "other", encoder)
    with pytest.raises(EncoderMismatchError):
        with_knowledge_base(own_pipeline, path)

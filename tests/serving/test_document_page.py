"""The page of a document: its text as it was indexed, with the passage marked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from lxml import html

from ragweave import Chunking, KnowledgeBase, RagPipeline
from tests.support.documents import write, write_pdf
from tests.support.encoders import load_tiny_encoder
from tests.support.serving import ADMIN_KEY, Running, served

HOSTILE = "<script>alert(1)</script></mark><img src=x onerror=alert(1)> {text} & 'of' \"ulm\"."
GUIDE = "# Guide\n\nLima is here.\n\n## Install\n\nUlm is here.\n\n## Use\n\nThe Andes are here."


def served_files(tmp_path: Path, model: Path, encoder_path: Path, **options):
    """Serve the files of a folder, which is deleted before the first request."""
    encoder = load_tiny_encoder(encoder_path)
    base = KnowledgeBase.build([tmp_path / "files"], tmp_path / "kb", encoder=encoder, **options)
    for file in (tmp_path / "files").iterdir():
        file.unlink()
    return served(RagPipeline.from_pretrained(model, knowledge_base=base, dtype="float32"))


def opened(client: httpx.Client, name: str) -> html.HtmlElement:
    response = client.get("/documents", params={"id": name})
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]
    return html.fromstring(response.text)


def marked(page: html.HtmlElement) -> str:
    (mark,) = page.get_element_by_id("passage"), *page.xpath("//mark[not(@id)]")
    return mark.text_content()


def test_the_page_of_a_pdf(tmp_path: Path, model_path: Path, tiny_encoder_path: Path):
    write_pdf(tmp_path / "files" / "handbook.pdf", ["Lima is the capital.", "Ulm is on the Danube."])
    with (
        served_files(tmp_path, model_path, tiny_encoder_path, chunking=Chunking(words=3)) as running,
        running.client() as client,
    ):
        body = {"question": "ulm", "n_docs": 3}
        (result,) = client.post("/v1/retrieve", json=body).json()["results"]
        passage = next(one for one in result["passages"] if one["text"].startswith("Ulm"))
        assert passage["place"]["page"] == 2
        page = opened(client, passage["id"])
        assert marked(page) == passage["text"]
        assert page.xpath("//header/p")[0].text == "handbook.pdf, page 2"
        text = page.xpath("//main")[0].text_content()
        assert text.split() == ["Lima", "is", "the", "capital.", "Ulm", "is", "on", "the", "Danube."]
        # A document is shown without a mark.
        whole = opened(client, "handbook.pdf")
        assert whole.xpath("//main")[0].text_content() == text
        assert not whole.xpath("//mark")


def test_hostile_texts_are_text(tmp_path: Path, model_path: Path, tiny_encoder_path: Path):
    name = "<b>&\"'/../%2e%2e?#x"
    write(tmp_path / "files" / "a.jsonl", json.dumps({"id": name, "title": HOSTILE, "text": HOSTILE}))
    with served_files(tmp_path, model_path, tiny_encoder_path) as running, running.client() as client:
        page = opened(client, f"{name}#0")
        assert marked(page) == HOSTILE
        assert page.xpath("//h1")[0].text_content() == HOSTILE
        assert not page.xpath("//body//script | //img | //b")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../kb/CURRENT", "files/../../kb", "a\0b", "\ufffd", "peru.txt#9"]
)
def test_only_what_was_indexed_is_shown(client: httpx.Client, name: str):
    response = client.get("/documents", params={"id": name})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "chunking",
    [Chunking("words", words=20, overlap=7), Chunking("sentences", words=20, overlap=5), Chunking(words=9)],
)
def test_a_long_document_is_shown_around_the_passage(
    tmp_path: Path, model_path: Path, tiny_encoder_path: Path, chunking: Chunking
):
    text = "".join(
        f"Sentence {n} of ulm is right here." + ("\n\n" if n % 5 == 4 else " ") for n in range(1500)
    ).strip()
    write(tmp_path / "files" / "long.txt", text)
    with (
        served_files(tmp_path, model_path, tiny_encoder_path, chunking=chunking) as running,
        running.client() as client,
    ):
        for number in (0, 150, 300):
            page = opened(client, f"long.txt#{number}")
            (main,) = page.xpath("//main")
            links = [link.get("href") for link in main.xpath(".//a")]
            assert len(links) == (1 if number == 0 else 2)
            assert ("before these" in main.text_content()) == (number > 100)
            shown = "".join(main.xpath("./text() | ./mark/text()"))
            assert " ".join(shown.split()) in " ".join(text.split())
            assert shown.index(marked(page)) > 1000 or number == 0
            assert html.fromstring(client.get(links[-1]).text).get_element_by_id("passage") is not None
        rows = re.findall(r"\d+ passages", main.text_content())
        assert rows[0] == "200 passages"


def test_headings_of_sections(tmp_path: Path, model_path: Path, tiny_encoder_path: Path):
    write(tmp_path / "files" / "guide.md", GUIDE)
    with (
        served_files(tmp_path, model_path, tiny_encoder_path, chunking=Chunking("markdown")) as running,
        running.client() as client,
    ):
        page = opened(client, "guide.md#1")
        assert marked(page) == "Ulm is here."
        assert page.xpath("//header/p")[0].text == "guide.md, line 7"
        assert [one.text for one in page.xpath("//h1 | //h2")] == [
            "Guide > Install",
            "Guide",
            "Guide > Install",
            "Guide > Use",
        ]


def test_documents_that_were_added_over_http(own_server: Running):
    document = {"id": "towers/lighthouse", "title": "Ulm", "text": "The lighthouse of ulm."}
    with own_server.client(ADMIN_KEY) as client:
        client.post("/v1/documents", json={"documents": [document]})
        page = opened(client, "towers/lighthouse#0")
        assert marked(page) == document["text"]
        assert page.xpath("//header/p")[0].text == "posted:towers/lighthouse"
        client.delete("/v1/documents/towers/lighthouse")
        assert client.get("/documents", params={"id": "towers/lighthouse#0"}).status_code == 404


def test_a_part_that_is_missing_is_named(own_server: Running):
    lines = "\n\n".join(f"Sentence {n} of ulm. " + "Lima is here. " * 40 for n in range(4))
    with own_server.client(ADMIN_KEY) as client:
        client.post("/v1/documents", json={"documents": [{"id": "long", "text": lines}]})
        before = opened(client, "long#0").xpath("//main")[0].text_content()
        client.delete("/v1/documents/long%231")
        after = opened(client, "long#0").xpath("//main")[0].text_content()
        assert "…" not in before
        assert "… This part is also in another document" in after

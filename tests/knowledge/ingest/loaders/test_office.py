"""Word, PowerPoint and EPUB files and web pages: their text, titles and pages, or a clear error."""

from __future__ import annotations

import pytest

from ragweave.errors import MissingExtraError, SourceError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.knowledge.ingest_settings import Chunking
from tests.support.documents import only_document, read, write, write_zip


def test_slides_are_pages(tmp_path):
    from pptx import Presentation

    slides = Presentation()
    for title, text in (("Peru", "Lima is the capital."), ("Ulm", "Ulm is on the Danube.")):
        slide = slides.slides.add_slide(slides.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, text
    slides.save(str(tmp_path / "talk.pptx"))
    document = only_document(tmp_path / "talk.pptx")
    assert document.title == "Peru"
    text_of_page = {passage.page: passage.text for passage in chunk(document, Chunking(words=5))}
    assert "Lima is the capital." in text_of_page[1]
    assert "Ulm is on the Danube." in text_of_page[2]


def test_a_word_document(tmp_path):
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    kinds = "http://schemas.openxmlformats.org/package/2006/content-types"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    files = {
        "[Content_Types].xml": f'<Types xmlns="{kinds}"><Default Extension="rels" ContentType='
        f'"application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" '
        f'ContentType="{main}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{relations}"><Relationship Id="r1" Type="{office}" '
        'Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{namespace}"><w:body><w:p><w:r><w:t>Lima is in Peru.'
        "</w:t></w:r></w:p></w:body></w:document>",
    }
    assert only_document(write_zip(tmp_path / "letter.docx", files)).text.strip() == "Lima is in Peru."


@pytest.mark.parametrize("ending", ["pdf", "docx", "pptx", "xlsx", "epub", "parquet", "arrow"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff" * 100, b"PK\x03\x04" + b"\x07" * 50, b"%PDF-1.4 nothing"]
)
def test_damaged_files(tmp_path, ending, content):
    with pytest.raises(SourceError, match=r"cannot be read|has no text"):
        read(write(tmp_path / f"a.{ending}", content))


@pytest.mark.parametrize("ending", ["docx", "pptx", "xlsx", "epub"])
def test_a_zip_bomb_is_refused(tmp_path, ending):
    path = write_zip(tmp_path / f"bomb.{ending}", {"a": "0" * (257 * 2**20)})
    assert path.stat().st_size < 2**20
    with pytest.raises(SourceError, match="unpacks to 257 MiB"):
        read(path)


def test_without_the_extra_other_files_are_read(tmp_path, tiny_encoder, monkeypatch):
    path = write_zip(tmp_path / "a.docx", {})
    write(tmp_path / "b.txt", "Ulm.")
    monkeypatch.setattr("ragweave.errors.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"ragweave\[readers\]"):
        read(path)
    base = KnowledgeBase.build([tmp_path], tmp_path / "kb", encoder=tiny_encoder)
    assert len(base) == 1
    assert "ragweave[readers]" in base.manifest.change.skipped[0]

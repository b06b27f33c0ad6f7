"""Word and PowerPoint files: their text, titles, lists, notes and slides; what is lost is said; bombs are refused."""

from __future__ import annotations

import zipfile

import pytest
from docx import Document as WordFile
from docx.shared import Inches
from pptx import Presentation

from ragweave.errors import SourceError, SourceWarning
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.knowledge.ingest_settings import Chunking
from tests.support.documents import only_document, read, write, write_zip

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def write_word(path, body):
    """Write a Word file by hand, from the XML of its body."""
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    kinds = "http://schemas.openxmlformats.org/package/2006/content-types"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    files = {
        "[Content_Types].xml": f'<Types xmlns="{kinds}"/>',
        "_rels/.rels": f'<Relationships xmlns="{relations}"><Relationship Id="r1" Type="{office}" '
        'Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>',
    }
    return write_zip(path, files)


def without(path, part):
    """Write a copy of a file that lacks a part."""
    with zipfile.ZipFile(path) as file:
        files = {name: file.read(name) for name in file.namelist() if not name.startswith(part)}
        assert len(files) < len(file.namelist())
    return write_zip(path.with_name(f"without-{path.name}"), files)


def test_slides_are_pages_with_notes_tables_and_titles(tmp_path):
    file = Presentation()
    for title, text in (("Peru", "Lima is the capital."), ("Ulm", "Ulm is on the Danube.")):
        slide = file.slides.add_slide(file.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, text
    slide.notes_slide.notes_text_frame.text = "Ask about the minster."
    table = slide.shapes.add_table(2, 2, 0, 0, Inches(4), Inches(2)).table
    for row, cells in enumerate((("River", "Length"), ("Danube", "2,850 km"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    file.save(str(tmp_path / "talk.pptx"))
    document = only_document(tmp_path / "talk.pptx")
    assert document.title == "Peru"
    assert "[Notes: Ask about the minster.]" in document.text
    assert "Danube | 2,850 km" in document.text
    first, second = document.text.split("\f")
    assert "Lima is the capital." in first and "Ulm" not in first
    assert "Ulm is on the Danube." in second
    assert [passage.place.slide for passage in chunk(document, Chunking(words=5))] == [1, 1, 2, 2, 2, 2]


def test_a_word_file(tmp_path):
    file = WordFile()
    file.core_properties.title = "Word Document"  # a template's, which says nothing
    file.add_heading("Port handbook", 0)
    file.add_heading("Tides", 1)
    file.add_paragraph("Write to ida_lund@port.example.")
    for item in ("Spring tide", "Neap tide"):
        file.add_paragraph(item, style="List Bullet")
    table = file.add_table(2, 2)
    for row, cells in enumerate((("Port", "Height"), ("Brest", "7 m"))):
        for cell, text in zip(table.rows[row].cells, cells, strict=True):
            cell.text = text
    file.sections[0].header.paragraphs[0].text = "Harbour office"
    file.save(str(tmp_path / "handbook.docx"))
    document = only_document(tmp_path / "handbook.docx")
    assert document.title == "Port handbook"
    assert "ida_lund@port.example" in document.text
    assert "- Spring tide\n- Neap tide" in document.text
    assert "Port | Height" in document.text and "Brest | 7 m" in document.text
    assert "[Header: Harbour office]" in document.text
    assert chunk(document, Chunking("markdown"))[-1].title.endswith("Port handbook > Tides")


def test_a_word_file_of_a_few_parts(tmp_path):
    body = "<w:p><w:r><w:t>Lima is in Peru.</w:t></w:r></w:p>"
    assert only_document(write_word(tmp_path / "letter.docx", body)).text == "Lima is in Peru."


def test_changes_that_are_tracked(tmp_path):
    def run(text, tag="t"):
        return f"<w:r><w:{tag}>{text}</w:{tag}></w:r>"

    body = (
        f"<w:p>{run('The port opens at ')}<w:del>{run('six', 'delText')}</w:del><w:ins>{run('seven')}</w:ins>"
        f"<w:r><w:tab/><w:t>daily</w:t><w:br/><w:t>in summer</w:t></w:r></w:p>"
        "<w:p><w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>"
        "<w:r><w:t>10</w:t></w:r><w:r><w:rPr><w:vertAlign w:val='superscript'/></w:rPr><w:t>6</w:t></w:r></w:p>"
    )
    assert (
        only_document(write_word(tmp_path / "a.docx", body)).text
        == "The port opens at seven daily\nin summer\n\n10^6"
    )


def test_what_is_missing_is_said_and_the_text_is_kept(tmp_path):
    file = WordFile()
    file.add_paragraph("Lima is in Peru.")
    file.add_picture(str(write(tmp_path / "p.png", PICTURE)))
    file.save(str(tmp_path / "a.docx"))
    assert "Lima is in Peru." in only_document(tmp_path / "a.docx").text
    assert "base64" not in only_document(tmp_path / "a.docx").text
    for part, loss in (
        ("word/media/", "picture word/media/image1.png is missing"),
        ("word/styles.xml", "styles"),
    ):
        with pytest.warns(SourceWarning, match=loss):
            assert "Lima is in Peru." in only_document(without(tmp_path / "a.docx", part)).text
    with pytest.raises(SourceError, match=r"word/document.xml is missing or damaged"):
        read(without(tmp_path / "a.docx", "word/document.xml"))


def test_external_entities_are_not_read(tmp_path):
    secret = write(tmp_path / "secret.txt", "hidden words")
    path = write_word(tmp_path / "a.docx", "<w:p><w:r><w:t>Lima &x;</w:t></w:r></w:p>")
    with zipfile.ZipFile(path) as file:
        files = {name: file.read(name) for name in file.namelist()}
    files["word/document.xml"] = (
        f'<!DOCTYPE d [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'.encode() + files["word/document.xml"]
    )
    with pytest.warns(SourceWarning):
        document = only_document(write_zip(tmp_path / "b.docx", files))
    assert "Lima" in document.text and "hidden" not in document.text


@pytest.mark.parametrize("ending", ["pdf", "docx", "pptx", "xlsx", "epub", "parquet", "arrow"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff" * 100, b"PK\x03\x04" + b"\x07" * 50, b"%PDF-1.4 nothing"]
)
def test_damaged_files(tmp_path, ending, content):
    with pytest.raises(SourceError, match=r"cannot be read|has no text"):
        read(write(tmp_path / f"a.{ending}", content))


def test_a_zip_bomb_is_refused(tmp_path):
    path = write_zip(tmp_path / "bomb", {"a": "0" * (257 * 2**20)})
    assert path.stat().st_size < 2**20
    for ending in ("docx", "pptx", "xlsx", "epub"):
        path = path.rename(path.with_suffix(f".{ending}"))
        with pytest.raises(SourceError, match="unpacks to 257 MiB"):
            read(path)


def test_strict_allows_what_is_not_text(tmp_path, tiny_encoder):
    file = WordFile()
    file.add_paragraph("Lima is in Peru.")
    file.add_picture(str(write(tmp_path / "p.png", PICTURE)))
    file.save(str(tmp_path / "a.docx"))
    path = without(tmp_path / "a.docx", "word/media/")
    with pytest.warns(SourceWarning, match="picture"):
        base = KnowledgeBase.build([path], tmp_path / "kb", encoder=tiny_encoder, strict=True)
    assert base.passage(0).text == "Lima is in Peru."
    path = without(path, "word/styles.xml")
    with pytest.raises(SourceError, match=r"styles\.xml is missing. Leave out --strict"):
        KnowledgeBase.build([path], tmp_path / "other", encoder=tiny_encoder, strict=True)

"""Documents of other programs: PDF, Word, PowerPoint, Excel, web pages, books, Parquet, data sets, KILT."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import datasets
import pytest

from ragweave.errors import MissingExtraError, SourceError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.knowledge.ingest.loaders.hub import dataset_files
from ragweave.knowledge.ingest.loaders.loader import find_sources, read_documents
from ragweave.knowledge.ingest_settings import Chunking
from ragweave.types import Document


def read(*sources: Path) -> list[Document]:
    return list(read_documents(sources))


def only(path: Path) -> Document:
    (document,) = read(path)
    assert document.id == path.name
    assert document.source == str(path)
    return document


def pdf(path: Path, pages: list[str], trailer: str = "") -> Path:
    """Write a PDF by hand: a catalogue, a font, and for each page a stream that shows one line."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    content, places = "%PDF-1.4\n", []
    for number, text in enumerate(objects, start=1):
        places.append(len(content))
        content += f"{number} 0 obj\n{text}\nendobj\n"
    start = len(content)
    content += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n"
    content += "".join(f"{place:010} 00000 n \n" for place in places)
    content += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n"
    path.write_text(content)
    return path


def packed(path: Path, **files: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_DOT_", "."), content)
    return path


def test_pages_of_a_pdf(tmp_path):
    document = only(pdf(tmp_path / "annual_report.pdf", ["Lima is in Peru.", "Ulm is on the Danube."]))
    assert document.title == "Annual report"
    passages = chunk(document, Chunking(words=4))
    assert [(passage.text, passage.page) for passage in passages] == [
        ("Lima is in Peru.", 1),
        ("Ulm is on the Danube.", 2),
    ]


def test_a_pdf_of_pictures(tmp_path):
    with pytest.raises(SourceError, match="has no text: its pages are images"):
        read(pdf(tmp_path / "scan.pdf", [""]))


def test_a_pdf_with_a_password(tmp_path):
    key = "00" * 32
    lock = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{key}> /U <{key}> /P -4 >> /ID [<00> <00>]"
    with pytest.raises(SourceError, match="protected by a password"):
        read(pdf(tmp_path / "secret.pdf", ["Lima."], lock))


def test_slides_are_pages(tmp_path):
    from pptx import Presentation

    slides = Presentation()
    for title, text in (("Peru", "Lima is the capital."), ("Ulm", "Ulm is on the Danube.")):
        slide = slides.slides.add_slide(slides.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, text
    slides.save(str(tmp_path / "talk.pptx"))
    document = only(tmp_path / "talk.pptx")
    assert document.title == "Peru"
    found = {passage.page: passage.text for passage in chunk(document, Chunking(words=5))}
    assert "Lima is the capital." in found[1]
    assert "Ulm is on the Danube." in found[2]


def test_a_workbook(tmp_path):
    from openpyxl import Workbook

    workbook = Workbook()
    workbook.active.append(["country", "capital"])
    workbook.active.append(["Peru", "Lima"])
    workbook.save(tmp_path / "capitals.xlsx")
    assert "| Peru | Lima |" in only(tmp_path / "capitals.xlsx").text


def test_a_text_of_word(tmp_path):
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    kinds = "http://schemas.openxmlformats.org/package/2006/content-types"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    path = packed(
        tmp_path / "letter.docx",
        **{
            "[Content_Types]_DOT_xml": f'<Types xmlns="{kinds}"><Default Extension="rels" ContentType='
            f'"application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" '
            f'ContentType="{main}"/></Types>',
            "_rels/_DOT_rels": f'<Relationships xmlns="{relations}"><Relationship Id="r1" Type="{office}" '
            'Target="word/document.xml"/></Relationships>',
            "word__document_DOT_xml": f'<w:document xmlns:w="{namespace}"><w:body><w:p><w:r><w:t>Lima is in Peru.'
            "</w:t></w:r></w:p></w:body></w:document>",
        },
    )
    assert only(path).text.strip() == "Lima is in Peru."


def test_a_web_page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(
        "<html><head><title>About Peru</title><script>alert('no')</script></head>"
        "<body><h1>Peru</h1><p>Lima is <b>large</b>.</p></body></html>"
    )
    document = only(path)
    assert document.title == "About Peru"
    assert "Lima is **large**." in document.text
    assert "alert" not in document.text


def test_a_book(tmp_path):
    path = packed(
        tmp_path / "book.epub",
        mimetype="application/epub+zip",
        **{
            "META-INF__container_DOT_xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
            '<rootfiles><rootfile full-path="content.opf"/></rootfiles></container>',
            "content_DOT_opf": '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc='
            '"http://purl.org/dc/elements/1.1/"><dc:title>A book</dc:title></metadata><manifest><item id="a" '
            'href="a.xhtml" media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine>'
            "</package>",
            "a_DOT_xhtml": "<html><body><p>Lima is in Peru.</p></body></html>",
        },
    )
    assert "Lima is in Peru." in only(path).text


@pytest.mark.parametrize("ending", ["pdf", "docx", "pptx", "xlsx", "epub", "parquet", "arrow"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff" * 100, b"PK\x03\x04" + b"\x07" * 50, b"%PDF-1.4 nothing"]
)
def test_damaged_files(tmp_path, ending, content):
    (tmp_path / f"a.{ending}").write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot be read|has no text"):
        read(tmp_path / f"a.{ending}")


@pytest.mark.parametrize("ending", ["docx", "pptx", "xlsx", "epub"])
def test_a_file_that_unpacks_beyond_all_measure(tmp_path, ending):
    path = packed(tmp_path / f"bomb.{ending}", a="0" * (257 * 2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(SourceError, match="unpacks to 257 MiB"):
        read(path)


def test_parquet_and_a_saved_data_set(tmp_path):
    from datasets import Dataset

    rows = Dataset.from_dict(
        {"id": ["a", "b"], "title": ["A", None], "text": ["Lima.", "Ulm."], "more": [1, 2]}
    )
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    assert [(own.id, own.title, own.text, own.line) for own in read(tmp_path / "rows.parquet")] == [
        ("a", "A", "Lima.", 1),
        ("b", "", "Ulm.", 2),
    ]
    rows.remove_columns(["id", "title"]).save_to_disk(str(tmp_path / "saved"))
    found = read(tmp_path / "saved")
    assert [own.text for own in found] == ["Lima.", "Ulm."]
    assert found[1].id.endswith(".arrow:2")


def test_a_table_without_texts(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"body": ["x"]}).to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(SourceError, match=r"lacks the column text \(found: body\)"):
        read(tmp_path / "a.parquet")
    Dataset.from_dict({"text": ["x", None]}).to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(SourceError, match="Row 2"):
        read(tmp_path / "a.parquet")


def test_passages_of_dpr_and_kilt(tmp_path):
    (tmp_path / "psgs.tsv").write_text('id\ttext\ttitle\n1\t"Aaron is ""a"" prophet"\tAaron\n')
    assert [(own.id, own.title, own.text) for own in read(tmp_path / "psgs.tsv")] == [
        ("1", "Aaron", 'Aaron is "a" prophet')
    ]
    page = {
        "_id": "7",
        "wikipedia_id": "7",
        "wikipedia_title": "Peru",
        "text": ["Peru\n", "Lima is its capital.\n"],
    }
    (tmp_path / "kilt.jsonl").write_text(json.dumps(page) + "\n")
    (document,) = read(tmp_path / "kilt.jsonl")
    assert (document.id, document.title, document.text) == ("7", "Peru", "Peru\n\nLima is its capital.")


def test_patterns(tmp_path):
    for name in ("a.txt", "b.md", "deep/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"Text of {name}.")
    assert [own.id for own in read(tmp_path / "*.txt")] == ["a.txt"]
    assert [own.id for own in read(tmp_path / "**" / "*.txt")] == ["a.txt", "c.txt"]
    with pytest.raises(SourceError, match="Nothing matches"):
        read(tmp_path / "*.pdf")
    (tmp_path / "[x].txt").write_text("A name that looks like a pattern.")
    assert [own.id for own in read(tmp_path / "[x].txt")] == ["[x].txt"]


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("ragweave.knowledge.ingest.loaders.text._LINE_AT_MOST", 2**20)
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": "' + "x" * 2**20 + '"}\n')
    with pytest.raises(SourceError, match=r"Line 2 of .* has more than 1 MiB"):
        read(tmp_path / "a.jsonl")


def test_without_the_extra_the_others_are_read(tmp_path, tiny_encoder, monkeypatch):
    pdf(tmp_path / "a.pdf", ["Lima."])
    (tmp_path / "b.txt").write_text("Ulm.")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"ragweave\[readers\]"):
        read(tmp_path / "a.pdf")
    base = KnowledgeBase.build([tmp_path], tmp_path / "kb", encoder=tiny_encoder)
    assert len(base) == 1
    assert "ragweave[readers]" in base.manifest.change.skipped[0]


def test_a_data_set_of_the_hub_is_known_by_its_address(tmp_path, tiny_encoder):
    def loaded(*texts):
        rows = {
            "title": [f"{n}" for n in range(len(texts))],
            "text": list(texts),
            "embeddings": [[0.5]] * len(texts),
        }
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
        cache = str(tmp_path / f"cache{len(texts)}")
        data = {"train": str(tmp_path / "train.parquet")}
        return datasets.load_dataset("parquet", data_files=data, split="train", cache_dir=cache)

    address = "hf://datasets/me/mine:train"
    base = KnowledgeBase.build(
        dataset_files(loaded("One.", "Two."), address), tmp_path / "kb", encoder=tiny_encoder
    )
    assert {base.passage(row).source for row in range(2)} == {address}
    assert base.passage(0).document_id == "mine:train:1"
    same = base.add(dataset_files(loaded("One.", "Two."), address), encoder=tiny_encoder)
    assert same.version == base.version
    new = base.add(dataset_files(loaded("One.", "Two.", "Three."), address), encoder=tiny_encoder)
    assert new.manifest.passages == 3


def test_data_sets_that_cannot_be_had(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="The data set nobody/nothing cannot be loaded from the hub"):
        find_sources([Path("hf://datasets/nobody/nothing:train")])
    with pytest.raises(SourceError, match="not the address of a data set: write hf://datasets/NAME"):
        find_sources([Path("hf://datasets/a/b/c d")])

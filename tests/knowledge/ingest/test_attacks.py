"""Files that are made to exhaust memory or time are read within the limits or skipped, and harm no other file.

Each file is small. Its name says what it does; the reader's own tests have more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.knowledge.ingest.loaders.test_pdf import at, make_pdf, nested_forms, stream
from tests.support.documents import write, write_zip

SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SLIDE = "http://schemas.openxmlformats.org/presentationml/2006/main"
DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
LONG = "word " * 20_000
PROGRAM = """
import json, sys, warnings
from pathlib import Path
from ragweave.knowledge.ingest.builder import IngestReport, SeenHashes, read_shards
from ragweave.knowledge.ingest_settings import ChangeOptions, Chunking, ReadSettings
from ragweave.types import SourceFile

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))

reading = ReadSettings(memory=768, seconds=1)
options = ChangeOptions(reading=reading)
for path in sorted(Path(sys.argv[1]).iterdir()):
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before, report = memory("VmRSS"), IngestReport()
    warnings.simplefilter("ignore")
    files = [SourceFile(path, path.name)]
    for _ in read_shards(files, None, Chunking(sys.argv[2]), options, SeenHashes(), report):
        pass
    print(json.dumps([path.name, report.passages, report.skipped, memory("VmHWM") - before]), flush=True)
"""


def relations(**targets: str) -> str:
    """The relations of a part of an Office file: kinds and the parts they lead to."""
    links = (f'<Relationship Id="{k}" Type="{OFFICE}/{k}" Target="{t}"/>' for k, t in targets.items())
    return f'<Relationships xmlns="{OFFICE}">{"".join(links)}</Relationships>'


def xlsx(path: Path, rows: str, shared: str = "", after: str = "") -> None:
    sheets = '<sheets><sheet name="A" sheetId="1" r:id="worksheet"/></sheets>'
    parts = {
        "_rels/.rels": relations(officeDocument="xl/workbook.xml"),
        "xl/workbook.xml": f'<workbook xmlns="{SHEET}" xmlns:r="{OFFICE}">{sheets}</workbook>',
        "xl/_rels/workbook.xml.rels": relations(worksheet="sheet.xml", sharedStrings="strings.xml"),
        "xl/sheet.xml": f'<worksheet xmlns="{SHEET}"><sheetData>{rows}</sheetData>{after}</worksheet>',
        "xl/strings.xml": f'<sst xmlns="{SHEET}">{shared}</sst>',
    }
    write_zip(path, parts)


def docx(path: Path, body: str, parts: dict[str, str] | None = None, **targets: str) -> None:
    spaces = f'xmlns:w="{WORD}" xmlns:r="{OFFICE}" xmlns:a="{DRAWING}"'
    main = {
        "_rels/.rels": relations(officeDocument="word/document.xml"),
        "word/_rels/document.xml.rels": relations(**targets),
        "word/document.xml": f"<w:document {spaces}><w:body>{body}</w:body></w:document>",
    }
    write_zip(path, {**main, **(parts or {})})


def office_files(folder: Path) -> None:
    paragraph = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"
    far = '<row r="{0}"><c r="{1}{0}" t="str"><v>{2}</v></c></row>'
    xlsx(folder / "far_cell.xlsx", far.format(1, "A", "near") + far.format(1048576, "XFD", "far"))
    cells = "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>0</v></c></row>' for n in range(1, 20_001))
    xlsx(folder / "shared_string.xlsx", cells, f"<si><t>{LONG}</t></si>")
    rows = far.format(1, "A", LONG) + "".join(far.format(n, "BZ", "x") for n in range(2, 5000))
    xlsx(folder / "merged_cells.xlsx", rows, after='<mergeCells><mergeCell ref="A1:BY5000"/></mergeCells>')
    docx(folder / "much_xml.docx", paragraph.format("word") * (30 * 2**20 // 40))
    docx(folder / "deep_xml.docx", "<w:tbl><w:tr><w:tc>" * 10**5)
    docx(folder / "empty_elements.docx", "<w:p/>" * (100 * 2**20 // 6))
    picture = f'<w:p><w:r><a:docPr descr="{LONG[:5000]}"/><a:blip r:embed="image"/></w:r></w:p>'
    docx(folder / "one_picture.docx", picture * 300, {"word/p.png": "\0" * 2**24}, image="p.png")
    note = '<w:p><w:r><w:footnoteReference w:id="1"/></w:r></w:p>'
    notes = f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:id="1">{paragraph.format(LONG)}</w:footnote></w:footnotes>'
    docx(folder / "one_note.docx", note * 20_000, {"word/n.xml": notes}, footnotes="n.xml")
    slide = f"<p:sp><p:txBody><a:p><a:r><a:t>{LONG}</a:t></a:r></a:p></p:txBody></p:sp>"
    numbers = "".join(f'<p:sldId id="{n}" r:id="slide"/>' for n in range(20_000))
    spaces = f'xmlns:p="{SLIDE}" xmlns:r="{OFFICE}" xmlns:a="{DRAWING}"'
    parts = {
        "_rels/.rels": relations(officeDocument="ppt/presentation.xml"),
        "ppt/presentation.xml": f"<p:presentation {spaces}><p:sldIdLst>{numbers}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(slide="s.xml"),
        "ppt/s.xml": f"<p:sld {spaces}><p:cSld><p:spTree>{slide}</p:spTree></p:cSld></p:sld>",
    }
    write_zip(folder / "one_slide.pptx", parts)
    spine = '<itemref idref="a"/>' * 20_000
    items = '<manifest><item id="a" href="a.xhtml"/></manifest>'
    container = '<container><rootfiles><rootfile full-path="c.opf"/></rootfiles></container>'
    parts = {
        "META-INF/container.xml": container,
        "c.opf": f"<package>{items}<spine>{spine}</spine></package>",
        "a.xhtml": f"<html><body><p>{LONG}</p></body></html>",
    }
    write_zip(folder / "one_chapter.epub", parts)


def pdf_files(folder: Path) -> None:
    twice = zlib.compress(zlib.compress(b" " * 2**28, 9), 9)
    make_pdf(folder / "compressed_twice.pdf", stream(twice, "/Filter [/FlateDecode /FlateDecode]"))
    page = "".join(at(72, y / 100, "word " * 20) for y in range(10_000, 70_000, 60))
    shared = stream(zlib.compress(page.encode()), "/Filter /FlateDecode")
    path = make_pdf(folder / "one_stream.pdf", *["Lima."] * 5000, more=(shared,))
    path.write_bytes(path.read_bytes().replace(b"/Contents ", b"/Contents 7 0 R %"))
    more, resources = nested_forms(25)
    make_pdf(folder / "nested_forms.pdf", "/X Do", more=more, resources=resources)


def table_files(folder: Path) -> None:
    for name, text in {"text": LONG, "wide": "x" * 10**6}.items():
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([text]))
        pq.write_table(pa.table({"text": column}), folder / f"dictionary_{name}.parquet", store_schema=False)
    pq.write_table(pa.table({"a": pa.nulls(2 * 10**5, pa.string())}), folder / "nulls.parquet")
    write(folder / "long_name.csv", f"a,{'x' * 20_000}\n" + "1,2\n" * 2_000)
    write(folder / "deep.jsonl", "[" * 200_000)
    write(folder / "deep.ipynb", '{"cells": ' + "[" * 200_000)


def page_files(folder: Path) -> None:
    write(folder / "comments.html", "<html><body>lima" + "<!--" * 200_000)
    write(folder / "sections.xhtml", "<?xml version='1.0'?><html><body>lima" + "<![CDATA[" * 200_000)
    write(folder / "deep.html", "<div>" * 3 * 10**5 + "lima")
    write(folder / "deep_tables.html", "<table><tr><td>" * 30_000 + "lima")
    write(folder / "one_row.html", "<table><tr>" + "<td>x</td>" * 100_000)
    write(folder / "items.html", "<li>a" * 3 * 10**5)
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 20))
    write(folder / "entities.html", f"<!DOCTYPE html [{entities}]><p>&a19; lima")


def text_files(folder: Path) -> None:
    write(folder / "one_line.txt", "word " * 4 * 10**6)
    write(folder / "one_word.txt", "x" * 10**7)
    write(folder / "dots.txt", "." * 10**6)
    write(folder / "initials.txt", "A. " * 300_000)
    write(folder / "signs.md", "# " + "a #" * 80_000 + "b")
    write(folder / "headings.md", "# a\n" * 20_000)
    write(folder / "items.md", "- a\n" * 20_000)
    write(folder / "brackets.org", "[[" * 100_000)
    write(folder / "commands.tex", "\\begin{" * 30_000)
    write(folder / "tags.vtt", "WEBVTT\n\n00:00 --> 00:01\n" + "<v ." * 60_000)


KINDS = {files.__name__: files for files in (office_files, pdf_files, table_files, page_files, text_files)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunking", ["sentences", pytest.param("markdown", marks=pytest.mark.slow)])
def test_files_that_exhaust_memory_or_time(tmp_path, kind, chunking):
    KINDS[kind](tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert all(path.stat().st_size < 21 * 10**6 for path in tmp_path.iterdir())
    write(tmp_path / "zzz.html", "<p>Ulm is on the Danube.</p>")
    command = [sys.executable, "-c", PROGRAM, tmp_path, chunking]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    results = {name: rest for name, *rest in map(json.loads, run.stdout.splitlines())}
    assert results.pop("zzz.html")[0] == 1
    assert results.keys() == names
    for name, (passages, skipped, growth) in results.items():
        assert growth < 150, f"{name}: {growth} MiB in the process that builds"
        assert all(name in sentence and sentence.endswith(".") for sentence in skipped), skipped
        assert passages or skipped or name in WITHOUT_TEXT, f"{name} is neither read nor skipped"


# What is left of them is nothing, of which their readers warn.
WITHOUT_TEXT = ("deep_xml.docx", "commands.tex", "nulls.parquet", "tags.vtt", "empty_elements.docx")

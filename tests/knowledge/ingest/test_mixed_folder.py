"""A folder with files of every kind: each of them is read, unchanged, skipped or ignored, and none is forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import docx
import openpyxl
import pptx
import pyarrow as pa
import pytest
from pyarrow import parquet

import ragweave
from ragweave.errors import OmissionWarning
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.loaders.loader import LOADERS
from ragweave.types import Passage
from tests.support.documents import write, write_pdf, write_zip

TEXTS = """.txt .md .markdown .log .rst .tex .org .html .htm .xhtml .eml README .toml .js .sql
    deep/.txt""".split()  # noqa: SIM905
IGNORED = {
    "photo.png": ".png",
    "data.json": ".json",
    "a.gz": ".gz",
    "deep/lib.so": ".so",
    ".git/config": "hidden",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Files of all kinds that name where they are from, some that no loader reads, and some that are damaged."""
    root = tmp_path / "notes"
    for kind in TEXTS:
        name = (
            f"deep/Lima{kind[5:]}" if kind.startswith("deep/") else f"Lima{kind}" if kind[0] == "." else kind
        )
        write(root / name, f"Subject: Lima\n\n\n<p>This is from {name}.</p>\n")
    write(root / "a.csv", "city,river\nLima,from a.csv\n")
    write(root / "a.tsv", "city\triver\nLima\tfrom a.tsv\n")
    write(root / "a.jsonl", '{"city": "Lima", "river": "from a.jsonl"}\n')
    parquet.write_table(pa.table({"text": ["from a.parquet"]}), root / "a.parquet")
    write(root / "a.srt", "1\n00:00:01,000 --> 00:00:02,000\nfrom a.srt\n")
    write(root / "a.ipynb", json.dumps({"cells": [{"cell_type": "markdown", "source": "from a.ipynb"}]}))
    write(root / "a.mbox", "From x\nSubject: Ulm\n\nfrom a.mbox\n")
    write(root / "code.py", (Path(ragweave.__file__).parent / "errors.py").read_bytes())
    write_pdf(root / "a.pdf", ["from a.pdf"])
    write_zip(root / "a.zip", {"deep/x.md": b"from a.zip", "y.png": b"x"})
    document, slides, book = docx.Document(), pptx.Presentation(), openpyxl.Workbook()
    document.add_paragraph("from a.docx")
    document.save(str(root / "a.docx"))
    slides.slides.add_slide(slides.slide_layouts[0]).shapes.title.text = "from a.pptx"
    slides.save(str(root / "a.pptx"))
    book.active.append(["from a.xlsx"])
    book.save(root / "a.xlsx")
    for name in IGNORED:
        write(root / name, "x")
    for name in ("bad.pdf", "bad.docx", "bad.zip", "bad.parquet", "bad.tar.gz"):
        write(root / name, "damaged")
    write(root / "bad.txt", b"r\xe9")
    return root


def passages(base: KnowledgeBase) -> list[Passage]:
    return [base.passage(row) for row in range(len(base))]


def test_every_file_is_accounted_for(folder, tmp_path, tiny_encoder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    with pytest.warns(OmissionWarning, match=r"a\.zip: 1 files in it are ignored: 1 \.png"):
        base = KnowledgeBase.build([folder], tmp_path / "kb", encoder=tiny_encoder, strict=False)
    change = base.manifest.change
    assert {str(Path(source).relative_to(folder)): why for source, why in change.ignored.items()} == {
        **{name: why for name, why in IGNORED.items() if "/" not in name or name.startswith("deep")},
        ".git": "hidden",
    }
    bad = sorted(path.name for path in files if path.name.startswith("bad."))
    assert [[name in sentence for sentence in sorted(change.skipped)] for name in bad] == [
        [name == other for other in bad] for name in bad
    ]
    assert change.read + change.unchanged + len(change.skipped) + len(change.ignored) == len(files)
    texts = {passage.source: "" for passage in passages(base)}
    for passage in passages(base):
        texts[passage.source] += passage.title + passage.text
    read = [
        path
        for path in files
        if path.name not in bad and str(path) not in change.ignored and ".git" not in str(path)
    ]
    assert set(texts) == set(map(str, read))
    for path in read:
        assert (
            "class SourceError" if path.name == "code.py" else f"from {path.relative_to(folder)}"
        ) in texts[str(path)]


def test_after_a_change_all_but_one_are_unchanged(folder, tmp_path, tiny_encoder):
    with pytest.warns(OmissionWarning):
        base = KnowledgeBase.build([folder], tmp_path / "kb", encoder=tiny_encoder, strict=False)
    before = base.manifest.change
    write(folder / "Lima.txt", "Jena is on the Saale.")
    change = base.add([folder], encoder=tiny_encoder, strict=False).manifest.change
    assert (change.read, change.unchanged) == (1, before.read - 1)
    assert (len(change.skipped), change.ignored) == (len(before.skipped), before.ignored)


def test_the_help_and_the_guide_name_the_kinds():
    guide = Path(__file__).parents[3] / "docs" / "knowledge-base.md"
    documented = guide.read_text(encoding="utf-8")
    code = {ending for ending, loader in LOADERS.items() if loader.startswith("code.")}
    aliases = {"", ".markdown", ".htm", ".tbz2", ".txz"}
    assert [e for e in LOADERS.keys() - code - aliases if f"`{e}`" not in documented] == []

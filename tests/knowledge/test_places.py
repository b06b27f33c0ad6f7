"""Where passages stand in their sources, from the files to the retriever, in a folder and in PostgreSQL."""

from __future__ import annotations

import faiss
import pytest
from datasets import Dataset
from openpyxl import Workbook
from openpyxl.comments import Comment
from pptx import Presentation

from ragweave import KnowledgeBase, Place
from ragweave.knowledge.ingest_settings import Chunking
from ragweave.knowledge.manifest import FORMAT_VERSION
from ragweave.retrieval.dataset import DatasetIndex
from ragweave.retrieval.memory import MemoryIndex
from ragweave.retrieval.retriever import Retriever
from tests.support.documents import write, write_pdf

GUIDE = """# Guide

Lima is here.

Install
-------

Ulm is *here*.

## Use `rivers`

```
# no heading
```

The Andes are here.
"""


@pytest.fixture(params=["folder", "postgresql"])
def output(request, tmp_path):
    if request.param == "folder":
        return tmp_path / "kb"
    return request.getfixturevalue("postgres").uri()


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of each kind of place."""
    folder = tmp_path / "files"
    write_pdf(folder / "handbook.pdf", ["Lima is the capital.", "Ulm is on the Danube."])
    write_pdf(folder / "letter.pdf", ["One page only."])
    write(folder / "guide.md", GUIDE)
    write(folder / "page.html", "<h1>Peru</h1><p>Lima.<h2>Rivers</h2><p>The Amazon.")
    write(folder / "notes.txt", "First line here.\n\nSecond paragraph there.\n")
    write(folder / "people.csv", 'name,city\nAda,"Ulm\nor Lima"\nBob,Nairobi\n')
    write(folder / "lines.jsonl", '{"id": "x", "title": "X", "text": "One is here.\\n\\nTwo is there."}\n')
    workbook = Workbook()
    workbook.active.title = "Prices"
    for row in (["item", "price"], ["Tent", 90], ["Rope", 15]):
        workbook.active.append(row)
    workbook.save(folder / "shop.xlsx")
    slides = Presentation()
    for title in ("Peru is far away", "Ulm is near here"):
        slides.slides.add_slide(slides.slide_layouts[0]).shapes.title.text = title
    slides.save(str(folder / "talk.pptx"))
    return folder


def places(base, encoder) -> dict[tuple[str, str], Place]:
    """The place of each passage, as the retriever returns it, by the name of its source and its text."""
    (passages,) = Retriever(base.as_index(), encoder).retrieve(["lima"], len(base)).passages
    return {(passage.origin.split(",")[0], passage.text): passage.place for passage in passages}


def test_every_kind_of_place(output, folder, tiny_encoder):
    base = KnowledgeBase.build([folder], output, encoder=tiny_encoder, chunking=Chunking(words=3))
    found = places(base, tiny_encoder)
    assert base.manifest.format_version == FORMAT_VERSION

    def place(source, start_of_text):
        ((text, one),) = [
            (text, one) for (name, text), one in found.items() if name == source and start_of_text in text
        ]
        return text, one

    assert place("handbook.pdf", "Lima is")[1].page == 1
    assert place("handbook.pdf", "Ulm is")[1].page == 2
    assert place("letter.pdf", "One page")[1].page == 1
    slide = place("talk.pptx", "near")[1]
    assert (slide.slide, slide.page, slide.heading) == (2, None, ("Ulm is near here",))
    assert place("shop.xlsx", "Rope")[1] == Place(sheet="Prices", row=3, start=0, end=20)
    assert place("guide.md", "Lima")[1] == Place(heading=("Guide",), line=3, start=9, end=22)
    assert place("guide.md", "Ulm")[1].heading == ("Guide", "Install")
    assert place("guide.md", "The Andes")[1].heading == ("Guide", "Use rivers")
    assert str(place("guide.md", "The Andes")[1]) == "Guide > Use rivers, line 16"
    assert place("page.html", "The Amazon")[1].heading == ("Peru", "Rivers")
    text, second = place("notes.txt", "Second")
    assert (second.line, second.page, second.heading) == (3, None, ())
    assert (folder / "notes.txt").read_text()[second.start : second.end] == text
    # The text of a row has other lines than the file.
    assert place("people.csv", "Nairobi")[1].line == 4
    assert place("lines.jsonl", "Two")[1] == Place(line=1, start=14, end=27)


def test_rows_of_a_sheet_without_a_table(tmp_path, tiny_encoder):
    workbook = Workbook()
    workbook.active.title = "Notes"
    for row, text in (
        (2, "Lima is the capital."),
        (3, "Ulm has a\ntall minster."),
        (40, "The Andes are high."),
    ):
        workbook.active.cell(row, 3, text)
    workbook.active["C3"].comment = Comment("Check it.", "Ada")
    workbook.save(tmp_path / "notes.xlsx")
    base = KnowledgeBase.build(
        [tmp_path / "notes.xlsx"], tmp_path / "kb", encoder=tiny_encoder, chunking=Chunking(words=4)
    )
    assert {text.split()[0]: str(place) for (_, text), place in places(base, tiny_encoder).items()} == {
        "Lima": "sheet Notes, row 2",
        "Ulm": "sheet Notes, row 3",
        "The": "sheet Notes, row 40",
        "Comment": "sheet Notes",
    }


@pytest.mark.parametrize("chunking", [Chunking("markdown"), Chunking("words", words=3), Chunking(overlap=2)])
def test_headings_do_not_depend_on_how_a_document_is_cut(tmp_path, folder, tiny_encoder, chunking):
    path = folder / "guide.md"
    base = KnowledgeBase.build([path], tmp_path / "kb", encoder=tiny_encoder, chunking=chunking)
    for (_, text), place in places(base, tiny_encoder).items():
        second = ["Install"] if place.start >= GUIDE.index("Install") else []
        second = ["Use rivers"] if place.start >= GUIDE.index("## Use") else second
        assert place.heading == ("Guide", *second)
        assert place.line == GUIDE[: place.start].count("\n") + 1
        assert GUIDE[place.start :].startswith(text.split()[0])


def test_other_indexes_have_no_places(tiny_encoder):
    vectors = tiny_encoder.encode(["Lima."])
    rows = {"title": ["A"], "text": ["Lima."], "embeddings": vectors.tolist(), "place": ["Peru"]}
    dataset = Dataset.from_dict(rows)
    dataset.add_faiss_index("embeddings", metric_type=faiss.METRIC_INNER_PRODUCT)
    for index in (MemoryIndex(["Lima."], vectors), DatasetIndex(16, dataset)):
        index.init_index()
        ((passage,),) = Retriever(index, tiny_encoder).retrieve(["lima"], 1).passages
        assert (passage.place, passage.origin) == (None, "")

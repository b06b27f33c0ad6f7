"""PDF files: words and their order, warnings of what is lost, and limits that protect the process."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path

import pytest

from ragweave.errors import SourceError, SourceWarning
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.knowledge.ingest_settings import Chunking, ReadSettings
from tests.support.documents import only_document, read, write, write_pdf

IMAGE = "q 100 0 0 100 0 0 cm BI /W 1 /H 1 /BPC 8 /CS /G ID \x80 EI Q"
FIRST = 7  # the number of the first of the additional objects
FORM = "/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> /XObject << {} >> >>"


def at(x: float, y: float, text: str, size: float = 12, font: str = "F1", turn: str = "1 0 0 1") -> str:
    """The operators that draw a line of text."""
    return f"BT /{font} {size} Tf {turn} {x} {y} Tm ({text}) Tj ET\n"


def stream(content: str | bytes, entries: str = "") -> bytes:
    raw = content if isinstance(content, bytes) else content.encode("latin-1")
    return f"<< /Length {len(raw)} {entries} >>\nstream\n".encode() + raw + b"\nendstream"


def bomb(content: bytes, entries: str = "") -> bytes:
    return stream(zlib.compress(content, 9), f"/Filter /FlateDecode {entries}")


def unicode_map(mapping: dict[str, str]) -> bytes:
    """A table from the codes of a font, written as letters, to Unicode."""
    pairs = "".join(f"<{ord(c):02x}> <{t.encode('utf-16-be').hex()}>\n" for c, t in mapping.items())
    return stream(
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapType 2 def\n"
        "1 begincodespacerange <00> <ff> endcodespacerange\n"
        f"{len(mapping)} beginbfchar\n{pairs}endbfchar endcmap end end"
    )


def make_pdf(
    path: Path,
    *pages: str | bytes,
    mapping: dict[str, str] | None = None,
    more: tuple[str | bytes, ...] = (),
    catalog: str = "",
    page: str = "",
    resources: str = "",
    info: str = "",
) -> Path:
    """Write a PDF. F1 is Helvetica, F2 has the Unicode ``mapping``; ``more`` are objects from ``FIRST`` on."""
    start = FIRST + len(more)
    kids = " ".join(f"{start + 2 * number} 0 R" for number in range(len(pages)))
    objects: list[str | bytes] = [
        f"<< /Type /Catalog /Pages 2 0 R {catalog} >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 5 0 R >>",
        unicode_map(mapping or {}),
        f"<< {info} >>",
        *more,
    ]
    for number, content in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {start + 2 * number + 1} 0 R {page} "
            f"/Resources << /Font << /F1 3 0 R /F2 4 0 R >> {resources} >> >>"
        )
        objects.append(content if isinstance(content, bytes) else stream(content))
    file, offsets = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%b\nendobj\n" % (
            number,
            content if isinstance(content, bytes) else content.encode(),
        )
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    trailer = (
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info 6 0 R >>\nstartxref\n{len(file)}\n%%EOF\n"
    )
    return write(path, file + end.encode() + trailer.encode())


def text_of(path: Path) -> str:
    return only_document(path).text


def test_pages(tmp_path):
    path = write_pdf(tmp_path / "annual_report.pdf", ["Lima is in Peru.", "Ulm is on the Danube."])
    document = only_document(path)
    assert document.title == "Annual report"
    assert [(passage.text, passage.page) for passage in chunk(document, Chunking(words=4))] == [
        ("Lima is in Peru.", 1),
        ("Ulm is on the Danube.", 2),
    ]


def test_lines_and_paragraphs(tmp_path):
    lines = ["The ferry", "is late.", "", "It sails", "at nine."]
    page = "".join(at(72, 700 - 14 * n, line) for n, line in enumerate(lines))
    assert text_of(make_pdf(tmp_path / "a.pdf", page)) == "The ferry\nis late.\n\nIt sails\nat nine."


def test_words_are_apart_without_spaces(tmp_path):
    page = at(72, 700, "Adult") + at(110, 700, "fare") + at(300, 700, "12.00")
    assert text_of(make_pdf(tmp_path / "a.pdf", page)) == "Adult fare 12.00"


def test_forms_that_a_page_draws(tmp_path):
    more = (stream(at(0, 0, "The ferry leaves.") + at(0, -14, "It returns."), FORM.format("")),)
    page = at(72, 740, "Timetable.") + "q 1 0 0 1 72 726 cm /X Do Q"
    path = make_pdf(tmp_path / "a.pdf", page, more=more, resources=f"/XObject << /X {FIRST} 0 R >>")
    assert text_of(path) == "Timetable.\nThe ferry leaves.\nIt returns."


def test_values_of_form_fields(tmp_path):
    def field(bottom: int, entries: str) -> str:
        return f"<< /Subtype /Widget /F 4 /Rect [150 {bottom} 300 {bottom + 20}] {entries} >>"

    more = (
        field(695, "/FT /Tx /T (name) /V (Ada Lovelace) /DA (/F1 12 Tf 0 g)"),
        field(665, "/FT /Btn /T (member) /V /Yes /AS /Yes"),
        field(635, "/FT /Btn /T (student) /V /Off /AS /Off"),
        field(605, "/FT /Ch /Ff 131072 /T (country) /V (Peru) /Opt [(Peru) (Chile)] /DA (/F1 12 Tf 0 g)"),
    )
    fields = f"[{' '.join(f'{FIRST + n} 0 R' for n in range(len(more)))}]"
    catalog = f"/AcroForm << /Fields {fields} /DR << /Font << /F1 3 0 R >> >> >>"
    labels = "".join(at(72, 700 - 30 * n, t) for n, t in enumerate(("Name:", "Member", "Student", "From:")))
    path = make_pdf(tmp_path / "a.pdf", labels, more=more, catalog=catalog, page=f"/Annots {fields}")
    words = text_of(path).replace("|", " ").split()
    assert words == ["Name:", "Ada", "Lovelace", "Member", "[x]", "Student", "From:", "Peru"]


@pytest.mark.parametrize("turn", ["0 1 -1 0", "0 -1 1 0", "-1 0 0 -1"])
def test_text_in_any_direction(tmp_path, turn):
    across = {"0 1 -1 0": (14, 0), "0 -1 1 0": (-14, 0), "-1 0 0 -1": (0, 14)}[turn]
    page = at(300, 400, "North nine metres", turn=turn)
    page += at(300 + across[0], 400 + across[1], "South six metres", turn=turn)
    assert text_of(make_pdf(tmp_path / "a.pdf", page)) == "North nine metres\nSouth six metres"


HEBREW = dict(zip("abcdefghi", "נמלחיפהרץ", strict=True))


def test_hebrew_is_in_logical_order(tmp_path):
    # On the page, from left to right: "(1933) A3", and two words whose letters go from right to left.
    page = at(72, 700, "\\(1933\\)") + at(120, 700, "A3") + at(145, 700, "gfed cba", font="F2")
    assert text_of(make_pdf(tmp_path / "a.pdf", page, mapping=HEBREW)) == "נמל חיפה A3 (1933)"


def test_hebrew_that_is_drawn_letter_by_letter(tmp_path):
    page = "".join(at(200 - 7 * n, 700, letter, font="F2") for n, letter in enumerate("abc"))
    assert text_of(make_pdf(tmp_path / "a.pdf", page, mapping=HEBREW)) == "נמל"


def test_hebrew_within_english(tmp_path):
    words = ("The port of", "gfed cba", "is old.")
    page = "".join(
        at(x, 700, t, font=f) for x, t, f in zip((72, 134, 184), words, ("F1", "F2", "F1"), strict=True)
    )
    assert text_of(make_pdf(tmp_path / "a.pdf", page, mapping=HEBREW)) == "The port of נמל חיפה is old."


def test_shapes_and_ligatures_of_arabic(tmp_path):
    # The word سلام, whose ligature is a form in the first line, and two letters in the second.
    shapes = {"d": "\ufeb3", "c": "\ufefc", "b": "\ufee1", "e": "\u0644\u0627"}
    page = at(72, 700, "bcd", font="F2") + at(72, 680, "bed", font="F2")
    assert text_of(make_pdf(tmp_path / "a.pdf", page, mapping=shapes)) == "سلام\nسلام"  # noqa: RUF001


def test_latin_ligatures_and_accents(tmp_path):
    mapping = {"a": "\ufb01", "b": "\ufb04", "c": "²", "d": "⽤"}
    page = at(72, 700, "a b c d", font="F2") + "BT /F1 12 Tf 72 686 Td [(f\\250) 445 (ur)] TJ ET"
    assert text_of(make_pdf(tmp_path / "a.pdf", page, mapping=mapping)) == "fi ffl ² 用\nfür"


PROSE = [f"line {n} of a long text that runs on and on" for n in range(8)]


@pytest.mark.parametrize("by_line", [False, True])
def test_two_columns(tmp_path, by_line):
    left = [at(50, 700 - 14 * n, f"Left {line}", 10) for n, line in enumerate(PROSE)]
    right = [at(320, 700 - 14 * n, f"Right {line}", 10) for n, line in enumerate(PROSE)]
    drawn = [line for pair in zip(left, right, strict=True) for line in pair] if by_line else left + right
    text = text_of(make_pdf(tmp_path / "a.pdf", at(50, 740, "A title across both columns") + "".join(drawn)))
    expected = [f"{side} {line}" for side in ("Left", "Right") for line in PROSE]
    assert text.split("\n") == ["A title across both columns", "", *expected]


def test_rows_of_a_table(tmp_path):
    rows = [("Berth", "Depth", "Length"), ("North", "9 m", "320 m"), ("South quay", "6 m", "180 m")]
    cells = [(72 + 120 * x, 700 - 16 * y, cell) for y, row in enumerate(rows) for x, cell in enumerate(row)]
    page = at(72, 730, "The berths:") + "".join(at(*cell) for cell in cells) + at(72, 640, "It is deep.")
    assert text_of(make_pdf(tmp_path / "a.pdf", page)).split("\n") == [
        "The berths:",
        "",
        "| Berth | Depth | Length |",
        "| North | 9 m | 320 m |",
        "| South quay | 6 m | 180 m |",
        "",
        "It is deep.",
    ]


def test_a_list_is_not_a_table(tmp_path):
    page = "".join(at(72, 700 - 14 * n, f"{n}.") + at(100, 700 - 14 * n, f"item {n}") for n in range(1, 4))
    assert text_of(make_pdf(tmp_path / "a.pdf", page)) == "1. item 1\n2. item 2\n3. item 3"


def test_a_page_that_is_drawn_by_font(tmp_path):
    names = [at(72, 700 - 14 * n, f"Item {n}:") for n in range(9)]
    values = [at(114, 700 - 14 * n, f"text {n}") for n in range(9)]
    text = text_of(make_pdf(tmp_path / "a.pdf", "".join(names + values)))
    assert text.split("\n") == [f"Item {n}: text {n}" for n in range(9)]


def test_hyphens_at_line_ends(tmp_path):
    lines = ["A har-", "bour, a well-", "known Rhein-", "Main port and NOR-", "MAL well-known one."]
    page = "".join(at(72, 700 - 14 * n, line) for n, line in enumerate(lines))
    assert text_of(make_pdf(tmp_path / "a.pdf", page)).split("\n") == [
        "A harbour, a well-known Rhein-Main port and NORMAL well-known one."
    ]


def test_characters_without_unicode(tmp_path):
    font = "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /DescendantFonts [8 0 R] >>"
    glyphs = "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /X /CIDSystemInfo << /Registry (A) /Ordering (B) >> >>"
    page = at(72, 700, "Known text.") + "BT /F3 12 Tf 72 650 Td <00410042> Tj ET"
    path = make_pdf(
        tmp_path / "a.pdf", page, page, more=(font, glyphs), resources="/Font << /F1 3 0 R /F3 7 0 R >>"
    )
    path.write_bytes(path.read_bytes().replace(b"/Font << /F1 3 0 R /F2 4 0 R >> ", b" " * 32))
    with pytest.warns(SourceWarning, match=r"a\.pdf: 13% of the characters have no Unicode value"):
        assert text_of(path) == "Known text.\fKnown text."


def test_pages_without_text_are_named(tmp_path):
    text = at(72, 700, "Typed.")
    pages = [text, IMAGE, "", text, IMAGE, IMAGE, IMAGE]
    with pytest.warns(SourceWarning, match=r"a\.pdf: pages 2, 5-7 have no text \(scanned\?\)"):
        document = only_document(make_pdf(tmp_path / "a.pdf", *pages))
    assert [passage.page for passage in chunk(document, Chunking(words=1))] == [1, 4]


def test_a_strict_build_refuses_pages_without_text(tmp_path, tiny_encoder):
    path = make_pdf(tmp_path / "a.pdf", at(72, 700, "Typed."), IMAGE)
    with pytest.raises(SourceError, match=r"page 2 has no text .* Leave out --strict"):
        KnowledgeBase.build([path], tmp_path / "kb", encoder=tiny_encoder, strict=True)
    with pytest.warns(SourceWarning, match="page 2 has no text"):  # the filters are as before
        assert len(KnowledgeBase.build([path], tmp_path / "kb", encoder=tiny_encoder)) == 1


def test_nothing_is_lost_in_silence_or_warned_of_without_loss(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert text_of(make_pdf(tmp_path / "a.pdf", at(72, 700, "Typed."), "")) == "Typed.\f"


def test_only_pages_without_text(tmp_path):
    with pytest.raises(SourceError, match="has no text: its pages are images"):
        read(make_pdf(tmp_path / "scan.pdf", IMAGE))


@pytest.mark.parametrize(
    ("info", "heading", "title"),
    [
        ("/Title (Ports of Peru)", "Ports", "Ports of Peru"),
        ("/Title (Microsoft Word - ports.docx)", "Ports", "Ports"),
        ("/Title (Microsoft Word - Ports of Peru)", "", "Ports of Peru"),
        ("/Title (untitled)", "", "My ports"),
        ("", "", "My ports"),
    ],
)
def test_title(tmp_path, info, heading, title):
    page = at(72, 700, heading, 20) + "".join(at(72, 600 - 14 * n, line) for n, line in enumerate(PROSE))
    assert only_document(make_pdf(tmp_path / "my_ports.pdf", page, info=info)).title == title


def test_a_password(tmp_path):
    key = "00" * 32
    lock = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{key}> /U <{key}> /P -4 >> /ID [<00> <00>]"
    with pytest.raises(SourceError, match="protected by a password"):
        read(write_pdf(tmp_path / "secret.pdf", ["Lima."], lock))


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff" * 100, b"%PDF-1.4 nothing", b"%PDF-1.4\n" + b"[" * 10**6]
)
def test_damaged_files(tmp_path, content):
    with pytest.raises(SourceError, match="cannot be read"):
        read(write(tmp_path / "a.pdf", content))


def test_a_missing_file_is_named(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", ["Lima."])
    (tmp_path / "b.pdf").symlink_to(tmp_path / "nothing.pdf")
    with pytest.raises(SourceError, match=r"b\.pdf cannot be read \(No such file"):
        read(path.parent)


def nested_forms(depth: int) -> tuple[tuple[bytes, ...], str]:
    """Forms that each draw the next one twice, and the resources that name the first."""
    names = [f"/X {FIRST + n} 0 R" for n in range(depth)]
    forms = [stream("/X Do /X Do", FORM.format(name)) for name in names[1:]]
    return (*forms, stream(at(72, 700, "Laugh."), FORM.format(""))), f"/XObject << {names[0]} >>"


@pytest.mark.parametrize("kind", ["spaces", "operators", "forms"])
def test_a_bomb_is_skipped(tmp_path, kind):
    more, resources = nested_forms(25) if kind == "forms" else ((), "")
    page = {"spaces": bomb(b" " * 2**28), "operators": bomb(b"q " * 2**24), "forms": "/X Do"}[kind]
    path = make_pdf(tmp_path / "bomb.pdf", page, more=more, resources=resources)
    assert path.stat().st_size < 2**20
    with pytest.raises(SourceError, match=r"256 MiB of memory|within 4 seconds"):
        read(path, settings=ReadSettings(memory=256, seconds=4))
    assert text_of(make_pdf(tmp_path / "a.pdf", at(72, 700, "Lima."))) == "Lima."


def test_pages_that_share_one_stream(tmp_path, monkeypatch):
    from ragweave.knowledge.ingest.loaders import pdf_layout

    monkeypatch.setattr(pdf_layout, "_FILE_AT_MOST", 5000)
    shared = stream("".join(at(72, y, "word " * 20) for y in range(100, 700, 60)))
    path = make_pdf(tmp_path / "a.pdf", *["Lima."] * 50, more=(shared,))
    path.write_bytes(path.read_bytes().replace(b"/Contents ", b"/Contents 7 0 R %"))
    with pytest.raises(ValueError, match="over 5,000"):
        pdf_layout.read_pages(str(path))


def test_a_form_that_draws_itself(tmp_path):
    itself = f"/X {FIRST} 0 R"
    form = stream(at(72, 700, "Lima.") + "/X Do", FORM.format(itself))
    path = make_pdf(tmp_path / "a.pdf", "/X Do", more=(form,), resources=f"/XObject << {itself} >>")
    assert text_of(path) == "Lima."

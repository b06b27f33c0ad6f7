"""Spreadsheets: cells read as a sheet shows them, tables are found, and what is lost is said."""

from __future__ import annotations

import tracemalloc
import zipfile
from datetime import date, datetime

import pytest
from openpyxl import Workbook
from openpyxl.comments import Comment

from ragweave.errors import SourceWarning
from ragweave.types import Place
from tests.support.documents import read, write_zip


@pytest.fixture
def book(tmp_path):
    """Saves rows, which begin at a cell, as a workbook; returns its path."""

    def save(rows, *, formats=(), merged=(), start=(1, 1)):
        workbook = Workbook()
        sheet = workbook.active
        sheet.title = "Stock"
        for number, row in enumerate(rows, start=start[0]):
            for column, value in enumerate(row, start=start[1]):
                sheet.cell(number, column, value)
        for cell, code in dict(formats).items():
            sheet[cell].number_format = code
        for area in merged:
            sheet.merge_cells(area)
        workbook.save(tmp_path / "stock.xlsx")
        return tmp_path / "stock.xlsx"

    return save


def change(path, changes):
    """Write a copy of a workbook in which parts are replaced, or left out where the new content is None."""
    copy = path.with_name("changed.xlsx")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name in changes:
                content = changes[name](content) if changes[name] else None
            if content is not None:
                new.writestr(name, content)
    return copy


def shared(path, rows, text):
    """Write a workbook by hand; cells of kind "s" share one text, which is absent if it is None."""
    parts = {
        "xl/workbook.xml": '<workbook><sheets><sheet name="One" sheetId="1"/></sheets></workbook>',
        "xl/styles.xml": "<styleSheet/>",
        "xl/worksheets/sheet1.xml": "<worksheet><sheetData>"
        + "".join(f"<row>{cells}</row>" for cells in rows)
        + "</sheetData></worksheet>",
    }
    if text is not None:
        parts["xl/sharedStrings.xml"] = f"<sst><si><t>{text}</t></si></sst>"
    return write_zip(path, parts)


def test_each_row_is_a_document_with_its_place(book):
    first, second = read(book([["part", "mass"], ["bolt", 3], ["nut", 5]]))
    assert (first.text, first.title, first.place) == (
        "part: bolt\nmass: 3",
        "bolt",
        Place(sheet="Stock", row=2),
    )
    assert (second.text, second.id) == ("part: nut\nmass: 5", "stock.xlsx:Stock!A3")


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        ("007", "General", "007"),
        (7, "000", "007"),
        ("NA", "General", "NA"),
        ("None", "General", "None"),
        (3.0, "General", "3"),
        (0.1, "General", "0.1"),
        (123456789.123, "General", "123456789.123"),
        (12345678901234, "General", "12345678901234"),
        (0.075, "0.0%", "7.5%"),
        (1234567.5, "#,##0.00", "1,234,567.50"),
        (-3, "0;(0)", "(3)"),
        (12.5, "[$€-407] 0.00", "€ 12.50"),
        (0.00012, "0.0E+00", "1.2E-04"),
        (date(2024, 3, 9), "d mmm yyyy", "9 Mar 2024"),
        (date(2024, 3, 9), "yyyy-mm-dd", "2024-03-09"),
        (datetime(2024, 3, 9, 14, 5), "yyyy-mm-dd h:mm AM/PM", "2024-03-09 2:05 PM"),
        (1.5, "[h]:mm", "36:00"),
        (True, "General", "TRUE"),
    ],
)
def test_a_cell_reads_as_it_shows(book, value, code, shown):
    (document,) = read(book([["name", "value"], ["x", value]], formats={"B2": code}))
    assert document.text == f"name: x\nvalue: {shown}"


def test_a_blank_cell_is_blank(book):
    first, _ = read(book([["part", "year", "mass"], ["bolt", None, 3], ["nut", 2024, None]]))
    assert first.text == "part: bolt\nmass: 3"


def test_merged_cells_have_the_value_in_each_row(book):
    rows = [["plant", "part", "mass"], ["Ulm", "bolt", 3], [None, "nut", 5]]
    assert [d.text.split("\n")[0] for d in read(book(rows, merged=["A2:A3"]))] == ["plant: Ulm", "plant: Ulm"]


def test_a_header_of_two_rows(book):
    rows = [["part", "mass", None], [None, "net", "gross"], ["bolt", 3, 4]]
    (document,) = read(book(rows, merged=["B1:C1", "A1:A2"]))
    assert document.text == "part: bolt\nmass net: 3\nmass gross: 4"


def test_a_table_below_a_caption_away_from_the_corner(book):
    rows = [["Spare parts in Ulm"], [], ["part", "mass"], ["bolt", 3]]
    table, caption = read(book(rows, start=(4, 3)))
    assert table.text == "Spare parts in Ulm\npart: bolt\nmass: 3"
    assert table.place == Place(sheet="Stock", row=7)
    assert caption.text == "Spare parts in Ulm"


def test_tables_below_and_beside_each_other(book):
    rows = [
        ["part", "mass", None, "city", "people"],
        ["bolt", 3, None, "Ulm", 126000],
        [],
        ["colour", "code"],
        ["red", 17],
    ]
    texts = {document.text for document in read(book(rows))}
    assert texts == {"part: bolt\nmass: 3", "city: Ulm\npeople: 126000", "colour: red\ncode: 17"}


def test_hidden_sheets_are_named(tmp_path):
    workbook = Workbook()
    workbook.active.append(["Lima is in Peru."])
    workbook.create_sheet("Secrets").append(["A password."])
    workbook["Secrets"].sheet_state = "hidden"
    workbook.save(tmp_path / "a.xlsx")
    with pytest.warns(SourceWarning, match="hidden sheets are left out: Secrets"):
        (document,) = read(tmp_path / "a.xlsx")
    assert document.text == "Lima is in Peru."


def test_comments_are_kept(tmp_path):
    workbook = Workbook()
    workbook.active["A1"] = "Crane"
    workbook.active["A1"].comment = Comment("It lifts 40 tons.", "someone")
    workbook.save(tmp_path / "a.xlsx")
    (document,) = read(tmp_path / "a.xlsx")
    assert document.text == "Crane\n\nComment on A1: It lifts 40 tons."


def test_an_empty_fill_costs_nothing(book):
    path = book([["part", "share"], ["bolt", 0.5]], formats={"B2": "0%"})
    path = change(path, {"xl/styles.xml": lambda x: x.replace(b"<fill><patternFill/></fill>", b"<fill/>", 1)})
    assert [document.text for document in read(path)] == ["part: bolt\nshare: 50%"]


def test_absent_number_formats_lose_only_themselves(book):
    path = change(book([["part", "mass"], ["bolt", 3]]), {"xl/styles.xml": None})
    with pytest.warns(SourceWarning, match="number formats are lost"):
        assert [document.text for document in read(path)] == ["part: bolt\nmass: 3"]


def test_absent_shared_texts_lose_only_themselves(tmp_path):
    path = shared(tmp_path / "a.xlsx", ['<c r="A1" t="s"><v>0</v></c><c r="B1"><v>3</v></c>'], None)
    with pytest.warns(SourceWarning, match="the texts of 1 cells are absent"):
        assert [document.text for document in read(path)] == ["3"]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_part_that_does_not_unpack_loses_only_itself(book, method):
    path = book([("Port", "Height"), ("Brest", 7), ("Riga", 2)])
    copy = path.with_name("damaged.xlsx")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), method if name == "xl/styles.xml" else zipfile.ZIP_DEFLATED)
        start = new.getinfo("xl/styles.xml").header_offset + len("xl/styles.xml") + 30
        size = new.getinfo("xl/styles.xml").compress_size
    data = bytearray(copy.read_bytes())
    data[start + 20 : start + size] = b"\x00" * (size - 20)
    copy.write_bytes(data)
    with pytest.warns(SourceWarning, match=r"xl/styles\.xml is absent or damaged"):
        assert ["Brest" in document.text for document in read(copy)] == [True, False]


def test_an_absent_sheet_leaves_the_others(tmp_path):
    workbook = Workbook()
    workbook.active["A1"] = "Lost."
    workbook.create_sheet("Second")["A1"] = "Lima is in Peru."
    workbook.save(tmp_path / "a.xlsx")
    path = change(tmp_path / "a.xlsx", {"xl/worksheets/sheet1.xml": None})
    with pytest.warns(SourceWarning, match="the sheet Sheet is absent or damaged"):
        assert [document.text for document in read(path)] == ["Lima is in Peru."]


def test_a_missing_picture_costs_nothing(book):
    link = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
        'Id="r1" Type="http://x/image" Target="../media/image1.png"/></Relationships>'
    )
    path = book([["part", "mass"], ["bolt", 3]])
    with zipfile.ZipFile(path, "a") as package:
        package.writestr("xl/worksheets/_rels/sheet1.xml.rels", link)
    assert [document.text for document in read(path)] == ["part: bolt\nmass: 3"]


def test_the_last_cell_of_a_sheet_costs_no_memory(tmp_path):
    workbook = Workbook()
    workbook.active["A1"], workbook.active["XFD1048576"] = "first", "last"
    workbook.save(tmp_path / "a.xlsx")
    tracemalloc.start()
    (document,) = read(tmp_path / "a.xlsx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert document.text == "first\n\nlast"
    assert peak < 2**23


def test_a_text_that_many_cells_share(tmp_path):
    text = "The crane lifts forty tons and stands in Ulm."
    rows = [f'<c t="s"><v>0</v></c><c><v>{number}</v></c>' for number in range(30_000)]
    names = '<c t="inlineStr"><is><t>note</t></is></c><c t="inlineStr"><is><t>number</t></is></c>'
    documents = read(shared(tmp_path / "a.xlsx", [names, *rows], text))
    assert len(documents) == 30_000
    assert documents[-1].text == f"note: {text}\nnumber: 29999"

"""Cells of ``.xlsx`` workbooks as text, read from the parts of the package piece by piece.

Libraries refuse a workbook with one missing or damaged part. Here only the content of that part is lost. Sizes that
a file declares are not trusted, and memory does not grow with the position of a cell.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.number_formats import BUILT_IN, shown
from ragweave.knowledge.ingest.loaders.package import (
    DAMAGED_PART,
    UNPACKED_AT_MOST,
    UNPACKED_TIMES,
    relations_of,
    target_of,
)
from ragweave.knowledge.ingest.loaders.text import TextBudget

DAMAGED = (expat.ExpatError, KeyError, *DAMAGED_PART)  # what reading a damaged part raises

_PIECE = 2**14
_STRINGS_AT_MOST = 2**22
_RANGES_AT_MOST = 100_000
_MERGED_COLUMNS = 64  # a range may reach to column 16,384
_REFERENCE = re.compile(r"\$?([A-Z]{1,3})\$?(\d{1,7})", re.IGNORECASE)
_RANGE = re.compile(
    rb"""<(?:\w+:)?(mergeCell|autoFilter)\s[^<>]*?\bref=["']([A-Z\d$:]{2,30})["']""", re.IGNORECASE
)
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_CONTROL = re.compile(r"\r\n?|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class SheetRecord(NamedTuple):
    """A sheet of a workbook: its name, whether it is hidden, and its part."""

    name: str
    is_hidden: bool
    part: str


class Range(NamedTuple):
    """A rectangle of cells, whose last row and column belong to it. Rows and columns count from 1."""

    first_row: int
    first_column: int
    last_row: int
    last_column: int


class CellRow(NamedTuple):
    """A row: its number, the text of its cells by their columns, and which of these a merged range has filled."""

    number: int
    cells: dict[int, str]
    filled: set[int]


class Workbook:
    """An ``.xlsx`` file, and the same opened as a zip file; raises `ValueError` if it is not a workbook."""

    def __init__(self, path: Path, package: zipfile.ZipFile) -> None:
        self._path, self._package = path, package
        self._parts = {
            info.filename.replace("\\", "/").lstrip("/").lower(): info for info in package.infolist()
        }
        self._unpacked_left = max(UNPACKED_AT_MOST, UNPACKED_TIMES * path.stat().st_size)
        self._is_epoch_1904 = False
        self._formats: list[str] = []
        self._strings: list[bytes] = []
        self._cells_without_text = 0
        self.budget = TextBudget(path)  # counts the text that was read
        self.losses: list[str] = []  # sentences about what could not be read
        main = self.related("", "officeDocument").get("officeDocument", "xl/workbook.xml")
        if main.lower() not in self._parts:
            raise ValueError("it contains no workbook")
        self.sheets = list(self._read_sheets(main))  # its sheets in the order of their tabs
        parts = {"styles": "xl/styles.xml", "sharedStrings": "xl/sharedStrings.xml"}
        parts |= self.related(main, *parts)
        self._attempt(
            self._read_styles, parts["styles"], "its number formats are lost: dates are plain numbers."
        )
        if parts["sharedStrings"].lower() in self._parts:
            self._attempt(self._read_strings, parts["sharedStrings"], "some of its texts are lost.")

    def _attempt(self, read: Callable[[str], None], part: str, loss: str) -> None:
        try:
            read(part)
        except DAMAGED:
            self.losses.append(f"{part} is absent or damaged; {loss}")

    def _read_sheets(self, main: str) -> Iterator[SheetRecord]:
        parts = self.related(main)
        for name, attributes in self.events(main):
            if name == "workbookPr":  # extensions have one of their own
                self._is_epoch_1904 |= attributes.get("date1904") in {"1", "true"}
            elif name == "sheet":
                part = parts.get(
                    attributes.get("id", ""), f"xl/worksheets/sheet{attributes.get('sheetId')}.xml"
                )
                yield SheetRecord(attributes["name"], attributes.get("state", "visible") != "visible", part)

    def _read_styles(self, part: str) -> None:
        codes = {str(number): code for number, code in BUILT_IN.items()}
        section = ""  # other sections have elements of the same names
        for name, attributes in self.events(part):
            if name.strip("/") in {"numFmts", "cellXfs"}:
                section = name
            elif name == "numFmt" and section == "numFmts":
                codes[attributes["numFmtId"]] = attributes["formatCode"]
            elif name == "xf" and section == "cellXfs":
                code = codes.get(attributes.get("numFmtId", "0"), "")
                self._formats.append("" if code.lower() == "general" else code)

    def _read_strings(self, part: str) -> None:
        for _, _, text in self.texts(part, "si"):
            if len(self._strings) == _STRINGS_AT_MOST:
                raise SourceError(
                    f"The file {self._path} has more than {_STRINGS_AT_MOST:,} texts: divide it."
                )
            self._strings.append(text.encode("utf-8", "replace"))  # bytes take half the memory of str

    # --- Parts ---

    def events(self, part: str) -> Iterator[tuple[str, Any]]:
        """Parse a part: the plain name and the attributes of each element, ``/name`` at its end, texts as ``""``."""
        events: list[tuple[str, Any]] = []

        def start(name: str, attributes: dict[str, str]) -> None:
            events.append(
                (name.rpartition(" ")[2], {key.rpartition(" ")[2]: attributes[key] for key in attributes})
            )

        def refuse(*_: Any) -> None:
            raise ValueError("it declares entities, which no workbook needs")

        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = start
        parser.EndElementHandler = lambda name: events.append(("/" + name.rpartition(" ")[2], None))
        parser.CharacterDataHandler = lambda text: events.append(("", text))
        parser.StartDoctypeDeclHandler = refuse
        for piece in self._pieces(part):
            parser.Parse(piece)
            yield from events
            events.clear()
        parser.Parse(b"", True)
        yield from events

    def _pieces(self, part: str) -> Iterator[bytes]:
        with self._package.open(self._parts[part.lower()]) as stream:
            while piece := stream.read(_PIECE):
                self._unpacked_left -= len(piece)
                if self._unpacked_left < 0:
                    raise SourceError(
                        f"The file {self._path} unpacks to more than {UNPACKED_TIMES} times its size: leave it out."
                    )
                yield piece

    def related(self, part: str, *kinds: str) -> dict[str, str]:
        """The parts that a part names: the first of each kind, or all by their ids."""
        relations, parts = relations_of(part), dict[str, str]()
        for event, attributes in self.events(relations) if relations.lower() in self._parts else ():
            if event == "Relationship" and "Target" in attributes:
                kind = attributes.get("Type", "").rpartition("/")[2]
                if not kinds or kind in kinds:
                    key = kind if kinds else attributes.get("Id", "")
                    parts.setdefault(key, target_of(part, attributes["Target"]))
        return parts

    def texts(
        self, part: str, element: str, others: Container[str] = ()
    ) -> Iterator[tuple[str, dict[str, str], str]]:
        """The name, attributes and text of each element of a kind when it ends; starts and ends of others."""
        attributes: dict[str, str] = {}
        text: list[str] = []
        is_text = is_phonetic = False
        for name, data in self.events(part):
            if not name:
                if is_text and not is_phonetic:
                    text.append(data)
            elif name == element:
                attributes = data
                text.clear()
            elif name == "/" + element:
                yield element, attributes, "".join(text)
            elif (plain := name.lstrip("/")) in {"t", "v", "text"}:
                is_text = plain == name
            elif plain == "rPh":  # how to pronounce a Japanese text
                is_phonetic = plain == name
            elif name in others:
                yield name, data, ""

    # --- Cells ---

    def ranges(self, part: str) -> tuple[list[Range], list[Range]]:
        """The merged ranges of a sheet, and its tables and filters, whose first rows are headers.

        They come after the cells, so the part is searched before it is parsed.
        """
        merged: list[Range] = []
        tables: list[Range] = []
        rest = b""
        for piece in self._pieces(part):
            for kind, reference in _RANGE.findall(rest + piece):
                ranges = merged if kind.lower() == b"mergecell" else tables
                ranges += _ranges(reference.decode("ascii")) if len(ranges) < _RANGES_AT_MOST else []
            rest = piece[max(piece.rfind(b"<"), len(piece) - 500) :]
        for table in self.related(part).values():
            for name, attributes in self.events(table) if "/tables/" in table.lower() else ():
                if name == "table" and attributes.get("headerRowCount") != "0":
                    tables += _ranges(attributes.get("ref", ""))
        return merged, tables

    def rows(self, part: str, merged: Iterable[Range] = ()) -> Iterator[CellRow]:
        """Read the rows of a sheet that are not blank. All cells of a merged range get the text of its first."""
        ranges = iter(sorted(merged))
        following = next(ranges, None)
        active: dict[Range, str] = {}
        for number, cells in self._rows(part):
            filled: set[int] = set()
            while following and following.first_row <= number:
                active[following] = cells.get(following.first_column, "")
                following = next(ranges, None)
            active = {area: text for area, text in active.items() if area.last_row >= number}
            for area, text in active.items():
                last = min(area.last_column, area.first_column + _MERGED_COLUMNS)
                columns = [column for column in range(area.first_column, last + 1) if column not in cells]
                self.budget.spend(1 + len(text) * len(columns))
                if text:
                    cells.update(dict.fromkeys(columns, text))
                    filled.update(columns)
            if len(cells) > len(filled):
                yield CellRow(number, cells, filled)

    def _rows(self, part: str) -> Iterator[tuple[int, dict[int, str]]]:
        number = column = 0
        cells: dict[int, str] = {}
        has_formula = False
        without_result: list[str] = []
        for name, attributes, text in self.texts(part, "c", {"row", "/row", "f", "/sheetData"}):
            if name == "c":
                # Some writers leave out references; a cell then follows the one before it.
                reference = _REFERENCE.fullmatch(attributes.get("r", ""))
                column = column_number(reference[1]) if reference else column + 1
                if value := self._value(text, attributes):
                    cells[column] = value
                elif has_formula and not text:
                    without_result.append(f"{column_letters(column)}{number}")
                has_formula = False
            elif name == "f":
                has_formula = True
            elif name == "row":
                number, column, cells = int(attributes.get("r") or number + 1), 0, {}
            elif name == "/row":
                yield number, cells
            else:
                break
        if without_result:
            self.losses.append(
                f"{len(without_result)} formulas have no stored result, the first in {without_result[0]}: open the "
                "file in a spreadsheet program and save it."
            )
        if self._cells_without_text:
            self.losses.append(f"the texts of {self._cells_without_text} cells are absent.")
            self._cells_without_text = 0

    def _value(self, text: str, attributes: dict[str, str]) -> str:
        kind = attributes.get("t", "n")
        if kind == "s" and text:
            position = int(text)
            text = self._strings[position].decode("utf-8") if position < len(self._strings) else ""
            self._cells_without_text += not text and position >= len(self._strings)
        elif kind == "n" and (text := text.strip()):
            style = int(attributes.get("s", 0))
            code = self._formats[style] if style < len(self._formats) else ""
            text = shown(text, code, epoch_1904=self._is_epoch_1904)
        elif kind == "b":
            text = {"1": "TRUE", "0": "FALSE"}.get(text, text)
        elif kind == "d":
            text = text.replace("T", " ").removesuffix(" 00:00:00")
        text = clean(text)
        self.budget.spend(1 + len(text))
        return text


def _ranges(reference: str) -> list[Range]:
    """The range of a reference such as ``A1:C3``; none for anything else."""
    ends = [_REFERENCE.fullmatch(end) for end in reference.split(":")]
    corners = [(int(end[2]), column_number(end[1])) for end in ends if end]
    return [Range(*corners[0], *corners[1])] if len(corners) == 2 else []


def column_number(letters: str) -> int:
    """The number of a column, counting from 1: 27 for ``AA``."""
    number = 0
    for letter in letters.upper():
        number = 26 * number + ord(letter) - 64
    return number


def column_letters(number: int) -> str:
    """The letters of a column: ``AA`` for 27."""
    letters = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def clean(text: str) -> str:
    """A text without the format's escapes, control characters, and white space around it."""
    if "_x" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _CONTROL.sub(lambda match: "\n" if match[0][0] == "\r" else " ", text).strip()

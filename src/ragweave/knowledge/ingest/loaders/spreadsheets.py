"""Spreadsheets: finds the tables of each sheet. Their rows become documents, and so does the rest of the sheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median_high

from ragweave.knowledge.ingest.loaders.package import open_zip
from ragweave.knowledge.ingest.loaders.rows import SAMPLE_ROWS, Row, TableReader, is_header, is_number
from ragweave.knowledge.ingest.loaders.text import damaged_file, title_from_name, warn_loss
from ragweave.knowledge.ingest.loaders.workbook import (
    DAMAGED,
    CellRow,
    SheetRecord,
    Workbook,
    clean,
    column_letters,
)
from ragweave.knowledge.ingest_settings import TableSettings
from ragweave.types import Document, Place, SourceFile

# Rows are looked at in bands, which end at blank rows, or when they are this large.
_BAND_ROWS = 1000
_BAND_CHARACTERS = 2**22
_NOTES_CHARACTERS = 2**20
# A header is among the first rows of a band, its names are short, and a caption is close above it.
_HEADER_SEARCH = 20
_NAME_CHARACTERS = 200
_CAPTION_DISTANCE = 3


@dataclass(slots=True)
class _Table:
    """A table whose header was found: the names of its columns by their numbers, and the line above it."""

    names: dict[int, str]
    caption: str

    def covers(self, rows: Iterable[CellRow]) -> bool:
        first, last = min(self.names), max(self.names)
        return all(first <= column <= last for row in rows for column in row.cells)


def read_spreadsheet(file: SourceFile, tables: TableSettings) -> Iterator[Document]:
    """Read an ``.xlsx`` file: a document for each row of a table, and one for the rest of each sheet."""
    try:
        with open_zip(file.path) as package:
            workbook = Workbook(file.path, package)
            reader = TableReader(file, tables)
            sheets = [sheet for sheet in workbook.sheets if tables.hidden_sheets or not sheet.is_hidden]
            for sheet in sheets:
                yield from _SheetReader(file, workbook, reader, sheet, is_only=len(sheets) == 1).documents()
    except DAMAGED as error:
        raise damaged_file(file.path, error) from error
    if hidden := [sheet.name for sheet in workbook.sheets if sheet not in sheets]:
        warn_loss(file.name, f"hidden sheets are left out: {', '.join(hidden)}.")
    for loss in workbook.losses:
        warn_loss(file.name, loss)
    reader.warn_of_columns()


class _SheetReader:
    def __init__(
        self, file: SourceFile, workbook: Workbook, reader: TableReader, sheet: SheetRecord, *, is_only: bool
    ) -> None:
        self._file, self._workbook, self._reader, self._sheet = file, workbook, reader, sheet
        self._is_only = is_only
        self._header_rows: set[int] = set()
        self._tables: list[_Table] = []
        self._notes: list[tuple[int, str]] = []
        self._notes_documents = 0

    def documents(self) -> Iterator[Document]:
        for band, is_continued in self._bands():
            is_known = is_continued or any(table.covers(band) for table in self._tables)
            for rows in [band] if is_known else _side_by_side(band):
                yield from self._documents(rows, is_continued)
            if sum(len(text) for _, text in self._notes) > _NOTES_CHARACTERS:
                yield from self._rest()
        self._add_comments()
        yield from self._rest()

    def _bands(self) -> Iterator[tuple[list[CellRow], bool]]:
        """Rows without a blank row between them, and whether they go on from the rows before."""
        band: list[CellRow] = []
        size, is_continued = 0, False
        for row in self._rows():
            is_gap = bool(band) and row.number != band[-1].number + 1
            if is_gap or len(band) == _BAND_ROWS or size > _BAND_CHARACTERS:
                yield band, is_continued
                band, size, is_continued = [], 0, not is_gap
            band.append(row)
            size += sum(map(len, row.cells.values()))
        if band:
            yield band, is_continued

    def _rows(self) -> Iterator[CellRow]:
        number = 0
        try:
            merged, tables = self._workbook.ranges(self._sheet.part)
            self._header_rows = {table.first_row for table in tables}
            for row in self._workbook.rows(self._sheet.part, merged):
                number = row.number
                yield row
        except DAMAGED:
            rest = f"after row {number} " if number else ""
            self._workbook.losses.append(f"the sheet {self._sheet.name} {rest}is absent or damaged.")

    # --- Tables ---

    def _documents(self, rows: Sequence[CellRow], is_continued: bool) -> Iterator[Document]:
        """The documents of a table's rows. Other rows become notes."""
        position = None if is_continued else self._header_position(rows)
        if position is not None:
            first, end = _header(rows, position)
            for row in rows[:first]:
                self._note(row)
            columns = sorted({column for row in rows[first:] for column in row.cells})
            levels = {column: [row.cells.get(column, "") for row in rows[first:end]] for column in columns}
            names = {column: " ".join(dict.fromkeys(filter(None, levels[column]))) for column in columns}
            self._tables.append(_Table(names, self._caption(rows[first].number)))
            rows = rows[end:]
        tables = reversed(self._tables)
        table = next((table for table in tables if is_continued or table.covers(rows)), None)
        records = []
        for row in rows:
            # One cell alone is a heading between the rows, or a footnote.
            if table and (len(row.cells) > 1 or len(table.names) < 3):
                records.append(row)
            else:
                self._note(row)
        if table:
            yield from self._records(records, table)

    def _records(self, rows: Iterable[CellRow], table: _Table) -> Iterator[Document]:
        name = self._sheet.name
        lines = ([] if self._is_only else [f"sheet: {name}"]) + ([table.caption] if table.caption else [])
        records = []
        for row in rows:
            columns = sorted(table.names.keys() | row.cells.keys())
            fields = [(table.names.get(column, ""), row.cells.get(column, "")) for column in columns]
            records.append(Row(row.number, fields, f"{name}!{column_letters(min(row.cells))}{row.number}"))
        yield from self._reader.documents(records, context="\n".join(lines), sheet=name)

    def _header_position(self, rows: Sequence[CellRow]) -> int | None:
        """The position of the row that names the columns of those below; ``None`` if there is none."""
        for position, row in enumerate(rows[:-1]):
            if row.number in self._header_rows and len(row.cells) > 1:
                return position
        usual = median_high([len(row.cells) for row in rows[:SAMPLE_ROWS]])
        for position, row in enumerate(rows[:_HEADER_SEARCH]):
            if len(set(row.cells.values())) >= max(2, 0.6 * usual):
                return position if self._names_columns(row, rows[position + 1 : SAMPLE_ROWS]) else None
        return None

    def _names_columns(self, row: CellRow, below: Sequence[CellRow]) -> bool:
        """Whether a row is a header: names alone, above numbers or at least above other texts."""
        names = row.cells
        if not below or not is_header(names.values()) or max(map(len, names.values())) > _NAME_CHARACTERS:
            return False
        for column in names:
            values = [other.cells[column] for other in below if column in other.cells]
            if 2 * sum(map(is_number, values)) > len(values):
                return True
        # Rows of text look like headers, even rows of a form or of the table above.
        is_form = names[min(names)].endswith(":")
        return not is_form and not any(table.covers(below) for table in self._tables)

    def _caption(self, number: int) -> str:
        """The line right above a header, if it is short."""
        row, text = self._notes[-1] if self._notes else (0, "")
        is_caption = (
            0 < number - row <= _CAPTION_DISTANCE and len(text) <= _NAME_CHARACTERS and " | " not in text
        )
        return text if row and is_caption else ""

    # --- The rest ---

    def _note(self, row: CellRow) -> None:
        values = [text for column, text in sorted(row.cells.items()) if column not in row.filled]
        self._notes.append((row.number, " | ".join(values)))

    def _add_comments(self) -> None:
        """Note the comments on cells, and the texts of drawings."""
        kinds = {"threadedComment": "threadedComment", "comments": "comment", "drawing": "p"}
        try:
            for kind, part in self._workbook.related(self._sheet.part, *kinds).items():
                for _, attributes, text in self._workbook.texts(part, kinds[kind]):
                    # Programs that do not know threads show a copy of them, which begins with these words.
                    if (text := clean(text)) and not text.startswith("[Threaded comment]"):
                        self._workbook.budget.spend(len(text))
                        cell = attributes.get("ref")
                        self._notes.append((0, f"Comment on {cell}: {text}" if cell else text))
        except DAMAGED:
            self._workbook.losses.append(f"comments on the sheet {self._sheet.name} are absent or damaged.")

    def _rest(self) -> Iterator[Document]:
        if not self._notes:
            return
        rows = [row for row, _ in self._notes]
        # A blank line stands for blank rows.
        ends = ["\n" if 0 <= after - row <= 1 else "\n\n" for row, after in pairwise(rows)]
        title = title_from_name(self._file.name)
        number = f":{self._notes_documents}" if self._notes_documents else ""
        texts = [text + end for (_, text), end in zip(self._notes, [*ends, ""], strict=True)]
        yield Document(
            id=f"{self._file.name}:{self._sheet.name}{number}",
            title=title if self._is_only else f"{title}: {self._sheet.name}",
            text="".join(texts),
            source=self._file.source,
            place=Place(sheet=self._sheet.name),
            rows=tuple(zip(accumulate(map(len, texts), initial=0), rows, strict=False)),
        )
        self._notes = []
        self._notes_documents += 1


def _header(rows: Sequence[CellRow], position: int) -> tuple[int, int]:
    """The first row of a header and the row after it. Rows with merged cells name groups of columns."""
    first, end = position, position + 1
    while (
        first
        and len(rows[first - 1].cells) > 1
        and rows[first - 1].filled
        and is_header(rows[first - 1].cells.values())
    ):
        first -= 1
    if rows[position].filled and end + 1 < len(rows) and is_header(rows[end].cells.values()):
        end += 1
    return first, end


def _side_by_side(rows: list[CellRow]) -> list[list[CellRow]]:
    """Separate tables that stand beside each other with a blank column between them."""
    tables: list[list[int]] = []
    for column in sorted({column for row in rows for column in row.cells}):
        if not tables or column != tables[-1][-1] + 1:
            tables.append([])
        tables[-1].append(column)
    for position in range(len(tables) - 1, 0, -1):
        if min(len(tables[position]), len(tables[position - 1])) == 1:  # no table by itself
            tables[position - 1] += tables.pop(position)
    bands: list[list[CellRow]] = []
    for columns in map(set, tables):
        bands.append([])
        for row in rows:
            if cells := {column: text for column, text in row.cells.items() if column in columns}:
                if bands[-1] and row.number != bands[-1][-1].number + 1:
                    bands.append([])
                bands[-1].append(CellRow(row.number, cells, row.filled & columns))
    return bands if len(tables) > 1 else [rows]

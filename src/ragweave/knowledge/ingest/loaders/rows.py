"""Rows of tables as documents, which all kinds of tables and spreadsheets share."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.text import warn_loss, warn_omission, whole_text
from ragweave.knowledge.ingest.metadata import cleaned
from ragweave.knowledge.ingest_settings import TableSettings
from ragweave.types import Document, Place, SourceFile

SAMPLE_ROWS = 100  # how many rows are looked at before their columns' kinds are decided

_TITLE_CHARACTERS = 100

# A number, a date, a time or an amount. Digits after a leading zero are an identifier, such as a part number.
_NUMBER = re.compile(r"(?!0\d+$)[^\w\s]*\d[\d\s.,:;/%'+_-]*+(?:E[+-]?\d+)?\W*", re.IGNORECASE)
_YEAR = re.compile(r"[12]\d{3}")


class Row(NamedTuple):
    """One row of a table."""

    number: int  # its line or row in the file, counting from 1
    fields: list[tuple[str, Any]]  # the name and the value of each column
    cell: str = ""  # its first cell, such as ``Stock!A5``, in a workbook


class _Roles(NamedTuple):
    """The positions of the columns that become a document's id, title and text; without texts, all columns do."""

    id: int | None
    title: int | None
    texts: tuple[int, ...]


class TableReader:
    """Turns the rows of a file's tables into documents; messages count rows in a ``unit``.

    The columns ``text``, ``title`` and ``id`` (or ``_id``) become the document's. Without a column ``text``, the
    text has a line "column: value" for each column, and the title is the first column with text. Settings may name
    other columns.
    """

    def __init__(self, file: SourceFile, tables: TableSettings, unit: str = "Row") -> None:
        self._file, self._tables, self._unit = file, tables, unit
        self._missing = {name.casefold(): name for name in (tables.id, tables.title, *tables.text) if name}
        # Cells of text files are strings, some of which are numbers.
        self._numbers = file.path.suffix.lower() in (".csv", ".tsv", ".xlsx")
        # columns with values that are not part of the documents or their metadata
        self.left_out: dict[str, None] = {}

    def documents(
        self, rows: Iterable[Row], *, context: str = "", sheet: str | None = None
    ) -> Iterator[Document]:
        """Turn the rows of a table into documents; ``context``, such as a caption, precedes the text of each."""
        rows = iter(rows)
        sample = list(islice(rows, SAMPLE_ROWS))
        first_text = _first_text_column(sample)
        names: list[str] | None = None
        for row in chain(sample, rows):
            if names != (names_of_row := [name for name, _ in row.fields]):
                names, roles = names_of_row, self._roles(names_of_row, first_text)
            if document := self._document(row, roles, context, sheet):
                yield document

    def warn_of_columns(self) -> None:
        """Warn of columns that are left out, and of those that the settings name and no row has."""
        if self.left_out:
            names = ", ".join(self.left_out)
            reason = "another holds the text, and they are too long or nested for metadata"
            warn_omission(self._file.name, f"the columns {names} are left out: {reason}.")
        if self._missing:
            names = ", ".join(self._missing.values())
            warn_loss(self._file.name, f"it has no column {names}, which the settings name.")

    def _roles(self, names: Sequence[str], first_text: str | None) -> _Roles:
        positions: dict[str, int] = {}
        for position, name in enumerate(names):
            positions.setdefault(name.strip().casefold(), position)
        for name in self._missing.keys() & positions.keys():
            del self._missing[name]

        def position_of(*names: str | None) -> int | None:
            return next((positions[n.casefold()] for n in names if n and n.casefold() in positions), None)

        chosen = [position_of(name) for name in self._tables.text]
        texts = tuple(position for position in chosen or [position_of("text")] if position is not None)
        # Any table may have a column "id" with equal values, so only a table of texts takes its ids from there.
        names_of_id = ("id", "_id") if texts else ()
        title = position_of(self._tables.title, "title", None if texts else first_text)
        return _Roles(position_of(self._tables.id, *names_of_id), title, texts)

    def _document(self, row: Row, roles: _Roles, context: str, sheet: str | None) -> Document | None:
        """The document of a row; ``None`` for a row without values."""
        where = f"{self._unit} {row.number} of {self._file.path}"
        identifier = None if roles.id is None else _identifier(row.fields[roles.id][1], where)
        title = "" if roles.title is None else self._string(row, roles.title, where)
        metadata = self._metadata(row, roles)
        if len(roles.texts) == 1:
            text = self._string(row, roles.texts[0], where)
        else:
            fields = [row.fields[position] for position in roles.texts] or row.fields
            values = [(name, value) for name, field in fields if (value := _as_text(field))]
            if not values:
                return None
            title = textwrap.shorten((title or values[0][1])[:1000], _TITLE_CHARACTERS, placeholder="…")
            lines = [f"{name}: {value}" if name else value for name, value in values]
            text = "\n".join([context, *lines] if context else lines)
        return Document(
            id=identifier or f"{self._file.name}:{row.cell or row.number}",
            title=whole_text(title.strip(), "title", where),
            text=whole_text(text, "text", where),
            source=self._file.source,
            place=Place(line=row.number) if self._unit == "Line" else Place(sheet=sheet, row=row.number),
            keeps_lines=len(roles.texts) != 1,
            metadata=metadata,
        )

    def _metadata(self, row: Row, roles: _Roles) -> dict[str, Any]:
        """The columns of a row that are not part of its text; all columns if all are."""
        used = (*roles.texts, roles.id, roles.title) if roles.texts else ()
        metadata: dict[str, Any] = {}
        for position, (name, value) in enumerate(row.fields):
            if position not in used:
                kept = cleaned({name: value}, numbers=self._numbers)
                metadata |= kept
                if roles.texts and not kept and _as_text(value):
                    self.left_out[name] = None
        return metadata

    def _string(self, row: Row, position: int, where: str) -> str:
        """The title or text of a row, which must be a string unless the settings name its column."""
        name, value = row.fields[position]
        role = name.strip().casefold()
        if isinstance(value, str):
            return value
        if role not in {"title", "text"}:
            return _as_text(value)
        if value is None and role == "title":  # a null text points to a mistake elsewhere
            return ""
        raise SourceError(f"{where} has a '{name}' that is not a string: put it in quotation marks.")


def _first_text_column(rows: Sequence[Row]) -> str | None:
    """The first column that mostly holds text; without one, the first that has values."""
    filled: dict[str, int] = {}
    texts: dict[str, int] = {}
    for row in rows:
        for name, field in row.fields:
            if value := _as_text(field):
                filled[name] = filled.get(name, 0) + 1
                texts[name] = texts.get(name, 0) + (not is_number(value))
    candidates = (
        name for name, count in filled.items() if 2 * count >= len(rows) and 2 * texts[name] > count
    )
    return next(candidates, next(iter(filled), None))


def is_number(value: str) -> bool:
    """Whether a value is a number, a date, a time or an amount, not a name or text."""
    return len(value) < 64 and _NUMBER.fullmatch(value) is not None


def is_header(values: Iterable[str]) -> bool:
    """Whether the values of a row can be names of columns: text, and no numbers except years."""
    filled = [value for value in values if value]
    numbers = [value for value in filled if is_number(value)]
    return len(numbers) < len(filled) and all(map(_YEAR.fullmatch, numbers))


def _as_text(value: Any) -> str:
    """A value as a person would write it: whole numbers without a point, nothing for a missing value."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        single = np.float32(value)  # a column of 32 bits has 0.1 and not 0.10000000149011612
        return str(single) if float(single) == value else repr(value)
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return ", ".join(text for item in value if (text := _as_text(item)))
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str) if value else ""
    return str(value).removesuffix(" 00:00:00")


def _identifier(value: Any, where: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise SourceError(
            f"{where} has an 'id' that is neither a string nor an integer: change it or remove it."
        )
    return whole_text(str(value).strip(), "id", where)

"""Under which names a record has what: the usual ones, or those of a column map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.data.record import Record

NOT_READ = "-"
"""In place of a column's name: what it would hold is not read."""

_USUAL = {
    "id": ("id",),
    "question": ("question",),
    "answers": ("answers",),
    "answer": ("answer",),
    "passages": ("passages", "passage", "provenance"),
    "contexts": ("contexts",),
    "label": ("label",),
}
_SAME = {"passage": "passages", "provenance": "passages"}


class Columns:
    """A column map.

    Args:
        names: What columns or keys are called, by what they hold. A dot leads into nested ones (``answer.aliases``),
            a plus sign puts several together (``answer.value+answer.aliases``), and ``-`` says that nothing is read.

    Raises:
        DataError: It maps what no question has, or one thing twice.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names: dict[str, str] = {}
        for given, column in names.items():
            role = _SAME.get(given, given)
            if role not in _USUAL:
                raise DataError(
                    f"A question has no '{given}' that a column could be named for; choose among {', '.join(_USUAL)}."
                )
            if role in self._names or {"answer", "answers"} <= {*self._names, role}:
                raise DataError(f"The columns name '{given}' twice: name it once.")
            self._names[role] = column

    def has(self, role: str) -> bool:
        """Whether the map names a column for this."""
        return role in self._names

    def value(self, record: Record, role: str) -> Any:
        """What a record has of something, under its mapped name or else its usual ones; ``None`` if nothing.

        Raises:
            DataError: It lacks the column that the map names.
        """
        name = self._names.get(role)
        if name == NOT_READ:
            return None
        if name is None:
            found = (record.fields.get(own) for own in _USUAL[role])
            return next((own for own in found if own is not None), None)
        if name in record.fields or "+" not in name:
            return _look_up(record, name)
        parts = [_look_up(record, part) for part in name.split("+")]
        lists = [own if isinstance(own, list) else [own] for own in parts if own not in (None, "")]
        return [own for part in lists for own in part]


def lacks(record: Record, name: str) -> DataError:
    """The error of a record without something that is needed."""
    held = ", ".join(map(repr, record.fields)) or "nothing"
    return DataError(f"The {record.where} lacks '{name}' (it has {held}): name the column with --columns.")


def _look_up(record: Record, name: str) -> Any:
    """A field, or one inside of another: ``answer.aliases``."""
    if name in record.fields:
        return record.fields[name]
    found: Any = record.fields
    for part in name.split("."):
        if found is None:  # an object that is not there has nothing in it
            return None
        if not isinstance(found, Mapping) or part not in found:
            raise lacks(record, name)
        found = found[part]
    return found

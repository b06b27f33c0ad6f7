"""Texts among the values of a record, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.data.dpr import passage_id
from ragweave.evaluation.data.lines import data_errors, parse_list
from ragweave.evaluation.data.record import Record
from ragweave.knowledge.ingest.loaders.decoding import whole_text
from ragweave.types import GivenPassage


def text_of(record: Record, value: Any, name: str) -> str:
    """A text, or a whole number as one, without blanks around it.

    Raises:
        DataError: It is something else, or blank.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise DataError(f"The {record.where} has the {name} {str(value)[:60]!r}, which is no text: mend it.")
    with data_errors():
        return whole_text(str(value).strip(), name, f"The {record.where}")


def answers_of(record: Record, value: Any, *, single: bool, left_out: frozenset[str]) -> tuple[str, ...]:
    """Answers, each once, without those that are none; one alone too, where it may stand for a list of one.

    Raises:
        DataError: They are no list of texts.
    """
    if single and isinstance(value, (str, int)):
        value = [value]
    elif record.is_text and isinstance(value, str):
        value = parse_list(value, record.where)
    there = [
        own for own in _list(record, value, "answers") if not isinstance(own, str) or own not in left_out
    ]
    return _texts(record, there, "answer")


def passages_of(record: Record, value: Any) -> tuple[str, ...]:
    """Ids of passages: a list, or one alone; an object names itself by its id, as KILT's provenance does.

    Raises:
        DataError: They are something else.
    """
    if record.is_text and isinstance(value, str):
        value = (
            parse_list(value, record.where, "passages") if value.lstrip().startswith("[") else value.strip()
        )
    if value is None or value == "":
        return ()
    if isinstance(value, (str, int, Mapping)):
        value = [value]
    return _texts(record, _list(record, value, "passages"), "passage", _named)


def contexts_of(record: Record, value: Any) -> tuple[GivenPassage, ...]:
    """Passages with their texts.

    Raises:
        DataError: They are something else.
    """
    if value is None:
        return ()
    return tuple(_context(record, own) for own in _list(record, value, "contexts"))


def _context(record: Record, value: Any) -> GivenPassage:
    fields: Mapping[str, Any] = {"text": value} if isinstance(value, str) else value
    if not isinstance(fields, Mapping) or not isinstance(fields.get("gold"), (bool, type(None))):
        raise DataError(
            f"The {record.where} has the context {str(value)[:60]!r}: write an object with text, title, id and gold "
            "(true or false)."
        )
    title, name = fields.get("title") or "", passage_id(fields)
    return GivenPassage(
        text=text_of(record, fields.get("text"), "text"),
        title=text_of(record, title, "title") if title else "",
        id="" if name is None else text_of(record, name, "id"),
        gold=fields.get("gold"),
    )


def _list(record: Record, value: Any, name: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise DataError(f"The {record.where} has {name} that are no list: write {name} as a list of texts.")
    return list(value)


def _texts(
    record: Record, values: list[Any], name: str, of: Callable[[Any], Any] = lambda value: value
) -> tuple[str, ...]:
    """Texts of a list, each once."""
    return tuple(dict.fromkeys(text_of(record, of(own), name) for own in values))


def _named(value: Any) -> Any:
    """What a passage that is given as an object is called."""
    if not isinstance(value, Mapping):
        return value
    name = passage_id(value)
    found = (name, value.get("wikipedia_id"), value.get("title"), value)
    return next(own for own in found if own not in (None, ""))

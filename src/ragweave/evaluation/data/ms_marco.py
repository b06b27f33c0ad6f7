"""The fields of MS-MARCO's questions: ``passages`` are texts that were found, and no ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.data.record import Record

_TEXT, _SELECTED = "passage_text", "is_selected"


def is_ms_marco(fields: Mapping[str, Any]) -> bool:
    """Whether a record has passages as MS-MARCO writes them: an object of lists, or a list of objects."""
    passages = fields.get("passages")
    if isinstance(passages, list) and passages:
        passages = passages[0]
    return isinstance(passages, Mapping) and _TEXT in passages


def of_ms_marco(record: Record) -> Record:
    """A question of MS-MARCO's as one of ours: its passages have no ids, so that none is named as gold.

    Raises:
        DataError: The lists of texts and of what is selected do not fit.
    """
    passages = record.fields["passages"]
    try:
        if isinstance(passages, Mapping):
            pairs = list(zip(passages[_TEXT], passages[_SELECTED], strict=True))
        else:
            pairs = [(own[_TEXT], own[_SELECTED]) for own in passages]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The {record.where} has passages that are not as MS-MARCO has them: give each a {_TEXT} and "
            f"{_SELECTED}."
        ) from error
    contexts = [{"text": text, "gold": bool(selected)} for text, selected in pairs]
    return Record(record.where, {**record.fields, "passages": None, "contexts": contexts})

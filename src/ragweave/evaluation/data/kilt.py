"""The fields of KILT's questions: ``input``, and ``output`` with answers and provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.data.record import Record


def is_kilt(fields: Mapping[str, Any]) -> bool:
    """Whether a record is one of KILT's."""
    return "input" in fields and "output" in fields and "question" not in fields


def of_kilt(record: Record) -> Record:
    """A question of KILT's as one of ours: its answers, and the pages that any of them comes from.

    Raises:
        DataError: The output is not as KILT has it.
    """
    outputs = list(_objects(record.fields["output"], "output", record.where))
    sources = [
        source
        for output in outputs
        for source in _objects(output.get("provenance"), "provenance", record.where)
    ]
    pages = [source["wikipedia_id"] for source in sources if source.get("wikipedia_id") not in (None, "")]
    fields = {
        **record.fields,
        "question": record.fields["input"],
        "answers": [output["answer"] for output in outputs if output.get("answer") not in (None, "")],
        "passages": pages,
    }
    return Record(record.where, fields)


def _objects(value: Any, name: str, where: str) -> Iterator[dict[str, Any]]:
    if value is not None and not (isinstance(value, list) and all(isinstance(own, dict) for own in value)):
        raise DataError(
            f"The {where} has an '{name}' that is no list of objects, as KILT has it: mend it, or name the column of "
            "the question with --columns if this is other data."
        )
    yield from value or []

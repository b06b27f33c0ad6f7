"""The fields of DPR's questions: training files with ``positive_ctxs``, retriever outputs with ``ctxs``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.data.record import Record

_GOLD = {"positive_ctxs": True, "hard_negative_ctxs": False, "negative_ctxs": False, "ctxs": None}
"""Whether the passages under a key hold the answer, by the key."""


def is_dpr(fields: Mapping[str, Any]) -> bool:
    """Whether a record has passages under DPR's keys."""
    return any(key in fields for key in _GOLD)


def of_dpr(record: Record) -> Record:
    """A question of DPR's as one of ours: its passages, and the ids of the positive ones as gold.

    Raises:
        DataError: Passages are no list of objects.
    """
    contexts: list[dict[str, Any]] = []
    for key, gold in _GOLD.items():
        passages = record.fields.get(key) or []
        if not isinstance(passages, list) or not all(isinstance(own, dict) for own in passages):
            raise DataError(
                f"The {record.where} has {key} that are no list of passages: write a list of objects with title, "
                "text and passage_id."
            )
        contexts.extend({**own, "gold": gold} for own in passages)
    # Passages without an id of their own cannot be looked up, and a title names a whole page.
    gold_ids = [passage_id(own) for own in contexts if own["gold"]]
    return Record(
        record.where,
        {"passages": [own for own in gold_ids if own is not None], "contexts": contexts, **record.fields},
    )


def passage_id(passage: Mapping[str, Any]) -> Any:
    """The id of a passage as DPR's files, and those made from them, name it; ``None`` if there is none."""
    found = (passage.get(key) for key in ("id", "passage_id", "psg_id"))
    return next((own for own in found if own not in (None, "")), None)

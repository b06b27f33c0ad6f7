"""The fields of published data: KILT, DPR, MS-MARCO and SQuAD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ragweave.evaluation.data.records import Record, data_error

# Whether the passages under each of DPR's keys contain the answer: training files have the first three keys, the
# output of a retriever has the last.
_DPR_GOLD = {"positive_ctxs": True, "hard_negative_ctxs": False, "negative_ctxs": False, "ctxs": None}
_MARCO_TEXT, _MARCO_SELECTED = "passage_text", "is_selected"


def convert_layout(record: Record, *, kilt: bool = True) -> Record:
    """Convert a record of KILT, DPR, MS-MARCO or SQuAD to ragweave's fields, and return any other unchanged.

    Raises `DataError` if its fields do not have the published form.
    """
    fields = record.fields
    if kilt and "input" in fields and "output" in fields and "question" not in fields:
        return _from_kilt(record)
    if any(key in fields for key in _DPR_GOLD):
        return _from_dpr(record)
    if _is_ms_marco(fields):
        return _from_ms_marco(record)
    answers = fields.get("answers")
    # SQuAD's data set keeps answers as an object of lists, in which equal ones repeat.
    texts = answers.get("text") if isinstance(answers, Mapping) else None
    if not isinstance(texts, list):
        return record
    return Record(record.where, {**fields, "answers": list(dict.fromkeys(texts))})


def squad_questions(fields: Mapping[str, Any], where: str) -> Iterator[Record]:
    """The questions of a SQuAD file, 1.1 or 2.0, which is one object; raises `DataError` if it is malformed."""
    try:
        for article in fields["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = {"text": [answer["text"] for answer in question["answers"]]}
                    yield Record(f"question {question['id']} in {where}", {**question, "answers": answers})
    except (KeyError, TypeError) as error:
        raise data_error(where, f"does not have SQuAD's form ({error!r}): correct it.") from error


def passage_id(passage: Mapping[str, Any]) -> Any:
    """The id of a passage under any of the keys that DPR's files use; ``None`` if there is none."""
    ids = (passage.get(key) for key in ("id", "passage_id", "psg_id"))
    return next((value for value in ids if value not in (None, "")), None)


def _from_kilt(record: Record) -> Record:
    """Answers, and the pages that any of them cites."""
    outputs = _kilt_objects(record.fields["output"], "output", record.where)
    provenance = [
        source
        for output in outputs
        for source in _kilt_objects(output.get("provenance"), "provenance", record.where)
    ]
    pages = [source.get("wikipedia_id") for source in provenance]
    answers = [output.get("answer") for output in outputs]
    fields = {
        **record.fields,
        "question": record.fields["input"],
        # The answers of a test set are secret, which does not mean that there are none.
        "answers": [answer for answer in answers if answer not in (None, "")] or None,
        "passages": [page for page in pages if page not in (None, "")],
    }
    return Record(record.where, fields)


def _kilt_objects(value: Any, name: str, where: str) -> list[dict[str, Any]]:
    if value is not None and not _is_object_list(value):
        raise data_error(
            where,
            f"has an '{name}' that is not a list of objects, as in KILT: correct it, or name the column of the "
            "question with --columns if this is other data.",
        )
    return value or []


def _from_dpr(record: Record) -> Record:
    """Passages with their texts, and the ids of the positive ones as gold passages."""
    contexts: list[dict[str, Any]] = []
    for key, gold in _DPR_GOLD.items():
        passages = record.fields.get(key) or []
        if not _is_object_list(passages):
            raise data_error(
                record.where,
                f"has {key} that are not a list of passages: write objects with title, text and passage_id.",
            )
        contexts.extend({**passage, "gold": gold} for passage in passages)
    # A passage without an id cannot be looked up, and its title names a whole page.
    gold_ids = [name for context in contexts if context["gold"] and (name := passage_id(context)) is not None]
    return Record(record.where, {"passages": gold_ids, "contexts": contexts, **record.fields})


def _is_ms_marco(fields: Mapping[str, Any]) -> bool:
    """Whether ``passages`` is an object of lists, or a list of objects, as MS-MARCO writes it."""
    passages = fields.get("passages")
    if isinstance(passages, list) and passages:
        passages = passages[0]
    return isinstance(passages, Mapping) and _MARCO_TEXT in passages


def _from_ms_marco(record: Record) -> Record:
    """Passages with their texts; they have no ids, so there are no gold passages."""
    passages = record.fields["passages"]
    try:
        if isinstance(passages, Mapping):
            pairs = list(zip(passages[_MARCO_TEXT], passages[_MARCO_SELECTED], strict=True))
        else:
            pairs = [(passage[_MARCO_TEXT], passage[_MARCO_SELECTED]) for passage in passages]
    except (KeyError, TypeError, ValueError) as error:
        problem = f"has passages without MS-MARCO's form: give each a {_MARCO_TEXT} and {_MARCO_SELECTED}."
        raise data_error(record.where, problem) from error
    contexts = [{"text": text, "gold": bool(selected)} for text, selected in pairs]
    return Record(record.where, {**record.fields, "passages": None, "contexts": contexts})


def _is_object_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)

"""Reading questions and what is right from whatever they come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.data import records
from ragweave.evaluation.data.example import Example
from ragweave.evaluation.data.recipes import Recipe, find_recipe
from ragweave.evaluation.data.records import Record

FORMATS = ("auto", "jsonl", "dpr", "qa", "ans", "csv", "dataset")
"""What ``--format`` may be; KILT's lines are recognised among ``jsonl``."""

_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "jsonl": records.from_json_lines,
    "dpr": records.from_dpr,
    "qa": records.from_qa,
    "csv": records.from_table,
}
_BY_ENDING = {".jsonl": "jsonl", ".json": "dpr", ".csv": "csv", ".tsv": "csv", ".source": "ans"}
_PASSAGES = ("passage", "passages", "provenance")


def read_examples(
    source: str | Path,
    *,
    format: str = "auto",  # noqa: A002  # the usual name of this argument
    gold: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    recipe: str | None = None,
    limit: int | None = None,
) -> list[Example]:
    """Read questions and what is right.

    Args:
        source: A file; the folder or, with the format ``"dataset"``, the hub name of a data set
            (``NAME,CONFIGURATION:SPLIT``).
        format: One of `FORMATS`; ``"auto"`` goes by the file's ending and first line.
        gold: For the format ``"ans"``, the file of answers, one a line; the file with the ending ``.target`` beside a
            ``.source`` where left out.
        columns: What the columns or keys are called, by what they hold (``id``, ``question``, ``answers`` or
            ``answer``, ``passages``); a dot leads into nested ones, as in ``answer.aliases``.
        recipe: Name of a recipe, which knows the columns and labels of its data.
        limit: How many questions, the first.

    Returns:
        The examples, in the order of the data.

    Raises:
        DataError: The data is missing, damaged or of another form; the message names the line.

    Example:
        >>> read_examples("dev.jsonl", limit=1)[0].answers
        ('Lima',)
    """
    cooked = find_recipe(recipe)
    kind = _format_of(source, format)
    names = dict(columns or {})
    if not names and cooked is not None and (kind == "dataset" or not _has_usual_names(kind, source)):
        names = dict(cooked.columns)
    examples: dict[str, Example] = {}
    found = (
        example
        for number, record in enumerate(_records(kind, source, gold), start=1)
        if (example := _example(record, names, cooked, number)) is not None
    )
    for example in islice(found, limit):
        if example.id in examples:
            raise DataError(
                f"The {example.where} has the id '{example.id}' of {examples[example.id].where}: give every question "
                "an id of its own, or none."
            )
        examples[example.id] = example
    if not examples:
        raise DataError(f"There are no questions in {source}.")
    return list(examples.values())


def _format_of(source: str | Path, given: str) -> str:
    if given not in FORMATS:
        raise DataError(f"There is no format {given!r}; choose among {', '.join(FORMATS)}.")
    path = Path(source)
    if given != "auto":
        if given != "dataset" and not path.is_file():
            raise DataError(f"There is no file {source}: check the path.")
        return given
    if path.is_dir():
        return "dataset"
    if not path.is_file():
        raise DataError(
            f"There is no file {source}: check the path, or add --format dataset for one on the hub."
        )
    found = _BY_ENDING.get(path.suffix.lower())
    if found == "csv" and _is_qa(path):
        return "qa"
    if found is None:
        raise DataError(f"The ending of {source} says nothing of its format: name it with --format.")
    return found


def _is_qa(path: Path) -> bool:
    """Whether a table has no names of columns, but a question, a tab and a list in its first line, like DPR's."""
    _, line = next(records.lines_of(path), ("", ""))
    _, _, answers = line.partition("\t")
    return answers.strip().startswith("[")


def _has_usual_names(kind: str, source: str | Path) -> bool:
    """Whether a file is in our own form, though it is of a recipe's task."""
    if kind in {"qa", "ans"}:
        return True
    first = next(_READERS[kind](Path(source)), None)
    return first is not None and "question" in first.fields and "answers" in first.fields


def _records(kind: str, source: str | Path, gold: str | Path | None) -> Iterator[Record]:
    if kind == "dataset":
        return records.from_dataset(str(source))
    if kind != "ans":
        return _READERS[kind](Path(source))
    path = Path(source)
    if gold is None and path.suffix != ".source":
        raise DataError(f"{source} holds questions alone: name the file of their answers with --gold-file.")
    return records.from_pairs(path, Path(gold) if gold is not None else path.with_suffix(".target"))


def _example(record: Record, names: Mapping[str, str], recipe: Recipe | None, number: int) -> Example | None:
    """One example; ``None`` where a recipe leaves it out."""
    fields, where = record.fields, record.where
    question = _value(record, names, ("question",))
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"The {where} has no question: write one, or name its column with --columns.")
    passages = _texts(record, _value(record, names, _PASSAGES, needed=False), "passages", single=True)
    answers = _answers(record, names, needed=not passages)
    if recipe is not None:
        answers = [recipe.labels.get(own, own) for own in answers if own not in recipe.left_out]
        if not answers and recipe.left_out:
            return None
    if not answers and not passages:
        raise DataError(f"The {where} has no answers: give at least one, or leave the question out.")
    name = _lookup(fields, names["id"]) if "id" in names else fields.get("id")
    return Example(
        id=str(name) if name not in (None, "") else str(number),
        question=question.strip(),
        answers=tuple(answers),
        gold_passages=tuple(passages),
        where=where,
    )


def _answers(record: Record, names: Mapping[str, str], *, needed: bool) -> list[str]:
    if "answer" in names or (
        "answers" not in names and "answers" not in record.fields and "answer" in record.fields
    ):
        found = _value(record, names, ("answer",))
        return _texts(record, found, "answer", single=True)
    found = _value(record, names, ("answers",), needed=needed)
    return _texts(record, found, "answers", single=False)


def _value(record: Record, names: Mapping[str, str], wanted: tuple[str, ...], *, needed: bool = True) -> Any:
    """What a record has of something, under the name that was given for it or one of the usual ones."""
    fields = record.fields
    given = next((names[name] for name in wanted if name in names), None)
    if given is not None:
        found = _lookup(fields, given)
        if found is not None:
            return found
    elif present := [name for name in wanted if fields.get(name) is not None]:
        return fields[present[0]]
    if needed or given is not None:
        raise DataError(
            f"The {record.where} lacks '{given or wanted[0]}' (it has {', '.join(map(repr, fields)) or 'nothing'}): "
            "name the column with --columns."
        )
    return None


def _lookup(fields: Mapping[str, Any], path: str) -> Any:
    """A field, or one inside of another: ``answer.aliases``."""
    if path in fields:
        return fields[path]
    found: Any = fields
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _texts(record: Record, value: Any, name: str, *, single: bool) -> list[str]:
    """A list of texts; a single text too, where that may stand for a list of one."""
    if value is None:
        return []
    if single and isinstance(value, (str, int)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise DataError(f"The {record.where} has {name} that are no list: write {name} as a list of texts.")
    found = []
    for own in value:
        text = _identified(own) if name == "passages" else own
        if isinstance(text, bool) or not isinstance(text, (str, int)) or not str(text).strip():
            raise DataError(
                f"The {record.where} has {name} with {own!r} among them, which is no text: mend it."
            )
        found.append(str(text).strip())
    return list(dict.fromkeys(found))


def _identified(own: Any) -> Any:
    """The id of a passage that is given as an object, as KILT gives provenance."""
    if not isinstance(own, Mapping):
        return own
    return next((own[key] for key in ("id", "passage_id", "wikipedia_id", "title") if own.get(key)), None)

"""Converts records to examples: column names, checks of values, and the changes of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ragweave.errors import ConfigurationError, DataError
from ragweave.evaluation.data.layouts import passage_id
from ragweave.evaluation.data.recipes import Recipe
from ragweave.evaluation.data.records import Record, capitalized, data_error, data_errors, parse_list
from ragweave.knowledge.ingest.loaders.text import whole_text
from ragweave.matching import compile_pattern
from ragweave.types import Example, GivenPassage

NOT_READ = "-"
"""A column name that means: ignore this field."""

_DEFAULT_NAMES = {
    "id": ("id",),
    "question": ("question",),
    "answers": ("answers",),
    "answer": ("answer",),
    "passages": ("passages", "passage", "provenance"),
    "contexts": ("contexts",),
    "label": ("label",),
    "unanswerable": ("unanswerable", "is_impossible"),
}
_ALIASES = {"passage": "passages", "provenance": "passages"}


class Columns:
    """Maps the fields of a question to the columns or keys of the data.

    In the names of columns a dot selects a nested key (``answer.aliases``), a plus sign concatenates
    (``answer.value+answer.aliases``), and ``-`` ignores the field. Raises `DataError` if a field is unknown, or
    mapped twice.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names: dict[str, str] = {}
        for name, column in names.items():
            field = _ALIASES.get(name, name)
            if field not in _DEFAULT_NAMES:
                raise DataError(
                    f"A question has no field '{name}': choose among {', '.join(_DEFAULT_NAMES)}."
                )
            if field in self._names or {"answer", "answers"} <= {*self._names, field}:
                raise DataError(f"The columns name '{name}' twice: name it once.")
            self._names[field] = column

    def has(self, field: str) -> bool:
        """Whether the map names a column for a field."""
        return field in self._names

    def value(self, record: Record, field: str) -> Any:
        """The value of a field under its mapped name, which must exist, or a default name; ``None`` if missing."""
        name = self._names.get(field)
        if name == NOT_READ:
            return None
        if name is None:
            values = (record.fields.get(default) for default in _DEFAULT_NAMES[field])
            return next((value for value in values if value is not None), None)
        if name in record.fields or "+" not in name:
            return _look_up(record, name)
        parts = [_look_up(record, part) for part in name.split("+")]
        lists = [part if isinstance(part, list) else [part] for part in parts if part not in (None, "")]
        return [value for part in lists for value in part]


def _look_up(record: Record, name: str) -> Any:
    """A field, or a nested one such as ``answer.aliases``."""
    if name in record.fields:
        return record.fields[name]
    value: Any = record.fields
    for part in name.split("."):
        if value is None:  # a missing object has no keys
            return None
        if not isinstance(value, Mapping) or part not in value:
            raise _missing_column(record, name)
        value = value[part]
    return value


def _missing_column(record: Record, name: str) -> DataError:
    present = ", ".join(map(repr, record.fields)) or "nothing"
    return data_error(record.where, f"lacks '{name}' (it has {present}): name the column with --columns.")


@dataclass(frozen=True, slots=True)
class ExampleMapper:
    """Converts records to examples."""

    columns: Columns
    recipe: Recipe | None = None  # the recipe of the task, if any
    # Whether the data has the published columns of the recipe, and its texts need the recipe's cleaning.
    published: bool = False
    contexts: bool = False  # whether to keep the passages that the data contains

    def example(self, record: Record, number: int) -> Example | None:
        """Convert a record with ragweave's fields to an example; ``None`` if the recipe leaves it out.

        The number of the record becomes the id of a record without one. Raises `DataError` if the record lacks a
        field, or a field has the wrong form.
        """
        columns, where = self.columns, record.where
        question = self._question(record)
        passages = _passage_ids(record, columns.value(record, "passages"))
        unanswerable = self._unanswerable(record)
        answers = () if unanswerable else self._answers(record, required=not passages)
        if not answers and self.recipe is not None and self.recipe.left_out:
            return None
        # An empty list means that there is no answer, unless there are gold passages.
        unanswerable = unanswerable or (not answers and not passages and self._says_no_answers(record))
        if not answers and not passages and not unanswerable:
            raise data_error(
                where,
                "has no answers: give at least one, write an empty list if the documents do not answer it, or leave "
                "the question out.",
            )
        name = columns.value(record, "id")
        return Example(
            id=str(number) if name in (None, "") else _text(record, name, "id"),
            question=question,
            answers=tuple(self._target(answer, where) for answer in answers),
            gold_passages=passages,
            where=where,
            contexts=_contexts(record, columns.value(record, "contexts")) if self.contexts else (),
            label=self._label(record, answers),
            unanswerable=unanswerable,
        )

    def _unanswerable(self, record: Record) -> bool:
        value = self.columns.value(record, "unanswerable")
        if record.is_text and isinstance(value, str):
            value = {"true": True, "1": True, "false": False, "0": False, "": None}.get(value.lower(), value)
        if value not in (None, False, True):
            raise data_error(
                record.where,
                f"has {str(value)[:60]!r} where it says whether it is unanswerable: write true or false.",
            )
        return bool(value)

    def _says_no_answers(self, record: Record) -> bool:
        value = self.columns.value(record, "answers")
        return value == [] or (record.is_text and isinstance(value, str) and value.strip() == "[]")

    def _question(self, record: Record) -> str:
        value = self.columns.value(record, "question")
        if value is None and not self.columns.has("question") and "question" not in record.fields:
            raise _missing_column(record, "question")
        if not isinstance(value, str) or not value.strip():
            raise data_error(record.where, "has no question: write one, or name its column with --columns.")
        return self._clean(_text(record, value, "question"), record.where)

    def _answers(self, record: Record, *, required: bool) -> tuple[str, ...]:
        """The answers, unchanged from the data."""
        value, single = self.columns.value(record, "answers"), False
        if value is None and not self.columns.has("answers"):
            value, single = self.columns.value(record, "answer"), True
        if value is None:
            mapped = self.columns.has("answers") or self.columns.has("answer")
            if required and not mapped and not {"answers", "answer"} & record.fields.keys():
                raise _missing_column(record, "answers")
            return ()
        if single and isinstance(value, (str, int)):
            value = [value]
        elif record.is_text and isinstance(value, str):
            value = parse_list(value, record.where)
        left_out = self.recipe.left_out if self.recipe is not None else frozenset()
        answers = _list(record, value, "answers")
        return _texts(
            record, [item for item in answers if not isinstance(item, str) or item not in left_out], "answer"
        )

    def _target(self, answer: str, where: str) -> str:
        """The text that the model should generate for an answer."""
        recipe = self.recipe
        if recipe is None:
            return answer
        if recipe.labels:
            if answer not in recipe.labels and answer not in recipe.labels.values():
                classes = ", ".join(recipe.labels)
                raise data_error(where, f"has the class {answer!r}: {recipe.name} has the classes {classes}.")
            return recipe.labels.get(answer, answer)
        if recipe.patterns:
            try:
                compile_pattern(answer)
            except ConfigurationError as error:
                raise data_error(where, f"has an invalid pattern. {error}") from error
        return self._clean(answer, where)

    def _clean(self, text: str, where: str) -> str:
        if not self.published or self.recipe is None or self.recipe.clean is None:
            return text
        clean = self.recipe.clean(text)
        if not clean:
            raise data_error(where, f"has no text in {text[:60]!r}: correct it, or leave the question out.")
        return clean

    def _label(self, record: Record, answers: tuple[str, ...]) -> str | None:
        """The class, unchanged from the data."""
        value = self.columns.value(record, "label")
        if self.columns.has("label"):
            return None if value is None else _text(record, value, "label")
        if isinstance(value, str) and value.strip():
            return _text(record, value, "label")
        if self.recipe is None or self.recipe.task != "classification" or not answers:
            return None
        classes = {target: name for name, target in self.recipe.labels.items()}
        return classes.get(answers[0], answers[0])


def _text(record: Record, value: Any, name: str) -> str:
    """A text or a whole number, without outer blanks."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise data_error(
            record.where, f"has the {name} {str(value)[:60]!r}, which is empty or not text: correct it."
        )
    with data_errors():
        return whole_text(str(value).strip(), name, capitalized(record.where))


def _list(record: Record, value: Any, name: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise data_error(record.where, f"has {name} that are not a list: write {name} as a list of texts.")
    return list(value)


def _texts(
    record: Record, values: list[Any], name: str, of: Callable[[Any], Any] = lambda value: value
) -> tuple[str, ...]:
    """The distinct texts of a list."""
    return tuple(dict.fromkeys(_text(record, of(value), name) for value in values))


def _passage_ids(record: Record, value: Any) -> tuple[str, ...]:
    """Ids of passages: a list or a single one; an object is identified as in KILT's provenance."""
    if record.is_text and isinstance(value, str):
        value = (
            parse_list(value, record.where, "passages") if value.lstrip().startswith("[") else value.strip()
        )
    if value is None or value == "":
        return ()
    if isinstance(value, (str, int, Mapping)):
        value = [value]
    return _texts(record, _list(record, value, "passages"), "passage", _passage_name)


def _passage_name(value: Any) -> Any:
    """The id of a passage that may be an object."""
    if not isinstance(value, Mapping):
        return value
    names = (passage_id(value), value.get("wikipedia_id"), value.get("title"), value)
    return next(name for name in names if name not in (None, ""))


def _contexts(record: Record, value: Any) -> tuple[GivenPassage, ...]:
    """Passages with their texts."""
    return () if value is None else tuple(_context(record, item) for item in _list(record, value, "contexts"))


def _context(record: Record, value: Any) -> GivenPassage:
    fields: Any = {"text": value} if isinstance(value, str) else value
    if not isinstance(fields, Mapping) or not isinstance(fields.get("gold"), (bool, type(None))):
        raise data_error(
            record.where,
            f"has the context {str(value)[:60]!r}: write an object with text, title, id and gold (true or false).",
        )
    title, name = fields.get("title") or "", passage_id(fields)
    return GivenPassage(
        text=_text(record, fields.get("text"), "text"),
        title=_text(record, title, "title") if title else "",
        id="" if name is None else _text(record, name, "id"),
        gold=fields.get("gold"),
    )

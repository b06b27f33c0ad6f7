"""Reading questions and what is right from whatever they come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

from ragweave.errors import DataError
from ragweave.evaluation.data.columns import Columns
from ragweave.evaluation.data.formats import records_of
from ragweave.evaluation.data.mapping import Mapper, in_our_fields
from ragweave.evaluation.data.recipes import Recipe, find_recipe
from ragweave.evaluation.data.record import Record
from ragweave.types import Example


def read_examples(
    source: str | Path,
    *,
    format: str = "auto",  # noqa: A002  # the usual name of this argument
    gold: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    recipe: str | Recipe | None = None,
    limit: int | None = None,
    contexts: bool = False,
) -> list[Example]:
    """Read questions and what is right.

    Args:
        source: A file; the folder or, with the format ``"dataset"``, the hub name of a data set
            (``NAME,CONFIGURATION:SPLIT``).
        format: One of `FORMATS`; ``"auto"`` goes by the file's ending and first line.
        gold: For the format ``"ans"``, the file of answers, one a line; the file with the ending ``.target`` beside a
            ``.source`` where left out.
        columns: What the columns or keys are called, by what they hold (``id``, ``question``, ``answers`` or
            ``answer``, ``passages``, ``contexts``, ``label``); see `Columns` for names of several and of nested ones.
        recipe: A recipe or the name of one, which knows the other columns and the labels of its data.
        limit: How many questions, the first; no more of the file is read.
        contexts: Keep the passages that the data gives with its questions, which are most of the size of DPR's files.

    Returns:
        The examples, in the order of the data.

    Raises:
        DataError: The data is missing, damaged or of another form; the message names the line.

    Example:
        >>> read_examples("dev.jsonl", limit=1)[0].answers
        ('Lima',)
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}: ask for at least 1 question.")
    cooked = find_recipe(recipe) if recipe is None or isinstance(recipe, str) else recipe
    mapping = Columns(columns or {})
    records = (in_our_fields(record, mapping) for record in records_of(source, format, gold))
    first = next(records, None)
    if first is None:
        raise DataError(f"There are no questions in {source}.")
    as_published = cooked is not None and not _is_ours(first)
    if cooked is not None and as_published:
        mapping = Columns(_with_recipe(columns or {}, cooked, first))
    mapper = Mapper(mapping, cooked, tidied=as_published, contexts=contexts)
    found = _examples(chain([first], records), mapper, repeats=cooked is not None and cooked.repeats)
    examples = list(islice(found, limit))
    if not examples:
        raise DataError(f"There are no questions that have an answer in {source}.")
    return examples


def _is_ours(record: Record) -> bool:
    """Whether a file is in our own form, though it may be of a recipe's task."""
    return "question" in record.fields and "answers" in record.fields


def _with_recipe(given: Mapping[str, str], recipe: Recipe, record: Record) -> dict[str, str]:
    """The columns that were given, and of a recipe's the others: not that of the ids where the data has none."""
    replaced = {"answer", "answers"} if {"answer", "answers"} & given.keys() else set()
    own = {role: name for role, name in recipe.columns.items() if role not in replaced}
    if own.get("id") not in record.fields:
        own.pop("id", None)
    return {**own, **given}


def _examples(records: Iterator[Record], mapper: Mapper, *, repeats: bool) -> Iterator[Example]:
    """Make examples of records, each id once."""
    seen: dict[str, Example] = {}
    for number, record in enumerate(records, start=1):
        example = mapper.example(record, number)
        if example is None:
            continue
        before = seen.setdefault(example.id, example)
        if before is example:
            yield example
        elif not (repeats and (before.question, before.answers) == (example.question, example.answers)):
            raise DataError(
                f"The {example.where} has the id '{example.id}' of {before.where}: give every question an id of its "
                "own, or none."
            )

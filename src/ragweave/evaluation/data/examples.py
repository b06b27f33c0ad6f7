"""Reads questions and gold answers from any format, writes them, and checks them against a knowledge base."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.data import formats
from ragweave.evaluation.data.layouts import convert_layout
from ragweave.evaluation.data.mapping import Columns, ExampleMapper
from ragweave.evaluation.data.recipes import Recipe, find_recipe
from ragweave.evaluation.data.records import Record, data_error, data_errors
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.loaders.text import read_pieces
from ragweave.knowledge.store import replace_text
from ragweave.types import Example

FORMATS = ("auto", "jsonl", "dpr", "qa", "ans", "csv", "parquet", "dataset")
"""The values of ``--format``; KILT's and MS-MARCO's fields are recognised in all of them."""

_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "jsonl": formats.read_json_lines,
    "dpr": formats.read_json_list,
    "qa": formats.read_qa,
    "csv": formats.read_table,
    "parquet": formats.read_parquet,
}
_BY_ENDING = {".source": "ans", ".parquet": "parquet"}
_TABLES = frozenset({".csv", ".tsv"})
_WITH_ANSWERS = frozenset({".jsonl", ".json", ".parquet", *_TABLES})
_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zip", ".tar", ".tgz"})
_N_NAMED = 5


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
    """Read questions and gold answers, in the order of the data.

    Args:
        source: A file; the folder or, with the format ``"dataset"``, the hub name of a data set
            (``NAME,CONFIGURATION:SPLIT``).
        format: One of `FORMATS`; ``"auto"`` detects it by the file's ending and first line.
        gold: For the format ``"ans"``, the file of answers, one per line. The default for a ``.source`` file is the
            ``.target`` file next to it.
        columns: The names of the columns or keys by field (``id``, ``question``, ``answers`` or ``answer``,
            ``passages``, ``contexts``, ``label``, ``unanswerable``); see `Columns` for nested and concatenated ones.
        recipe: A recipe or its name. It provides the other columns and the labels.
        limit: Read only this many questions, and not the rest of the file.
        contexts: Keep the passages that the data contains. They are most of the size of DPR's files.

    Raises:
        DataError: The data is missing, damaged or has the wrong form; the message names the line.

    Example:
        >>> read_examples("dev.jsonl", limit=1)[0].answers
        ('Lima',)
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}: ask for at least 1 question.")
    recipe = find_recipe(recipe) if recipe is None or isinstance(recipe, str) else recipe
    mapping = Columns(columns or {})
    kilt = not mapping.has("question")
    records = (convert_layout(record, kilt=kilt) for record in _read_records(source, format, gold))
    first = next(records, None)
    if first is None:
        raise DataError(f"There are no questions in {source}.")
    # Data in ragweave's format can belong to a recipe's task; then it needs no renamed columns and no cleaning.
    published = recipe is not None and not {"question", "answers"} <= first.fields.keys()
    if recipe is not None and published:
        mapping = Columns(_merge_columns(columns or {}, recipe, first))
    mapper = ExampleMapper(mapping, recipe, published=published, contexts=contexts)
    repeats = recipe is not None and recipe.repeats
    examples = list(islice(_map_records(chain([first], records), mapper, repeats=repeats), limit))
    if not examples:
        raise DataError(f"There are no questions that have an answer in {source}.")
    return examples


def _merge_columns(columns: Mapping[str, str], recipe: Recipe, record: Record) -> dict[str, str]:
    """The user's columns, and the recipe's for other fields; the recipe's id column is optional."""
    replaced = {"answer", "answers"} if {"answer", "answers"} & columns.keys() else set()
    defaults = {field: name for field, name in recipe.columns.items() if field not in replaced}
    if defaults.get("id") not in record.fields:
        defaults.pop("id", None)
    return {**defaults, **columns}


def _map_records(records: Iterable[Record], mapper: ExampleMapper, *, repeats: bool) -> Iterator[Example]:
    """Make examples with unique ids."""
    seen: dict[str, Example] = {}
    for number, record in enumerate(records, start=1):
        example = mapper.example(record, number)
        if example is None:
            continue
        first = seen.setdefault(example.id, example)
        if first is example:
            yield example
        elif not (repeats and (first.question, first.answers) == (example.question, example.answers)):
            raise data_error(
                example.where,
                f"has the id '{example.id}' of {first.where}: give every question its own id, or none.",
            )


def _read_records(source: str | Path, format_: str, gold: str | Path | None) -> Iterator[Record]:
    """Detect the format at once, and read records lazily."""
    format_ = _detect_format(source, format_, gold)
    if gold is not None and format_ != "ans":
        raise DataError(f"{source} has the format {format_}, which includes answers: leave --gold-file out.")
    if format_ == "dataset":
        return formats.read_dataset(str(source))
    path = Path(source)
    if format_ != "ans":
        return _READERS[format_](path)
    if gold is None and path.suffix != ".source":
        raise DataError(f"{source} contains only questions: name the file of their answers with --gold-file.")
    return formats.read_pairs(path, path.with_suffix(".target") if gold is None else Path(gold))


def _detect_format(source: str | Path, format_: str, gold: str | Path | None) -> str:
    if format_ not in FORMATS:
        raise DataError(f"Unknown format {format_!r}. Choose one of: {', '.join(FORMATS)}.")
    path = Path(source)
    if format_ == "dataset" or (format_ == "auto" and path.is_dir()):
        return "dataset"
    if not path.is_file():
        hint = ", or add --format dataset for a data set on the hub" if format_ == "auto" else ""
        raise DataError(f"There is no file {source}: check the path{hint}.")
    if format_ != "auto":
        return format_
    ending = path.suffix.lower()
    if gold is not None and ending not in _WITH_ANSWERS:
        return "ans"
    return _BY_ENDING.get(ending) or _detect_by_content(path, ending)


def _detect_by_content(path: Path, ending: str) -> str:
    if ending in _COMPRESSED:
        raise DataError(f"{path} is compressed: unpack it first.")
    line = _first_line(path)
    fields = formats.split_qa(line)
    if fields is not None and fields[1].lstrip().startswith("["):
        return "qa"
    if ending in _TABLES:
        return "csv"
    if line.startswith("["):
        return "dpr"
    if ending == ".jsonl":
        return "jsonl"
    with suppress(ValueError, RecursionError):
        if isinstance(json.loads(line), dict):
            return "jsonl"
    if line.startswith("{"):
        raise DataError(
            f"{path} is one JSON object over several lines: write a list of questions, or one object a line."
        )
    raise DataError(f"The format of {path} cannot be detected: name it with --format.")


def _first_line(path: Path) -> str:
    """The beginning of the first line that is not blank."""
    with data_errors():
        for piece in read_pieces(path):
            if text := piece.lstrip():
                return text.partition("\n")[0].rstrip()
    return ""


def write_examples(path: Path | str, examples: Iterable[Example]) -> None:
    """Write examples as JSON lines for `read_examples`, atomically; an existing file is replaced.

    Raises `DataError` if two examples have the same id, a text cannot be encoded, or the file cannot be written.
    """
    seen: set[str] = set()
    lines = []
    for example in examples:
        if example.id in seen:
            raise DataError(f"Two questions have the id '{example.id}': give every question its own id.")
        seen.add(example.id)
        lines.append(f"{json.dumps(_json_fields(example), ensure_ascii=False)}\n")
    text = "".join(lines)
    try:
        replace_text(Path(path), text)
    except UnicodeEncodeError as error:
        raise DataError(
            f"Half of a surrogate pair is in line {text.count(chr(10), 0, error.start) + 1} of the text for {path}: "
            "write the whole character."
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}): check the folder and its permissions."
        ) from error


def _json_fields(example: Example) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": example.id,
        "question": example.question,
        "answers": list(example.answers),
        "passages": list(example.gold_passages),
    }
    if example.contexts:
        fields["contexts"] = [asdict(context) for context in example.contexts]
    if example.label is not None:
        fields["label"] = example.label
    if example.unanswerable:
        fields["unanswerable"] = True
    return fields


def lacking_gold(examples: Sequence[Example], base: KnowledgeBase) -> list[tuple[Example, str]]:
    """Find gold passages that are missing from a knowledge base, by passage or document id, with their questions.

    All ids are looked up together.
    """
    rows = base.rows_of({name for example in examples for name in example.gold_passages})
    return [(example, name) for example in examples for name in example.gold_passages if not rows[name]]


def check_gold(examples: Sequence[Example], base: KnowledgeBase) -> None:
    """Raise `DataError` if a knowledge base lacks gold passages; the message has their number and the first ids."""
    missing = lacking_gold(examples, base)
    if not missing:
        return
    total = sum(len(example.gold_passages) for example in examples)
    names = ", ".join(f"'{name}' ({example.where or example.id})" for example, name in missing[:_N_NAMED])
    others = f" and {len(missing) - _N_NAMED} others" if len(missing) > _N_NAMED else ""
    raise DataError(
        f"The knowledge base {base.path} lacks {len(missing)} of the {total} gold passages: {names}{others}. Build "
        "it from the passages that the data was made for, or read the data without them (--columns passages=-)."
    )

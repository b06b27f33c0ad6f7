"""Files of questions as records: a dictionary for every question, with its line, whatever the format."""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragweave.errors import DataError, SourceError
from ragweave.knowledge.readers.decoding import read_lines


@dataclass(frozen=True, slots=True)
class Record:
    """One question as it stands in a file.

    Attributes:
        where: The file and the line.
        fields: What is there, by name.
    """

    where: str
    fields: dict[str, Any]


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, with their places.

    Raises:
        DataError: The file cannot be read, or is not UTF-8 text.
    """
    try:
        for number, line in read_lines(path):
            if line.strip():
                yield f"line {number} of {path}", line.rstrip("\r\n")
    except SourceError as error:
        raise DataError(str(error)) from error


def from_json_lines(path: Path) -> Iterator[Record]:
    """JSON lines: an object a line, ours or KILT's.

    Raises:
        DataError: A line is something else.
    """
    for where, line in lines_of(path):
        fields = _json(line, where)
        if not isinstance(fields, dict):
            raise DataError(f"The {where} is not a JSON object: write one object a line.")
        yield Record(where, _of_kilt(fields, where) if "input" in fields else fields)


def from_dpr(path: Path) -> Iterator[Record]:
    """DPR's JSON: a list of questions with ``positive_ctxs``, whose ids are gold passages.

    Raises:
        DataError: The file is something else.
    """
    try:
        content = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): give a file of UTF-8 text.") from error
    found = _json(content, str(path))
    if not isinstance(found, list) or not all(isinstance(own, dict) for own in found):
        raise DataError(f"{path} is not a JSON list of questions as DPR has them: choose another --format.")
    for number, fields in enumerate(found, start=1):
        where = f"question {number} of {path}"
        contexts = fields.get("positive_ctxs", [])
        if not isinstance(contexts, list) or not all(isinstance(own, dict) for own in contexts):
            raise DataError(f"The positive_ctxs of {where} are not a list of passages.")
        ids = [own.get("passage_id", own.get("psg_id")) for own in contexts]
        passages = [str(own) for own in ids if own not in (None, "")]
        yield Record(where, {**fields, "passages": fields.get("passages", passages)})


def from_qa(path: Path) -> Iterator[Record]:
    """The research scripts' ``qa`` gold file, and DPR's: a question, a tab and a list of answers in every line.

    Raises:
        DataError: A line is something else.
    """
    for where, line in lines_of(path):
        question, tab, answers = line.partition("\t")
        if not tab:
            raise DataError(f"The {where} has no tab: write the question, a tab and a list of answers.")
        yield Record(where, {"question": question, "answers": parse_list(answers, where)})


def from_pairs(path: Path, gold: Path) -> Iterator[Record]:
    """A file of questions and one of answers, line by line: ``.source`` and ``.target``, or the ``ans`` gold file.

    Raises:
        DataError: A file is missing, or they have other numbers of lines.
    """
    questions, answers = list(_all_lines(path)), list(_all_lines(gold))
    if len(questions) != len(answers):
        raise DataError(
            f"{path} has {len(questions)} lines, {gold} has {len(answers)}: give one answer for each question."
        )
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True), start=1):
        yield Record(f"line {number} of {path}", {"question": question, "answers": [answer]})


def from_table(path: Path) -> Iterator[Record]:
    """A table of comma- or tab-separated values whose first line names its columns.

    The column ``answers`` holds a list such as ``["Lima", "Lima, Peru"]``, or ``answer`` a single one.

    Raises:
        DataError: It is no table.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        rows = csv.reader((line for _, line in read_lines(path)), delimiter=delimiter, strict=True)
        header = next(rows, [])
        begun = rows.line_num + 1
        for row in rows:
            where = f"line {begun} of {path}"
            begun = rows.line_num + 1
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"The row at {where} has {len(row)} fields, the first line has {len(header)}: put fields that "
                    "hold the separator in quotation marks."
                )
            fields: dict[str, Any] = dict(zip((name.strip() for name in header), row, strict=True))
            for name in ("answers", "passages", "provenance"):
                if name in fields:
                    fields[name] = parse_list(fields[name], where, name)
            yield Record(where, fields)
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table ({error}): close every quotation mark.") from error
    except SourceError as error:
        raise DataError(str(error)) from error


def from_dataset(name: str) -> Iterator[Record]:
    """A data set of the library ``datasets``: a saved folder, or ``NAME[,CONFIGURATION][:SPLIT]`` on the hub.

    Raises:
        DataError: There is no such data set, or it has no such split.
    """
    import datasets

    whole, _, split = name.partition(":")
    repository, _, configuration = whole.partition(",")
    try:
        if Path(repository).is_dir():
            loaded = datasets.load_from_disk(repository)
            table = (
                loaded[split or next(iter(loaded))] if isinstance(loaded, datasets.DatasetDict) else loaded
            )
        else:
            table = datasets.load_dataset(repository, configuration or None, split=split or "validation")
    except (OSError, ValueError, KeyError, ConnectionError) as error:
        raise DataError(
            f"The data set '{name}' cannot be read ({str(error).splitlines()[0]}): write "
            "NAME,CONFIGURATION:SPLIT, or the folder of a saved one."
        ) from error
    for number, fields in enumerate(table):
        yield Record(f"row {number} of {name}", dict(fields))


def parse_list(text: str, where: str, name: str = "answers") -> list[Any]:
    """Read a list as JSON or Python writes it; nothing in it is executed.

    Raises:
        DataError: It is no list.
    """
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            found = None
    if not isinstance(found, (list, tuple)):
        raise DataError(
            f'The {where} has {name} that are no list: write ["Lima", "Lima, Peru"], and not {text[:40]!r}.'
        )
    return list(found)


def _all_lines(path: Path) -> Iterator[str]:
    """All lines, blank ones too: here they count."""
    try:
        for _, line in read_lines(path):
            yield line.rstrip("\r\n")
    except SourceError as error:
        raise DataError(str(error)) from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"The {where} is not valid JSON ({error}).") from error


def _of_kilt(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """A question of KILT as one of ours: its answers, and the pages that any of them comes from."""
    output = fields.get("output", [])
    if not isinstance(output, list) or not all(isinstance(own, dict) for own in output):
        raise DataError(f"The {where} has an 'output' that is no list of objects, as KILT has it.")
    provenance = [source for own in output for source in own.get("provenance", [])]
    pages = [str(source["wikipedia_id"]) for source in provenance if "wikipedia_id" in source]
    return {
        "id": fields.get("id"),
        "question": fields["input"],
        "answers": [own["answer"] for own in output if own.get("answer")],
        "passages": list(dict.fromkeys(pages)),
    }

"""Which format a file of questions has: by its ending, and where that says too little, by its first line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from ragweave.errors import DataError
from ragweave.evaluation.data.dataset import from_dataset
from ragweave.evaluation.data.json_lines import from_json_lines
from ragweave.evaluation.data.json_list import from_json_list
from ragweave.evaluation.data.lines import data_errors
from ragweave.evaluation.data.pairs import from_pairs
from ragweave.evaluation.data.parquet import from_parquet
from ragweave.evaluation.data.qa import from_qa, split_qa
from ragweave.evaluation.data.record import Record
from ragweave.evaluation.data.table import from_table
from ragweave.knowledge.ingest.loaders.decoding import read_pieces

_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "jsonl": from_json_lines,
    "dpr": from_json_list,
    "qa": from_qa,
    "csv": from_table,
    "parquet": from_parquet,
}

FORMATS = ("auto", "jsonl", "dpr", "qa", "ans", "csv", "parquet", "dataset")
"""What ``--format`` may be; KILT's fields are recognised wherever there are fields."""

_BY_ENDING = {".source": "ans", ".parquet": "parquet"}
_TABLES = frozenset({".csv", ".tsv"})
_WHOLE = frozenset({".jsonl", ".json", ".parquet", *_TABLES})
"""Endings of files that hold questions and answers, not questions alone."""
_PACKED = frozenset({".gz", ".bz2", ".xz", ".zip", ".tar", ".tgz"})


def records_of(source: str | Path, given: str, gold: str | Path | None) -> Iterator[Record]:
    """Read records.

    Args:
        source: A file, or a data set.
        given: One of `FORMATS`.
        gold: The file of answers, for the format ``"ans"``.

    Returns:
        The records, read as they are asked for. The format is found out at once.

    Raises:
        DataError: There is no such file, or its format is none or unclear.
    """
    kind = _format_of(source, given, gold)
    if gold is not None and kind != "ans":
        raise DataError(f"{source} is of the format {kind}, which holds its answers: leave --gold-file out.")
    if kind == "dataset":
        return from_dataset(str(source))
    path = Path(source)
    if kind != "ans":
        return _READERS[kind](path)
    if gold is None and path.suffix != ".source":
        raise DataError(f"{source} holds questions alone: name the file of their answers with --gold-file.")
    return from_pairs(path, path.with_suffix(".target") if gold is None else Path(gold))


def _format_of(source: str | Path, given: str, gold: str | Path | None) -> str:
    if given not in FORMATS:
        raise DataError(f"There is no format {given!r}; choose among {', '.join(FORMATS)}.")
    path = Path(source)
    if given == "dataset" or (given == "auto" and path.is_dir()):
        return "dataset"
    if not path.is_file():
        hint = ", or add --format dataset for one on the hub" if given == "auto" else ""
        raise DataError(f"There is no file {source}: check the path{hint}.")
    if given != "auto":
        return given
    ending = path.suffix.lower()
    if gold is not None and ending not in _WHOLE:
        return "ans"
    return _BY_ENDING.get(ending) or _by_content(path)


def _by_content(path: Path) -> str:
    """The format of a file whose ending leaves several."""
    ending = path.suffix.lower()
    if ending in _PACKED:
        raise DataError(f"{path} is packed: unpack it first.")
    line = _first_line(path)
    fields = split_qa(line)
    if fields is not None and fields[1].lstrip().startswith("["):
        return "qa"
    if ending in _TABLES:
        return "csv"
    if line.startswith("["):
        return "dpr"
    if ending == ".jsonl" or _is_object(line):
        return "jsonl"
    if line.startswith("{"):
        raise DataError(
            f"{path} is one JSON object over several lines: write a list of questions, or one object a line."
        )
    raise DataError(
        f"Neither the ending of {path} nor its first line says its format: name it with --format."
    )


def _first_line(path: Path) -> str:
    """The beginning of the first line that is not blank, as much of it as is read at a time."""
    with data_errors():
        for piece in read_pieces(path):
            if text := piece.lstrip():
                return text.partition("\n")[0].rstrip()
    return ""


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False

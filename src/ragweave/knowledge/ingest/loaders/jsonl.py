"""JSON lines: one document per line, with the keys ``text``, ``title`` and, perhaps, ``id``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.decoding import read_lines, whole_text
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document


def read_jsonl(file: SourceFile) -> Iterator[Document]:
    """Read a file of JSON lines; blank lines are passed over.

    Args:
        file: The file.

    Yields:
        A document per line.

    Raises:
        SourceError: The file cannot be read, or a line is not an object with a text.
    """
    for number, line in read_lines(file.path):
        if not line.strip():
            continue
        where = f"Line {number} of {file.path}"
        record = _of_kilt(_parse(line, where))
        document_id = record.get("id")
        yield Document(
            id=f"{file.name}:{number}" if document_id is None else _identifier(document_id, where),
            title=_string(record, "title", where).strip(),
            text=_string(record, "text", where),
            source=file.source,
            line=number,
        )


def _of_kilt(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a page in KILT's knowledge source as one of ours; any other as it is."""
    paragraphs = record["text"]
    if "wikipedia_id" not in record or not isinstance(paragraphs, list):
        return record
    return {
        "id": record["wikipedia_id"],
        "title": record.get("wikipedia_title"),
        "text": "\n\n".join(str(paragraph).strip() for paragraph in paragraphs),
    }


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} is not valid JSON ({error}): write one JSON object per line.") from error
    if not isinstance(record, dict) or "text" not in record:
        raise SourceError(f"{where} is not an object with the key 'text': give it 'text' and 'title'.")
    return record


def _string(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key, "")
    # A title may be null; a text may not, for then something else is wrong.
    if value is None and key == "title":
        return ""
    if not isinstance(value, str):
        raise SourceError(f"{where} has a '{key}' that is not a string: put it in quotation marks.")
    return whole_text(value, key, where)


def _identifier(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise SourceError(
            f"{where} has an 'id' that is neither a text nor a whole number: change or remove it."
        )
    return whole_text(str(value), "id", where)

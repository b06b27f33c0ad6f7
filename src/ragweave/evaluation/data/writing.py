"""Writing questions and what is right as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragweave.errors import DataError
from ragweave.knowledge.store import replace_text
from ragweave.types import Example


def write_examples(path: Path | str, examples: Iterable[Example]) -> None:
    """Write examples as JSON lines that `read_examples` reads, whole or not at all.

    Args:
        path: The file; one that is there is replaced.
        examples: The examples, whatever they were read from.

    Raises:
        DataError: Two have one id, a text cannot be written, or the file cannot.
    """
    text = "".join(f"{json.dumps(fields, ensure_ascii=False)}\n" for fields in _all_fields(examples))
    try:
        replace_text(Path(path), text)
    except UnicodeEncodeError as error:
        raise DataError(
            f"Half of a surrogate pair is in line {text.count(chr(10), 0, error.start) + 1} of what would be "
            f"written to {path}: write the whole character."
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}): check the folder and its permissions."
        ) from error


def _all_fields(examples: Iterable[Example]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise DataError(
                f"Two questions have the id '{example.id}': give every question an id of its own."
            )
        seen.add(example.id)
        yield _fields(example)


def _fields(example: Example) -> dict[str, Any]:
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
    return fields

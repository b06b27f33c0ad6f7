"""The configurations: the paper's table 6 at a small scale, end-to-end training, and closed book."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ragweave import SearchSettings
from ragweave.types import Formulation

_DENSE = SearchSettings("dense")


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way of training.

    Attributes:
        name: Its folder.
        label: What it is called in the table.
        formulation: RAG-Token or RAG-Sequence.
        search: How the passages are found.
        closed_book: Whether there are none.
        arguments: Arguments of `RagTrainingArguments`.
    """

    name: str
    label: str
    formulation: Formulation = "token"
    search: SearchSettings = _DENSE
    closed_book: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)


_FROZEN = {"freeze": "question-encoder"}
_REFRESHED = {"end_to_end": True, "refresh_steps": 23, "refresh_in_background": False}


def _table(formulation: Formulation, name: str) -> tuple[Configuration, ...]:
    return (
        Configuration(f"{formulation}-frozen", f"{name}, retriever frozen", formulation, arguments=_FROZEN),
        Configuration(
            f"{formulation}-bm25", f"{name}, BM25", formulation, SearchSettings("bm25"), arguments=_FROZEN
        ),
        Configuration(f"{formulation}-joint", f"{name}, trained jointly", formulation),
    )


CLOSED_BOOK = Configuration("closed-book", "closed book", closed_book=True, arguments=_FROZEN)
END_TO_END = Configuration("token-end-to-end", "RAG-Token, trained end to end", arguments=_REFRESHED)
CONFIGURATIONS = (
    *_table("token", "RAG-Token"),
    CLOSED_BOOK,
    END_TO_END,
    *_table("sequence", "RAG-Sequence"),
)
"""All rows in the order in which they are run."""

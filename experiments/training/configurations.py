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
_REFRESHED = {"end_to_end": True, "refresh_steps": 16, "refresh_in_background": False}


def _table(formulation: Formulation, name: str) -> tuple[Configuration, ...]:
    return (
        Configuration(f"{formulation}-frozen", f"{name}, retriever frozen", formulation, arguments=_FROZEN),
        Configuration(f"{formulation}-joint", f"{name}, trained jointly", formulation),
        *(
            Configuration(
                f"{formulation}-{kind}",
                f"{name}, {label}",
                formulation,
                SearchSettings(kind),
                arguments=_FROZEN,
            )
            for kind, label in (("bm25", "BM25"), ("hybrid", "hybrid"))
        ),
    )


CONFIGURATIONS = (
    *_table("token", "RAG-Token"),
    *_table("sequence", "RAG-Sequence"),
    Configuration("token-end-to-end", "RAG-Token, trained end to end", arguments=_REFRESHED),
    Configuration("closed-book", "closed book", closed_book=True, arguments=_FROZEN),
)
"""All rows in the order in which they are run."""

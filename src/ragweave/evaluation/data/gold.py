"""Whether a knowledge base holds the passages that are said to be gold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ragweave.errors import DataError
from ragweave.types import Example

if TYPE_CHECKING:
    from ragweave.knowledge.base import KnowledgeBase

_NAMED = 5


def lacking_gold(examples: Sequence[Example], base: KnowledgeBase) -> list[tuple[Example, str]]:
    """Find the gold passages that a knowledge base lacks, by their own ids and those of documents.

    Args:
        examples: The questions; all their ids are looked up together.
        base: The knowledge base.

    Returns:
        Questions with the id that is lacking, in the order of the data.
    """
    rows = base.rows_of({name for example in examples for name in example.gold_passages})
    return [(example, name) for example in examples for name in example.gold_passages if not rows[name]]


def check_gold(examples: Sequence[Example], base: KnowledgeBase) -> None:
    """Check that a knowledge base has every gold passage, or the document of that id.

    Raises:
        DataError: It lacks some; the message says how many, and which are the first.
    """
    lacking = lacking_gold(examples, base)
    if not lacking:
        return
    total = sum(len(example.gold_passages) for example in examples)
    named = ", ".join(f"'{name}' ({example.where or example.id})" for example, name in lacking[:_NAMED])
    others = f" and {len(lacking) - _NAMED} others" if len(lacking) > _NAMED else ""
    raise DataError(
        f"The knowledge base {base.path} lacks {len(lacking)} of the {total} gold passages: {named}{others}. Build "
        "it from the passages that the data was made for, or read the data without them (--columns passages=-)."
    )

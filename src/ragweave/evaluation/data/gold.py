"""Whether a knowledge base holds the passages that are said to be gold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ragweave.errors import DataError
from ragweave.evaluation.data.example import Example

if TYPE_CHECKING:
    from ragweave.knowledge.base import KnowledgeBase


def check_gold(examples: Sequence[Example], base: KnowledgeBase) -> None:
    """Check that a knowledge base has every gold passage, or the document of that id.

    Raises:
        DataError: It lacks some; the message names the first.
    """
    rows = base.rows_of({name for example in examples for name in example.gold_passages})
    lacking = [(example, name) for example in examples for name in example.gold_passages if not rows[name]]
    if lacking:
        example, name = lacking[0]
        others = f" (nor {len(lacking) - 1} others)" if len(lacking) > 1 else ""
        raise DataError(
            f"The {example.where or example.id} names the gold passage '{name}', which the knowledge base "
            f"{base.path} does not have{others}: build it from the passages that the data was made for, or leave "
            "gold passages out of the data."
        )

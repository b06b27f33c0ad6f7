"""Whether a request stays within the limits."""

from __future__ import annotations

from collections.abc import Sequence

from ragweave.errors import QuestionError
from ragweave.serving.errors import LimitError
from ragweave.serving.settings import Limits


def check_counts(limits: Limits, **counts: int | None) -> None:
    """Check numbers of a request against the limits of the same names.

    Raises:
        LimitError: One is larger.
    """
    for name, value in counts.items():
        most = getattr(limits, name)
        if value is not None and value > most:
            raise LimitError(f"{name} is {value}, but the limit {name} of this service is {most}.")


def check_questions(limits: Limits, questions: Sequence[str]) -> None:
    """Check the number of questions and the length of each.

    Raises:
        LimitError: There are too many, or one is too long.
        QuestionError: One has nothing but white space.
    """
    check_counts(limits, questions=len(questions))
    for question in questions:
        check_counts(limits, question_characters=len(question))
        if not question.strip():
            raise QuestionError("The question is empty; ask something.")

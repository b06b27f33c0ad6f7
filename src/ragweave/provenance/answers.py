"""Answers and where they came from: what a pipeline returns.

Notation used for tensor shapes: K passages per question, T answer tokens.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ragweave.types import ScoredPassage

Field = Literal["text", "title"]


@dataclass(frozen=True, slots=True)
class RetrievedPassage(ScoredPassage):
    """A passage that an answer was made from.

    Attributes:
        posterior: p(z | x, y), how much it counted for the answer; the posteriors of an answer sum to one.
    """

    posterior: float


@dataclass(frozen=True, slots=True)
class Support:
    """Words of a passage that an answer repeats.

    Attributes:
        passage: The passage's place in `Answer.passages`.
        field: Whether they stand in its text or in its title.
        start: Where they begin there, in characters.
        end: Where they end there.
    """

    passage: int
    field: Field
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class AnswerToken:
    """A token of an answer and where it came from.

    Attributes:
        text: What it adds to the answer; nothing, if it ends the answer or is a part of a character.
        posteriors: p(z | x, y_<=t), one for each of `Answer.passages` in their order (figure 2 of the paper);
            they sum to one.
        support: The longest run of the answer's words around this token that also stands in the passage with the
            largest posterior; ``None`` if the passage does not have the token's word.
    """

    text: str
    posteriors: tuple[float, ...]
    support: Support | None

    @property
    def passage(self) -> int | None:
        """The place in `Answer.passages` of the one that supports this token most; ``None`` without passages."""
        return max(range(len(self.posteriors)), key=self.posteriors.__getitem__, default=None)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and where it came from.

    Attributes:
        question: The question, as it was asked.
        answer: The answer.
        score: log p(y|x), natural logarithm.
        passages: What it was made from, by falling posterior.
        tokens: Its tokens in their order; their texts together are the answer.
    """

    question: str
    answer: str
    score: float
    passages: tuple[RetrievedPassage, ...]
    tokens: tuple[AnswerToken, ...] = ()

    def to_dict(self, *, tokens: bool = True) -> dict[str, Any]:
        """The answer as plain dictionaries and lists, ready for JSON.

        Args:
            tokens: Whether its tokens with their posteriors are in it.
        """
        content = asdict(self)
        content["passages"] = list(content["passages"])
        own = content.pop("tokens")
        if tokens:
            content["tokens"] = [{**token, "posteriors": list(token["posteriors"])} for token in own]
        return content

    def to_html(self) -> str:
        """The answer with its heat map and its passages as HTML that needs nothing else; texts are escaped."""
        from ragweave.provenance.html import to_html

        return to_html(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.to_html()

"""Answers and where they came from, as data and as self-contained HTML (figure 2 of the paper).

Notation used for tensor shapes: K passages per question, T answer tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cache, partial
from typing import Any, Literal

from ragweave.types import ScoredPassage, without_title

NO_ANSWER = "The documents do not say."
"""The answer of a pipeline whose confidence is below the threshold."""

Field = Literal["text", "title"]


@dataclass(frozen=True, slots=True)
class RetrievedPassage(ScoredPassage):
    """A passage that an answer was generated from.

    Attributes:
        posterior: p(z | x, y), how much it contributed to the answer; the posteriors of an answer sum to one.
        null: p(null | x, z), how likely it does not answer the question; ``None`` if the generator has no null
            answer (`RagConfig.null_answer`).
    """

    posterior: float
    null: float | None = None

    @classmethod
    def of(cls, passage: ScoredPassage, posterior: float, null: float | None = None) -> RetrievedPassage:
        """A passage with its posterior."""
        values = {field.name: getattr(passage, field.name) for field in fields(ScoredPassage)}
        return cls(**values, posterior=posterior, null=null)


@dataclass(frozen=True, slots=True)
class Support:
    """A run of words that an answer and a passage share.

    Attributes:
        passage: The position of the passage in `Answer.passages`.
        field: Whether the words are in its text or in its title.
        start: Where they begin, in characters.
        end: Where they end, in characters.
    """

    passage: int
    field: Field
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class AnswerToken:
    """A token of an answer and where it came from.

    Attributes:
        text: The text it adds to the answer; empty if it ends the answer or is part of a character.
        posteriors: p(z | x, y_<=t), one for each of `Answer.passages` (figure 2 of the paper); they sum to one.
        support: The longest run of the answer's words around this token that is also in the passage with the largest
            posterior; ``None`` if that passage does not contain the token's word.
    """

    text: str
    posteriors: tuple[float, ...]
    support: Support | None

    @property
    def passage(self) -> int | None:
        """Position in `Answer.passages` of the passage with the largest posterior; ``None`` without passages."""
        return max(range(len(self.posteriors)), key=self.posteriors.__getitem__, default=None)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and where it came from.

    Attributes:
        question: The question.
        answer: The answer; `NO_ANSWER` if ``answered`` is false.
        score: log p(y|x), natural logarithm.
        passages: The passages it was generated from, by decreasing posterior.
        tokens: Its tokens; their texts together are the answer. Empty if ``answered`` is false.
        null_score: log p(null|x), that the passages do not answer; ``None`` if the generator has no null answer.
        confidence: How likely the answer is right, in [0, 1]; see `ragweave.provenance.confidence`.
        answered: Whether the confidence reaches the threshold.
        best_guess: The answer that was withheld; ``None`` if ``answered`` is true.
    """

    question: str
    answer: str
    score: float
    passages: tuple[RetrievedPassage, ...]
    tokens: tuple[AnswerToken, ...] = ()
    null_score: float | None = None
    confidence: float | None = None
    answered: bool = True
    best_guess: str | None = None

    def to_dict(self, *, tokens: bool = True) -> dict[str, Any]:
        """The answer as plain dictionaries and lists, ready for JSON, with or without its tokens."""
        content = as_json(self)
        token_dicts = content.pop("tokens")
        return {**content, "tokens": token_dicts} if tokens else content

    def quote(self, position: int, characters: int = 240) -> str:
        """Quote up to ``characters`` of a passage around words that the answer shares, or its beginning."""
        supports = [token.support for token in self.tokens if token.support is not None]
        repeated = [one for one in supports if one.passage == position and one.field == "text"]
        spans = [(one.end - one.start, one.start) for one in repeated]
        text = self.passages[position].text
        begin = len(text) - len(without_title(self.passages[position]))
        first = max(begin, max(spans, default=(0, 0))[1] - characters // 3)
        if first > begin:
            first += text[first:].find(" ") + 1
        piece = text[first : first + characters]
        if first + characters < len(text):
            piece = f"{piece.rpartition(' ')[0] or piece} …"
        return ("… " if first > begin else "") + " ".join(piece.split())

    @property
    def judgement(self) -> str:
        """The confidence in words, and the answer that was withheld; empty without a confidence."""
        guess = f", best guess: {self.best_guess}" if self.best_guess else ""
        return "" if self.confidence is None else f"confidence {self.confidence:.2f}{guess}"

    def to_html(self) -> str:
        """The answer with its heat map and its passages as self-contained HTML; every text is escaped."""
        tokens = [token for token in self.tokens if token.text]
        return _template().render(answer=self, tokens=tokens, hint=partial(_hint, self.passages))

    def _repr_html_(self) -> str:
        """The HTML that Jupyter renders."""
        return self.to_html()


def as_json(record: Any) -> dict[str, Any]:
    """A dataclass as dictionaries and lists."""
    return asdict(
        record,
        dict_factory=lambda pairs: {
            name: list(value) if isinstance(value, tuple) else value for name, value in pairs
        },
    )


# People with any kind of colour vision can tell these apart (Okabe and Ito 2008).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
_FAINTEST, _STRONGEST = 0.06, 0.5  # opacities that keep text readable on light and dark pages


def colour_of(position: int) -> str:
    """The colour of a passage by its position, as ``#rrggbb``; the colours repeat from the ninth on."""
    return _COLOURS[position % len(_COLOURS)]


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # not needed to answer

    environment = Environment(
        loader=PackageLoader("ragweave.provenance"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"colour_of": colour_of, "shade": _shade, "without_title": without_title}
    return environment.get_template("answer.html.j2")


def _hint(passages: Iterable[RetrievedPassage], token: AnswerToken) -> str:
    """The posteriors of a token, largest first."""
    pairs = sorted(zip(token.posteriors, passages, strict=True), key=lambda pair: -pair[0])
    return "\n".join(f"{posterior:.3f}  {passage.title or passage.id}" for posterior, passage in pairs)


def _shade(position: int | None, posteriors: Iterable[float]) -> str:
    """The passage's colour as a background; a larger posterior makes it stronger."""
    if position is None:
        return ""
    red, green, blue = (int(colour_of(position)[start : start + 2], 16) for start in (1, 3, 5))
    opacity = _FAINTEST + (_STRONGEST - _FAINTEST) * max(posteriors)
    return f"background:rgba({red},{green},{blue},{opacity:.2f})"

"""An answer as HTML: its tokens in the colours of the passages that support them, and figure 2 of the paper.

What is made needs nothing from elsewhere and brings no script; every text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from ragweave.provenance.colours import colour_of

if TYPE_CHECKING:
    from ragweave.provenance.answers import Answer, AnswerToken, RetrievedPassage

_CELL = "padding:2px 6px;text-align:left;vertical-align:top"
_FAINTEST, _STRONGEST = 0.06, 0.5  # so that text on it can be read, whatever the page's own colours are


def to_html(answer: Answer) -> str:
    """Show an answer with its heat map and its passages."""
    shown = [token for token in answer.tokens if token.text]
    parts = [
        f'<p style="opacity:.7;margin:0">{escape(answer.question)}</p>',
        f'<p style="font-size:1.2em;margin:.3em 0">{_coloured(answer, shown)}</p>',
        _passages(answer.passages),
        _heat_map(answer.passages, shown),
    ]
    return f'<div class="ragweave-answer" style="font-family:sans-serif">{"".join(parts)}</div>'


def _coloured(answer: Answer, tokens: Iterable[AnswerToken]) -> str:
    """The answer's text, each token on the colour of its passage and with its posteriors as a hint."""
    if not answer.answer:
        return "<em>(no answer)</em>"
    spans = [
        f'<span style="{_shade(token.passage, max(token.posteriors, default=0.0))}" '
        f'title="{escape(_hint(answer.passages, token))}">{escape(token.text)}</span>'
        for token in tokens
    ]
    return "".join(spans) or escape(answer.answer)


def _hint(passages: Iterable[RetrievedPassage], token: AnswerToken) -> str:
    pairs = sorted(zip(token.posteriors, passages, strict=True), key=lambda pair: -pair[0])
    return "\n".join(f"{posterior:.3f}  {passage.title or passage.id}" for posterior, passage in pairs)


def _passages(passages: Iterable[RetrievedPassage]) -> str:
    rows = [
        f'<tr><td style="{_CELL};border-left:6px solid {colour_of(place)}">{place + 1}</td>'
        f'<td style="{_CELL}">{passage.prior:.3f}</td><td style="{_CELL}">{passage.posterior:.3f}</td>'
        f'<td style="{_CELL}"><details><summary>{escape(passage.title or passage.id)}</summary>'
        f"{escape(passage.text)}</details></td></tr>"
        for place, passage in enumerate(passages)
    ]
    heads = _heads(("", "p(z|x)", "p(z|x,y)", "passage"))
    return f'<table style="border-collapse:collapse">{heads}{"".join(rows)}</table>' if rows else ""


def _heat_map(passages: tuple[RetrievedPassage, ...], tokens: list[AnswerToken]) -> str:
    """p(z | x, y_<=t) with a row for each passage and a column for each token."""
    if not passages or not tokens:
        return ""
    rows = []
    for place, passage in enumerate(passages):
        cells = [
            f'<td style="{_CELL};{_shade(place, token.posteriors[place])}">{token.posteriors[place]:.2f}</td>'
            for token in tokens
        ]
        rows.append(
            f'<tr><td style="{_CELL}">{place + 1} {escape(passage.title or passage.id)}</td>{"".join(cells)}</tr>'
        )
    heads = _heads(("p(z|x, y≤t)", *(token.text.strip() for token in tokens)))
    return f'<table style="border-collapse:collapse;margin-top:.5em">{heads}{"".join(rows)}</table>'


def _heads(names: Iterable[str]) -> str:
    cells = [f'<th style="{_CELL}">{escape(name)}</th>' for name in names]
    return f"<tr>{''.join(cells)}</tr>"


def _shade(place: int | None, weight: float) -> str:
    if place is None:
        return ""
    red, green, blue = (int(colour_of(place)[at : at + 2], 16) for at in (1, 3, 5))
    return f"background:rgba({red},{green},{blue},{_FAINTEST + (_STRONGEST - _FAINTEST) * weight:.2f})"

"""An answer in a terminal: each token in the colour of its passage, and the heat map of figure 2 of the paper."""

from __future__ import annotations

from rich.style import Style
from rich.table import Table
from rich.text import Text

from ragweave.provenance.answers import Answer, colour_of

# Posteriors below this are shown without a background.
_FAINT = 0.15


def coloured_answer(answer: Answer) -> Text:
    """The answer, each token in the colour of the passage that supports it most."""
    text = Text(style="bold")
    for token in answer.tokens:
        text.append(token.text, _style(token.passage))
    return text if text.plain else Text(answer.answer or "(no answer)", style="bold")


def heat_map(answer: Answer, width: int) -> Table:
    """p(z | x, y_<=t): a row for each token, a column for each passage that fits into the width of the terminal."""
    tokens = [token for token in answer.tokens if token.text]
    longest = max((len(token.text) for token in tokens), default=0)
    columns = max(1, (width - max(longest, len("token")) - 2) // 7)  # a column is 5 digits and its padding
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("token", style="bold", overflow="fold")
    for i in range(len(answer.passages[:columns])):
        table.add_column(Text(f"[{i + 1}]", _style(i)), justify="right", no_wrap=True)
    for token in tokens:
        cells = [
            Text(f"{posterior:.3f}", _cell_style(i, posterior))
            for i, posterior in enumerate(token.posteriors[:columns])
        ]
        table.add_row(Text(token.text.strip(), _style(token.passage)), *cells)
    return table


def _style(passage: int | None) -> Style:
    return Style() if passage is None else Style(color=colour_of(passage))


def _cell_style(passage: int, posterior: float) -> Style:
    return Style(dim=True) if posterior < _FAINT else Style(color="black", bgcolor=colour_of(passage))

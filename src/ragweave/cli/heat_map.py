"""An answer for a terminal: its tokens in the colours of their passages, and figure 2 of the paper below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.style import Style
from rich.table import Table
from rich.text import Text

from ragweave.provenance.colours import colour_of

if TYPE_CHECKING:
    from rich.console import Console

    from ragweave.provenance.answers import Answer

# Less than this of a token came from passages that are left pale.
_PALE = 0.15


def coloured_answer(answer: Answer) -> Text:
    """The answer, each token in the colour of the passage that supports it most."""
    text = Text(style="bold")
    for token in answer.tokens:
        text.append(token.text, _style(token.passage))
    return text if text.plain else Text("(no answer)", style="bold")


def heat_map(answer: Answer, console: Console) -> Table:
    """p(z | x, y_<=t): a row for each token, a column for each passage, as many as the terminal is wide.

    Args:
        answer: The answer.
        console: Where it will be printed.
    """
    tokens = [token for token in answer.tokens if token.text]
    widest = max((len(token.text) for token in tokens), default=0)
    columns = max(1, (console.width - max(widest, len("token")) - 2) // 7)
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("token", style="bold", overflow="fold")
    for place, _ in enumerate(answer.passages[:columns]):
        table.add_column(Text(f"[{place + 1}]", _style(place)), justify="right", no_wrap=True)
    for token in tokens:
        cells = [
            Text(f"{posterior:.3f}", _cell_style(place, posterior))
            for place, posterior in enumerate(token.posteriors[:columns])
        ]
        table.add_row(Text(token.text.strip(), _style(token.passage)), *cells)
    return table


def _style(place: int | None) -> Style:
    return Style() if place is None else Style(color=colour_of(place))


def _cell_style(place: int, posterior: float) -> Style:
    return Style(dim=True) if posterior < _PALE else Style(color="black", bgcolor=colour_of(place))

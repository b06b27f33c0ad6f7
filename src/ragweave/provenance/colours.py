"""Colours of passages: those that people with any kind of colour vision tell apart (Okabe and Ito 2008)."""

from __future__ import annotations

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")


def colour_of(place: int) -> str:
    """The colour of the passage at a place, as ``#rrggbb``; from the ninth on they come again."""
    return _COLOURS[place % len(_COLOURS)]

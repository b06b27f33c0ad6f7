"""Texts that PostgreSQL can hold."""

from __future__ import annotations


def storable(text: str) -> str:
    """A text with the sign for an unknown character in place of NUL, which PostgreSQL refuses."""
    return text.replace("\0", "\ufffd")

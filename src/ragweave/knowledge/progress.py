"""How a long job tells how far it is, whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears about the stages of a job, one after the other."""

    def start(self, stage: str, total: int | None) -> None:
        """Begin a stage.

        Args:
            stage: What is done, such as ``"Reading"``.
            total: How many steps it has; ``None`` while nobody knows.
        """
        ...

    def advance(self, steps: int) -> None:
        """Go on by so many steps of the stage."""
        ...


class NoProgress:
    """Tells nobody."""

    def start(self, stage: str, total: int | None) -> None:
        """Do nothing."""

    def advance(self, steps: int) -> None:
        """Do nothing."""

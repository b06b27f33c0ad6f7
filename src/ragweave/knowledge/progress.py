"""Progress of a long job, independent of how it is shown."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a job, stage by stage."""

    def start(self, stage: str, total: int | None) -> None:
        """Start a stage.

        Args:
            stage: Its name, such as ``"Reading"``.
            total: Its number of steps; ``None`` if unknown.
        """
        ...

    def advance(self, steps: int) -> None:
        """Advance the current stage by a number of steps."""
        ...


class NoProgress:
    """Shows nothing."""

    def start(self, stage: str, total: int | None) -> None:
        """Do nothing."""

    def advance(self, steps: int) -> None:
        """Do nothing."""

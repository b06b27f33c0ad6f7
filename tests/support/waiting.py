"""Waiting for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = (
    120.0  # seconds; a busy machine may need many, and a test that passes waits no longer than it has to
)


def wait_until(condition: Callable[[], object], message: str = "it did not happen") -> None:
    """Wait until a condition holds; fail if that takes minutes."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.01)

"""Fixtures that several rooms of the tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' advice and progress bars, and keep torch to one thread."""
    import torch
    from transformers.utils import logging

    level, threads = logging.get_verbosity(), torch.get_num_threads()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    yield
    logging.set_verbosity(level)
    logging.enable_progress_bar()
    torch.set_num_threads(threads)

"""Fixtures that several rooms of the tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from tests.support.databases import Postgres

# No test asks the hub: where there is no network, each attempt would be given up after many seconds.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

with suppress(ImportError):  # the tests of ragweave.tf run without hypothesis
    from hypothesis import HealthCheck, settings

    # An example may take any time: the machine may be busy with something else.
    settings.register_profile(
        "ragweave", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("ragweave")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Let garbage collections skip what was imported and collected: it stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Iterator[Any]:
    """Escape lone surrogates: xdist sends reports, with all that was logged, as UTF-8, or ends the whole run."""
    return _encodable((yield))


def _encodable(report: Any) -> Any:
    if isinstance(report, str):
        return report.encode("utf-8", "backslashreplace").decode()
    if isinstance(report, dict):
        return {_encodable(key): _encodable(value) for key, value in report.items()}
    if isinstance(report, list | tuple):
        return type(report)(map(_encodable, report))
    return report


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Make fsync return at once: it takes milliseconds, and only a power cut could tell the difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # a descriptor that is not open is still an error
        yield


@pytest.fixture(scope="session")
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' advice and progress bars, and keep torch to one thread."""
    import torch
    import transformers
    from transformers.utils import logging

    if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 9):
        # RAG-Sequence reads the defaults from fields that RagConfig of these versions has lost.
        sequence = transformers.RagSequenceForGeneration
        sequence.generate = partialmethod(sequence.generate, num_beams=1, num_return_sequences=1)
    level, threads = logging.get_verbosity(), torch.get_num_threads()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    yield
    logging.set_verbosity(level)
    logging.enable_progress_bar()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_encoder_path(tmp_path_factory: pytest.TempPathFactory, quiet_transformers: None) -> Path:
    """The folder of a small encoder with random weights."""
    from tests.support.encoders import save_tiny_encoder

    return save_tiny_encoder(tmp_path_factory.mktemp("tiny-encoder"))


@pytest.fixture(scope="session")
def tiny_encoder(tiny_encoder_path: Path) -> TextEncoder:
    """The small encoder, loaded."""
    from tests.support.encoders import load_tiny_encoder

    return load_tiny_encoder(tiny_encoder_path)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL server that no test stops."""
    from tests.support.databases import Postgres

    server = Postgres(tmp_path_factory.mktemp("postgres") / "data")
    yield server
    server.close()

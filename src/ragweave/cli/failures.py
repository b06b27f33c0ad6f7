"""What the user sees when a command fails: one sentence that says what to do, and exit code 1."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ragweave.errors import RagweaveError


@contextmanager
def failures_as_sentences() -> Iterator[None]:
    """Turn an exception into a sentence on standard error and exit code 1.

    With the environment variable ``RAGWEAVE_DEBUG`` set, exceptions are let through with their traceback.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        # Knowledge bases appear whole or not at all, so this holds wherever the interrupt came.
        notes = getattr(interrupt, "__notes__", ["nothing half-written was left behind."])
        _fail(" ".join(["Interrupted;", *notes]))
    except Exception as error:
        # Usage errors and exits belong to the command line itself: they know their exit code.
        if (
            hasattr(error, "exit_code")
            or os.environ.get("RAGWEAVE_DEBUG")
            or isinstance(error, BrokenPipeError)
        ):
            raise
        _fail(" ".join([f"error: {_sentence(error)}", *getattr(error, "__notes__", [])]))


def _sentence(error: Exception) -> str:
    if isinstance(error, RagweaveError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" of {error.filename}" if error.filename else ""
        return f"The disk{where} is full: free some space and run the command again."
    return (
        f"{type(error).__name__}: {str(error).strip() or 'no message'}. This was not expected: run the "
        "command again with RAGWEAVE_DEBUG=1 to see where it comes from."
    )


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)

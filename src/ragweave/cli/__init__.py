"""The ``ragweave`` command. Commands are imported when they are needed.

``ragweave --help`` imports the modules of all commands. Therefore a command imports whatever needs torch,
transformers, numpy, faiss or datasets in its function, or uses the public names of ``ragweave``, which are imported
on first use. The docstring of the function is its help.
"""

from __future__ import annotations

import errno
import gc
import inspect
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import wraps
from importlib import import_module
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from ragweave import __version__
from ragweave.errors import RagweaveError

_HELP = """Retrieval-augmented generation over your own documents.

Examples:

  ragweave index notes/ --output kb

  ragweave ask --kb kb "What did we decide about the roof?"

To see the traceback of an error, set RAGWEAVE_DEBUG=1.
"""

_BUG_REPORTS = "see 'Report a problem' in CONTRIBUTING.md"
# In the order of ``--help``. Each is a module of this package with a function of the same name, or with an ``app``.
COMMANDS = (
    *(
        "demo",
        "index",
        "add",
        "sync",
        "delete",
        "compact",
        "warm",
        "reembed",
        "versions",
        "rollback",
        "export",
        "publish",
    ),
    *("ask", "chat", "search", "serve", "mcp", "eval", "train", "info", "bench"),
)


class LazyGroup(TyperGroup):
    """Imports a command when it is needed, and shows its errors as one sentence."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command; return ``None`` if the name is unknown."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"ragweave.cli.{cmd_name}")
        application = getattr(module, "app", None)
        if application is None:
            # Typer turns an application with a single function into a command.
            application = typer.Typer(rich_markup_mode="rich", add_completion=False)
            application.command(name=cmd_name)(getattr(module, cmd_name))
        command = typer.main.get_command(application)
        command.name = cmd_name
        for part in (command, *getattr(command, "commands", {}).values()):
            part.help = _paragraphs(part.help or "")
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with errors_as_sentences(), _visible_messages():
            return super().invoke(ctx)


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let typer see each field of a command's options dataclass as an option of the command."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            groups[parameter.name] = group
            types = get_type_hints(group, include_extras=True)
            for field in fields(group):
                option = parameter.replace(
                    name=field.name, default=field.default, kind=parameter.KEYWORD_ONLY
                )
                parameters.append(option.replace(annotation=types[field.name]))
        else:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _paragraphs(text: str) -> str:
    """Join the lines of each paragraph, so that any terminal wraps them well; indented lines stand alone."""
    paragraphs: list[str] = []
    joins = False
    for line in text.splitlines():
        indented = line.startswith(" ")
        if joins and line and not indented:
            paragraphs[-1] += f" {line}"
        elif line:
            paragraphs.append(line)
        joins = bool(line) and not indented
    return "\n\n".join(paragraphs)


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Turn an exception into a sentence on standard error and exit code 1.

    With the environment variable ``RAGWEAVE_DEBUG``, exceptions pass with their traceback.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        # Knowledge bases are written atomically, so this is true whenever the interrupt comes.
        notes = getattr(interrupt, "__notes__", ["nothing half-written was left behind."])
        _fail(" ".join(["Interrupted;", *notes]))
    except Exception as error:
        # Usage errors and exits set their exit codes themselves.
        if (
            hasattr(error, "exit_code")
            or os.environ.get("RAGWEAVE_DEBUG")
            or isinstance(error, BrokenPipeError)
        ):
            if isinstance(getattr(error, "message", None), str):  # a usage error, which quotes its arguments
                error.message = _visible(error.message)  # type: ignore[attr-defined]
            raise
        _fail(" ".join([f"error: {_sentence(error)}", *getattr(error, "__notes__", [])]))


def _sentence(error: Exception) -> str:
    if isinstance(error, RagweaveError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        disk = f"disk of {error.filename}" if error.filename else "disk"
        return f"The {disk} is full. Free some space and run the command again."
    name, message = type(error).__name__, (str(error).strip() or "no message").rstrip(".")
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":  # the latter is torch's, for GPUs
        return f"The memory is full ({message}). Close other programs, or use smaller batches or a smaller model."
    if isinstance(error, ImportError):
        return (
            f"A package is missing or has the wrong version ({message}). Run pip install --upgrade ragweave."
        )
    if isinstance(error, OSError) and error.filename:
        return (
            f"{error.strerror or name}: {error.filename}. Check that the path exists and that you may use it."
        )
    return (
        f"{name}: {message}. Known causes: a damaged file (check a knowledge base with 'ragweave info KB --verify', "
        "download a model again), and packages that do not fit together (check them with 'pip check'). If it is "
        f"neither, run the command again with RAGWEAVE_DEBUG=1 and report the traceback: {_BUG_REPORTS}."
    )


def _fail(message: str) -> None:
    typer.echo(_visible(message), err=True)
    raise typer.Exit(1)


def _visible(text: str) -> str:
    from ragweave.cli.console import visible  # loads rich, which --help does not need

    return visible(text)


@contextmanager
def _visible_messages() -> Iterator[None]:
    """Strip control characters from the warnings of libraries and from ragweave's log messages."""
    from ragweave.cli.console import LogHandler, show_warning

    logger, handler = logging.getLogger("ragweave"), LogHandler()
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            yield
    finally:
        logger.removeHandler(handler)


app = typer.Typer(cls=LazyGroup, help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ragweave {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Accept no options other than --version; the commands define theirs."""


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="ragweave")
    finally:
        gc.freeze()  # at exit, Python would collect garbage twice, which takes seconds with torch

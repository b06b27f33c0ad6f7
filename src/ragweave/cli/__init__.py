"""The command ``ragweave``: a group whose commands are imported when they are looked at.

A command's module imports Typer at its top and everything heavier inside of its function.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from ragweave.cli.failures import failures_as_sentences

_HELP = """Retrieval-augmented generation over your own documents.

Examples:

  ragweave index notes/ --output kb

  ragweave ask --kb kb "What did we decide about the roof?"

Set RAGWEAVE_DEBUG=1 to see where an error comes from.
"""


@dataclass(frozen=True, slots=True)
class _Command:
    """Where a command is: a function, or an application with commands below it, and its help as ``HELP``."""

    module: str
    function: str


COMMANDS = {
    "index": _Command("ragweave.cli.index", "index"),
    "add": _Command("ragweave.cli.add", "add"),
    "delete": _Command("ragweave.cli.delete", "delete"),
    "compact": _Command("ragweave.cli.compact", "compact"),
    "reembed": _Command("ragweave.cli.reembed", "reembed"),
    "versions": _Command("ragweave.cli.versions", "versions"),
    "rollback": _Command("ragweave.cli.rollback", "rollback"),
    "ask": _Command("ragweave.cli.ask", "ask"),
    "serve": _Command("ragweave.cli.serve", "serve"),
    "eval": _Command("ragweave.cli.eval", "app"),
    "train": _Command("ragweave.cli.train", "app"),
    "info": _Command("ragweave.cli.info", "info"),
    "bench": _Command("ragweave.cli.bench", "bench"),
}
"""The commands in the order in which ``--help`` lists them."""


class LazyGroup(TyperGroup):
    """Finds its commands by name, and ends those that fail with a sentence."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one command; ``None`` if there is none of this name."""
        command = COMMANDS.get(cmd_name)
        if command is None:
            return None
        module = import_module(command.module)
        found = getattr(module, command.function)
        if isinstance(found, typer.Typer):
            group = typer.main.get_command(found)
            group.help = _unwrapped(module.HELP)
            return group
        # Typer makes a command of an application that has a single function.
        single = typer.Typer(rich_markup_mode="rich", add_completion=False)
        single.command(name=cmd_name, help=_unwrapped(module.HELP))(found)
        return typer.main.get_command(single)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        with failures_as_sentences():
            return super().invoke(ctx)


def _unwrapped(text: str) -> str:
    """Join the lines of each paragraph, so that a terminal of any width wraps them well."""
    return "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in text.strip().split("\n\n"))


app = typer.Typer(cls=LazyGroup, help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """Take no options of its own; the commands have them."""


def main() -> None:
    """Run the command line."""
    app(prog_name="ragweave")

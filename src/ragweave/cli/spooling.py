"""Standard input as a source: written to a file first, so that it may be of any size."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ragweave.knowledge.source_records import SourceFile

StdinFormat = Annotated[
    Literal["txt", "md", "jsonl", "csv", "tsv", "html"],
    typer.Option("--stdin-format", help="What - reads from standard input."),
]
StdinName = Annotated[
    str,
    typer.Option("--stdin-name", metavar="NAME", help="What - is known by: the same name again replaces it."),
]


@contextmanager
def spooled(sources: Sequence[Path], ending: str, name: str) -> Iterator[list[Path | SourceFile]]:
    """Sources, with what was read from standard input in place of a dash.

    Args:
        sources: The sources.
        ending: The ending of files of its format.
        name: What it is known by.

    Yields:
        The sources; the file of standard input is gone afterwards.
    """
    from ragweave.knowledge.source_records import SourceFile

    if Path("-") not in sources:
        yield list(sources)
        return
    with TemporaryDirectory(prefix="ragweave-stdin-") as folder:
        path = Path(folder) / f"stdin.{ending}"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        own = SourceFile(path=path, name=name, known_as=name)
        yield [own if source == Path("-") else source for source in sources]

"""``ragweave info``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import ragweave
from ragweave.cli import options
from ragweave.cli.console import count_of, note_compaction, print_json, print_text, recall_of, stderr, stdout


def info(
    kb: options.KnowledgeBaseArgument,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte and compare it with its recorded hash.")
    ] = False,
    sources: Annotated[
        bool,
        typer.Option(
            "--sources", help="List the sources, and the files that the last change ignored or skipped."
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show the content and the settings of a knowledge base.

    Examples:
      ragweave info kb
      ragweave info kb --json
      ragweave info kb --verify
      ragweave info kb --sources
    """
    if verify:
        from ragweave.knowledge.layout import location_of, verify_folder

        location = location_of(kb)
        # The knowledge base is not opened first: opening stops at the first damaged file.
        files, size = (
            verify_folder(location)
            if isinstance(location, Path)
            else ragweave.KnowledgeBase.open(kb).verify()
        )
        stderr().print(f"Verified: {count_of(files, 'file')}, {size:,} bytes, all intact.", highlight=False)
    base = ragweave.KnowledgeBase.open(kb)
    content = _sources(base) if sources else base.info()
    if as_json:
        print_json(content)
        return
    if sources:
        print_text("\n".join(_lines(**content)))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in content.items():
        if value in (None, "", {}) and name != "recall":
            continue  # it does not apply
        shown = recall_of(value) if name == "recall" else str(value)
        shown = f"{value:.1%}" if name == "deleted" else shown
        table.add_row(name, f"{value:,}" if name.endswith("bytes") else shown)
    stdout().print(table, markup=False)
    note_compaction(base)


def _sources(base: ragweave.KnowledgeBase) -> dict[str, Any]:
    """The number of passages of each source, and which files the last change left out, with the reasons."""
    change = base.manifest.change
    return {"sources": base.sources(), "ignored": change.ignored, "skipped": list(change.skipped)}


def _lines(sources: dict[str, int], ignored: dict[str, str], skipped: list[str]) -> Iterator[str]:
    yield from (f"{source}: {count_of(count, 'passage')}" for source, count in sources.items())
    yield from (f"{source}: ignored ({reason})" for source, reason in ignored.items())
    yield from (f"skipped: {sentence}" for sentence in skipped)

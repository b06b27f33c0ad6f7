"""Jupyter notebooks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ragweave.knowledge.ingest.loaders.text import damaged_file, first_heading, read_text, whole_file
from ragweave.types import Document, SourceFile

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def read_notebook(file: SourceFile) -> Iterator[Document]:
    """Read the cells of a Jupyter notebook and the text that they print, titled by its first heading."""
    try:
        notebook = json.loads(read_text(file.path))
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        texts = [text.strip("\n") for cell in cells for text in _cell(cell)]
        notes = "\n\n".join(_lines(cell.get("source")) for cell in cells if cell["cell_type"] == "markdown")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged_file(file.path, error) from error
    text = "\n\n".join(filter(str.strip, texts))
    yield whole_file(file, first_heading(notes), text, markdown=True)


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = _lines(cell.get("source", cell.get("input")))
    # Fences keep comments in code from being read as headings.
    yield f"```\n{source}\n```" if cell["cell_type"] == "code" and source.strip() else source
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        text = _lines(output.get("text", data.get("text/plain", "")))
        if output.get("output_type") in ("error", "pyerr"):
            text = f"{output.get('ename', '')}: {output.get('evalue', '')}"
        if text.strip():
            yield f"```\n{_COLOURS.sub('', text)}\n```"


def _lines(text: Any) -> str:
    """A text, which notebooks store whole or as a list of lines."""
    return "".join(map(str, text)) if isinstance(text, list) else str(text or "")

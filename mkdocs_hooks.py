"""Writes the page of commands from the commands themselves, when mkdocs builds the site."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

EXAMPLES = re.compile(r"(?:^  \S.*\n+)+", re.M)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str | None:
    """Add the help of all commands to their page; mkdocs calls this for each page."""
    if page.file.src_uri != "commands.md":
        return None
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "commands.md"
        typer = [sys.executable, "-m", "typer", "ragweave.cli", "utils", "docs", "--name", "ragweave"]
        subprocess.run([*typer, "--output", str(output)], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        text = output.read_text("utf-8")
    _, commands = text.split("\n## ", 1)
    return markdown + EXAMPLES.sub(_as_code, f"\n## {commands}")


def _as_code(match: re.Match[str]) -> str:
    lines = [html.unescape(line.strip()) for line in match[0].splitlines() if line.strip()]
    return "```sh\n" + "\n".join(lines) + "\n```\n\n"

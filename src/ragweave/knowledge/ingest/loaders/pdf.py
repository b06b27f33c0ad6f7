"""PDF files, read by pdfium in a separate process, which is all that a file can crash or fill the memory of."""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.text import damaged_file, no_access, title_from_name, warn_loss
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document

_SCRIPT = Path(__file__).with_name("pdf_layout.py")
_SECONDS_AT_MOST = 600
_MEMORY_AT_MOST = 2 * 2**30

_HYPHEN = re.compile(r"(?P<head>[^\W\d_]+)[-\u2010\xad]\n(?P<tail>[^\W\d_]+)")
_WORD = re.compile(r"\w+(?:[-\u2010]\w+)*")
# What programs write if a document has no title: the name of its file, or a placeholder.
_NO_TITLE = re.compile(
    r".*\.(?:docx?|pptx?|xlsx?|od[pst]|rtf|txt|tex|dvi|ps|eps|pdf|indd|qxd|fm|html?)|untitled.*|document ?\d*|",
    re.IGNORECASE,
)


def read_pdf(file: SourceFile) -> Iterator[Document]:
    """Read the text of a PDF file, with form feeds between its pages.

    Raises:
        SourceError: The file is damaged, needs a password, has no text, or exceeds a limit of time or memory.
    """
    try:
        file.path.open("rb").close()
    except OSError as error:
        raise no_access(file.path, error) from error
    content = _reader().read(file.path)
    pages: list[str] = content["pages"]
    if not any(pages):
        raise SourceError(
            f"The file {file.path} has no text: its pages are images. Recognise their text (for instance with "
            "ocrmypdf) or leave it out."
        )
    if numbers := content["scanned"]:
        warn_loss(
            file.name, f"{_pages(numbers)} no text (scanned?). Recognise it (for instance with ocrmypdf)."
        )
    if numbers := content["damaged"]:
        warn_loss(file.name, f"{_pages(numbers)} errors and cannot be read.")
    if (share := content["unmapped"]) > 0.01:
        warn_loss(
            file.name, f"{share:.0%} of the characters have no Unicode value in their fonts and are left out."
        )
    title = re.sub(r"^Microsoft \w+ - ", "", content["title"])
    title = (content["heading"] if _NO_TITLE.fullmatch(title) else title) or title_from_name(file.name)
    yield Document(id=file.name, title=title, text=_join_hyphens("\f".join(pages)), source=file.source)


class _Reader:
    """A process that reads PDF files one after the other. The first file starts it."""

    def __init__(self) -> None:
        self._process: Any = None  # mypy takes the pipes of a Popen for missing
        self._owner = 0
        self._lock = Lock()

    def read(self, path: Path) -> dict[str, Any]:
        """Read a file; see `pdf_layout.read_pages`.

        Raises:
            SourceError: The file is damaged, needs a password, or exceeds a limit of time or memory.
        """
        with self._lock:
            process = self._running()
            timer = Timer(_SECONDS_AT_MOST, process.kill)
            timer.start()
            answer = ""
            try:
                process.stdin.write(json.dumps(str(path.absolute())) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except OSError:
                pass  # the process has ended
            finally:
                timer.cancel()
                if not answer.endswith("\n"):
                    self.close()  # after Ctrl-C too: the next file must not get the answer of this one
            if self._process is None:
                raise SourceError(
                    f"The file {path} cannot be read within {_SECONDS_AT_MOST} seconds and {_MEMORY_AT_MOST >> 20} "
                    "MiB of memory: it is damaged, or made to exhaust them. Save it again, or leave it out."
                )
        content: dict[str, Any] = json.loads(answer)
        if "error" in content:
            raise damaged_file(path, ValueError(content["error"]))
        return content

    def _running(self) -> Any:
        """The process, which is started if there is none, it has ended, or it belongs to the parent of a fork."""
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            # Without -P, the files beside the script would hide modules of the same name, such as html.
            command = [sys.executable, "-P", str(_SCRIPT), str(_MEMORY_AT_MOST)]
            pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, text=True)  # noqa: S603
            self._owner = os.getpid()
            atexit.register(self.close)
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None


@cache
def _reader() -> _Reader:
    return _Reader()


def _pages(numbers: list[int]) -> str:
    """The start of a sentence about pages: "page 2 has", "pages 2, 5-7 have"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    names = ", ".join("-".join(map(str, ends)) for ends in ranges)
    return f"pages {names} have" if len(numbers) > 1 else f"page {names} has"


def _join_hyphens(text: str) -> str:
    """Join words that are hyphenated at the ends of lines, and keep the hyphens of compounds."""
    words = set(_WORD.findall(text.lower())) if _HYPHEN.search(text) else set()

    def join(match: re.Match[str]) -> str:
        head, tail = match["head"], match["tail"]
        compound = tail[0].isupper() and not (head.isupper() and tail.isupper())
        known = f"{head}-{tail}".lower() in words and (head + tail).lower() not in words
        return f"{head}-{tail}" if compound or known else head + tail

    return _HYPHEN.sub(join, text).replace("\xad", "")

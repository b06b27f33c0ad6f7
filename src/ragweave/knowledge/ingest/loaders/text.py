"""Text and Markdown files, one document each, and the decoding of UTF-8 that all text formats share."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ragweave.errors import SourceError
from ragweave.knowledge.source_records import SourceFile
from ragweave.types import Document

PIECE = 2**20
"""How many bytes `read_pieces` reads at a time."""

_LINE_AT_MOST = 64 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(?P<title>.*?\S)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")


def read_plain(file: SourceFile) -> Iterator[Document]:
    """Read a text or Markdown file as one document, titled by its first Markdown heading or its file name.

    Raises:
        SourceError: The file cannot be read, or is not UTF-8 text.
    """
    text = read_text(file.path)
    title = first_heading(text) if file.path.suffix.lower() == ".md" else None
    yield Document(
        id=file.name, title=title or title_from_name(file.name), text=text, source=file.source, line=1
    )


def first_heading(markdown: str) -> str | None:
    """Find the first ``# heading`` outside code blocks; ``None`` if there is none."""
    in_code = False
    for line in markdown.split("\n"):
        if _FENCE.match(line):
            in_code = not in_code
        elif not in_code and (heading := _HEADING.match(line)):
            return heading["title"]
    return None


def title_from_name(name: str) -> str:
    """Make a title from the path of a file: ``plants/solar_power-plants.txt`` becomes ``Solar power plants``."""
    stem = PurePosixPath(name).stem
    # A hyphen between digits is part of a date or a number.
    words = " ".join(re.sub(r"_|(?<!\d)-|-(?!\d)", " ", stem).split())
    return (words[:1].upper() + words[1:]) or stem


def read_text(path: Path) -> str:
    r"""Read a whole UTF-8 file, without a byte order mark and with ``\n`` as line ends.

    Raises:
        SourceError: The file cannot be read, or is not UTF-8 text.
    """
    return "".join(line for _, line in read_lines(path)).replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read a UTF-8 file line by line.

    Yields:
        The line's number, counted from 1, and the line with its end.

    Raises:
        SourceError: The file cannot be read, is not UTF-8 text, or has an enormous line.
    """
    offset = 0
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(_LINE_AT_MOST + 1):
                number += 1
                if len(raw) > _LINE_AT_MOST:
                    raise SourceError(
                        f"Line {number} of {path} has more than {_LINE_AT_MOST // 2**20} MiB: break it into lines."
                    )
                yield number, _decode(path, raw, offset)
                offset += len(raw)
    except OSError as error:
        raise no_access(path, error) from error


def read_pieces(path: Path) -> Iterator[str]:
    """Read a UTF-8 file in pieces of about a million characters, for files whose one line may have gigabytes.

    Raises:
        SourceError: The file cannot be read, or is not UTF-8 text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        with path.open("rb") as file:
            while True:
                raw = file.read(PIECE)
                start = offset - len(decoder.getstate()[0])  # a character may be split between two pieces
                try:
                    piece = decoder.decode(raw, final=not raw)
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, error, start) from error
                # Several of the first pieces may be needed to hold the three bytes of a byte order mark.
                yield piece.removeprefix("\ufeff") if start == 0 else piece
                if not raw:
                    return
                offset += len(raw)
    except OSError as error:
        raise no_access(path, error) from error


def whole_text(value: str, name: str, where: str) -> str:
    r"""Return a text, or refuse half of a character, which JSON can spell (``\ud83d`` alone) and UTF-8 cannot.

    The error names the field ``name`` and the place ``where``, such as ``Line 3 of notes.jsonl``.

    Raises:
        SourceError: The text has half of a character.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SourceError(
            f"{where} has a '{name}' with half of a surrogate pair at character {error.start}: write the "
            "whole character."
        ) from error
    return value


def no_access(path: Path, error: OSError) -> SourceError:
    """The error for a file that the system does not let us read."""
    return SourceError(
        f"The file {path} cannot be read ({error.strerror}): check that it exists and its permissions."
    )


def damaged_file(path: Path, error: Exception) -> SourceError:
    """The error for a file that the library for its format cannot read."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return SourceError(
        f"The file {path} cannot be read ({reason}): it is damaged, protected by a password, or not of the format "
        "that its ending names. Save it again, or leave it out."
    )


def _decode(path: Path, raw: bytes, offset: int) -> str:
    """Decode one line, which starts ``offset`` bytes into the file."""
    mark = len(_BYTE_ORDER_MARK) if offset == 0 and raw.startswith(_BYTE_ORDER_MARK) else 0
    try:
        line = raw[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error, offset + mark) from error
    if "\0" in line:
        raise SourceError(
            f"The file {path} is not text: it has a zero byte at offset {offset + raw.index(0)}. "
            "Save it as UTF-8 text or leave it out."
        )
    return line


def _not_utf8(path: Path, error: UnicodeDecodeError, start: int) -> SourceError:
    """The error for bytes that start ``start`` bytes into the file."""
    return SourceError(
        f"The file {path} is not UTF-8 text: byte {error.object[error.start]:#04x} at offset {start + error.start} "
        "cannot be decoded. Save it as UTF-8 (for instance: iconv -f LATIN1 -t UTF-8 old > new) or leave it out."
    )

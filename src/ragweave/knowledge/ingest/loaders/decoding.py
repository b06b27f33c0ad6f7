"""Bytes to text: UTF-8 and nothing else, with the place of what is not."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from ragweave.errors import SourceError

_LINE_AT_MOST = 64 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

PIECE = 2**20
"""How many bytes `read_pieces` reads at a time."""


def read_text(path: Path) -> str:
    r"""Read a whole file of UTF-8, with or without a byte order mark.

    Args:
        path: The file.

    Returns:
        Its text, with line ends as ``\n``.

    Raises:
        SourceError: The file cannot be read, or is not UTF-8 text.
    """
    return "".join(line for _, line in read_lines(path)).replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read a file of UTF-8 line by line.

    Args:
        path: The file.

    Yields:
        The line's number, from 1 on, and the line with its end.

    Raises:
        SourceError: The file cannot be read, or is not UTF-8 text.
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
        raise _unreadable(path, error) from error


def read_pieces(path: Path) -> Iterator[str]:
    """Read a file of UTF-8 piece by piece, wherever its lines end; for files that may be one line of gigabytes.

    Args:
        path: The file.

    Yields:
        About a million characters at a time.

    Raises:
        SourceError: The file cannot be read, or is not UTF-8 text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        with path.open("rb") as file:
            while True:
                raw = file.read(PIECE)
                begun = offset - len(decoder.getstate()[0])  # a character may be cut in two
                try:
                    piece = decoder.decode(raw, final=not raw)
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, error, begun) from error
                # A byte order mark is the first character, which one of several pieces may hold.
                yield piece.removeprefix("\ufeff") if begun == 0 else piece
                if not raw:
                    return
                offset += len(raw)
    except OSError as error:
        raise _unreadable(path, error) from error


def whole_text(value: str, name: str, where: str) -> str:
    r"""Refuse half of a character, which JSON can spell (``\ud83d`` alone) and no file can hold.

    Args:
        value: The text.
        name: What it is, for the message.
        where: Where it stands, such as ``Line 3 of notes.jsonl``.

    Returns:
        The text.

    Raises:
        SourceError: It has half of a character.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SourceError(
            f"{where} has a '{name}' with half of a surrogate pair at character {error.start}: write the "
            "whole character."
        ) from error
    return value


def _decode(path: Path, raw: bytes, offset: int) -> str:
    """Decode one line, which begins ``offset`` bytes into the file."""
    mark = len(_BYTE_ORDER_MARK) if offset == 0 and raw.startswith(_BYTE_ORDER_MARK) else 0
    try:
        line = raw[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error, offset + mark) from error
    if "\0" in line:
        position = offset + raw.index(b"\0")
        raise SourceError(
            f"The file {path} is not text: there is a zero byte at offset {position}. "
            "Save it as UTF-8 text or leave it out."
        )
    return line


def _not_utf8(path: Path, error: UnicodeDecodeError, begun: int) -> SourceError:
    """The error of bytes that begin ``begun`` bytes into the file."""
    return SourceError(
        f"The file {path} is not UTF-8 text: byte {error.object[error.start]:#04x} at offset "
        f"{begun + error.start} cannot be decoded. Save it as UTF-8 "
        "(for instance: iconv -f LATIN1 -t UTF-8 old > new) or leave it out."
    )


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"The file {path} cannot be read ({error.strerror}): check that it exists and its permissions."
    )

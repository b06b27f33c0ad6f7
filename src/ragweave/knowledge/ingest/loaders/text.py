"""Text and Markdown files, one document each, and the decoding that all text formats share."""

from __future__ import annotations

import codecs
import re
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ragweave.errors import OmissionWarning, RagweaveError, SourceError, SourceWarning, too_many_files
from ragweave.knowledge.ingest.metadata import front_matter
from ragweave.types import Document, SourceFile

MARKDOWN = (".md", ".markdown")
PIECE = 2**20  # how many bytes `read_pieces` reads at a time

_LINE_AT_MOST = 64 * 2**20
_BYTES_AT_MOST = 128 * 2**20
# Repeated text compresses well, so a file may hold more text than bytes, but not this much.
_TEXT_AT_MOST = 16 * 2**20
_TEXT_TIMES = 200
_TITLE_CHARACTERS = 500
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""The encoding that the first bytes of a file declare."""

_DECLARED = re.compile(
    rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)|<meta[^>]{0,400}?charset\s*=[\s"']*+([\w.:-]+)""",
    re.IGNORECASE,
)
PROLOG = re.compile(
    r"\A\s*(?:(?:<\?.*?\?>|<!--.*?-->)\s*)*(?:<!DOCTYPE[^>\[]*(?:\[[^\]]*\]\s*)?>)?", re.DOTALL
)
"""The start of XML up to the end of the document type, which may define entities. Drop it once text is decoded."""

# What these names mean to browsers.
_SUPERSETS = {
    **dict.fromkeys(("iso-8859-1", "iso8859-1", "latin1", "latin-1", "us-ascii", "ascii"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("shift_jis", "shift-jis", "x-sjis"), "cp932"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987"), "cp949"),
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-8"),  # else the declaration could not be read
    "iso-8859-9": "cp1254",
}
_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")  # a last \r may be half of \r\n
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(?P<fields>.*?)\n\1[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE_FIELD = re.compile(r"^title[ \t]*[:=]([^\n>|]*)$", re.M | re.I)
_UNDERLINE = re.compile(r"^ {0,3}(?:=+|-+)[ \t]*$")
_NO_PARAGRAPH = re.compile(r"^(?: {4}|\t|[ \t]*(?:[-*+>|]|\d+[.)])\s)")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.+)")
_CLOSING = re.compile(r"(?:^|\s)#+$")  # number signs may close a heading, after a space
_FENCE = re.compile(r"^ {0,3}(```|~~~)")


class Page(NamedTuple):
    """A title, empty without one, and text whose headings have the marks of Markdown."""

    title: str
    text: str


def read_plain(file: SourceFile) -> Iterator[Document]:
    """Read a text or Markdown file as one document, titled by its front matter, first heading or file name."""
    # A log stays readable if one of its many writers used another encoding.
    text = read_text(file.path, lossy=file.path.suffix.lower() == ".log")
    markdown = file.path.suffix.lower() in MARKDOWN
    title, metadata = (first_heading(text), front_matter(text)) if markdown else (None, {})
    yield whole_file(file, title, text, line=1, markdown=markdown, metadata=metadata)


def whole_file(file: SourceFile, title: str | None, text: str, **place: Any) -> Document:
    """A file as one document, titled by its name if it has no title; ``place`` are further fields of `Document`."""
    return Document(file.name, title or title_from_name(file.name), text, file.source, **place)


def first_heading(markdown: str) -> str | None:
    """Find the title in the front matter, or the first heading outside code blocks; ``None`` without either."""
    if front_matter := _FRONT_MATTER.match(markdown):
        field = _TITLE_FIELD.search(front_matter["fields"])
        title = field[1].strip() if field else ""
        if len(title) > 1 and title[0] == title[-1] and title[0] in "\"'":
            title = title[1:-1]
        if title:
            return title
        markdown = markdown[front_matter.end() :]
    in_code, paragraph = False, list[str]()
    for line in markdown.split("\n"):
        if _FENCE.match(line):
            in_code, paragraph = not in_code, []
        elif in_code:
            continue
        elif (heading := _HEADING.match(line)) and (title := _CLOSING.sub("", heading[1].strip()).rstrip()):
            return title
        elif paragraph and _UNDERLINE.match(line):
            return " ".join(paragraph)
        elif not line.strip() or _NO_PARAGRAPH.match(line):
            paragraph = []
        else:
            paragraph.append(line.strip())
    return None


def title_from_name(name: str) -> str:
    """Make a title from the path of a file: ``plants/solar_power-plants.txt`` becomes ``Solar power plants``."""
    stem = PurePosixPath(name).stem
    # A hyphen between digits is part of a date or a number.
    words = " ".join(re.sub(r"_|(?<!\d)-|-(?!\d)", " ", stem).split())
    return (words[:1].upper() + words[1:]) or stem


def shortened(title: str) -> str:
    """A title cut to a length that leaves room in each passage."""
    return title if len(title) <= _TITLE_CHARACTERS else title[: _TITLE_CHARACTERS - 1] + "…"


def parts(text: str) -> Iterator[tuple[int, int]]:
    """Cut a long text where a paragraph, a line or a word ends: its sentences take a hundred times its memory."""
    start, size = 0, 2**19
    while len(text) - start > size:
        cuts = (text.rfind(mark, start, start + size) + len(mark) for mark in ("\n\n", "\n", " "))
        end = next((cut for cut in cuts if cut > start + size // 2), start + size)
        yield start, end
        start = end
    yield start, len(text)


def printable(name: str) -> str:
    """The name of a file, or a text with one, with escapes where it is not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def read_text(path: Path, *, lossy: bool = False) -> str:
    r"""Read a whole file of text, with ``\n`` as line ends; ``lossy`` replaces what is not UTF-8, and warns."""
    text = "".join(read_pieces(path, lossy=lossy))
    if lossy and (lost := text.count("\ufffd")):
        warn_loss(path.name, f"{lost} bytes are not UTF-8, replaced by \ufffd.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield the lines of a text file, with their numbers, from 1, and their ends ``\n``, ``\r\n`` or ``\r``."""
    number, line, held_back = 1, list[str](), ""
    for piece in read_pieces(path):
        piece, start = held_back + piece, 0
        for match in _LINE_END.finditer(piece):
            line.append(piece[start : match.end()])
            _check_length(path, number, line)
            yield number, "".join(line)
            number, line, start = number + 1, [], match.end()
        held_back = "\r" if piece.endswith("\r") else ""
        line.append(piece[start : len(piece) - len(held_back)])
        _check_length(path, number, line)
    if rest := "".join(line) + held_back:
        yield number, rest


def _check_length(path: Path, number: int, line: list[str]) -> None:
    if sum(map(len, line)) > _LINE_AT_MOST:
        raise SourceError(
            f"Line {number} of {path} has more than {_LINE_AT_MOST // 2**20} MiB: break it into lines."
        )


def read_pieces(path: Path, *, lossy: bool = False) -> Iterator[str]:
    """Read a file of text in pieces of about a million characters, for files with lines of gigabytes."""
    try:
        with path.open("rb") as file:
            start = file.read(3)
            mark = _mark_of(start)
            offset = file.seek(len(mark))
            encoding = BYTE_ORDER_MARKS.get(mark, "utf-8")
            decoder = codecs.getincrementaldecoder(encoding)("replace" if lossy else "strict")
            while True:
                raw = file.read(PIECE)
                begin = offset - len(decoder.getstate()[0])  # a character may be split between two pieces
                try:
                    piece = decoder.decode(raw, final=not raw)
                except UnicodeDecodeError as error:
                    raise _not_text(path, error, begin) from error
                if "\0" in piece:
                    begin += len(piece[: piece.index("\0")].encode(encoding, "surrogatepass"))
                    raise SourceError(
                        f"The file {path} is not text: it has a zero byte at offset {begin}. Save it as UTF-8 text "
                        "or leave it out."
                    )
                yield piece
                if not raw:
                    return
                offset += len(raw)
    except OSError as error:
        raise no_access(path, error) from error


def _mark_of(start: bytes) -> bytes:
    """The byte order mark at the start of a file; empty without one."""
    return next((mark for mark in BYTE_ORDER_MARKS if start.startswith(mark)), b"")


def decode_declared(data: bytes, charset: str = "") -> tuple[str, str, int]:
    """Decode text that may declare its encoding, as web pages and XML do; ``charset`` is declared elsewhere.

    Returns the text, its encoding, and the number of bytes that were replaced because they are invalid in it.
    """
    mark = _mark_of(data)
    declared = _DECLARED.search(data[:4096])
    name_within = (declared[1] or declared[2]).decode("ascii") if declared else None
    for name in (BYTE_ORDER_MARKS.get(mark), charset, name_within):
        encoding = _SUPERSETS.get((name or "").lower(), name)
        try:
            if encoding:
                text = data[len(mark) :].decode(encoding, "replace")
                return text, encoding, _lost(data, text)
        except (LookupError, UnicodeError):
            continue  # there is no such encoding
    text = data.decode("utf-8", "replace")
    lost = _lost(data, text)
    # Without a declaration, a page with more damage than letters beyond ASCII is not UTF-8.
    if 2 * lost > len(text) - len(text.encode("ascii", "ignore")):
        text = data.decode("cp1252", "replace")
        return text, "cp1252", _lost(b"", text)
    return text, "utf-8", lost


def _lost(data: bytes, text: str) -> int:
    return max(0, text.count("\ufffd") - data.count("\ufffd".encode()))


def is_text(path: Path) -> bool:
    """Whether the start of a file is text in UTF-8 or UTF-16, without control characters."""
    try:
        with path.open("rb") as file:
            start = file.read(8192)
    except OSError:
        return True  # its loader reports what is wrong
    mark = _mark_of(start)
    decoder = codecs.getincrementaldecoder(BYTE_ORDER_MARKS.get(mark, "utf-8"))()
    try:
        text = decoder.decode(start[len(mark) :])
    except UnicodeDecodeError:
        return False
    return not any(unicodedata.category(character) == "Cc" for character in set(text) - set("\t\n\r\f\v\x1b"))


def read_bytes(path: Path) -> bytes:
    """Read a file whole, unless it is enormous."""
    try:
        if path.stat().st_size > _BYTES_AT_MOST:
            raise SourceError(f"The file {path} has more than {_BYTES_AT_MOST // 2**20} MiB: break it up.")
        return path.read_bytes()
    except OSError as error:
        raise no_access(path, error) from error


class TextBudget:
    """Limits how much text a file yields, since a few kilobytes can expand to gigabytes."""

    def __init__(self, path: Path) -> None:
        self._path, self._left = path, _TEXT_AT_MOST + _TEXT_TIMES * path.stat().st_size

    def spend(self, characters: int) -> None:
        """Count characters; raises `SourceError` when there are too many."""
        self._left -= characters
        if self._left < 0:
            raise SourceError(
                f"The file {self._path} expands to more than {_TEXT_TIMES} times its size, because it repeats its "
                "text: leave it out."
            )


def warn_loss(name: str, loss: str) -> None:
    """Warn of a part of a file that is lost while the rest of its text is kept."""
    warnings.warn(f"{name}: {loss}", SourceWarning, stacklevel=3)


def warn_omission(name: str, omission: str) -> None:
    """Warn of a part of a file that is left out because it is not text."""
    warnings.warn(f"{name}: {omission}", OmissionWarning, stacklevel=3)


def whole_text(value: str, name: str, where: str) -> str:
    r"""Return a text, or refuse half of a character, which JSON can express (``\ud83d`` alone) and UTF-8 cannot.

    The error names the field ``name`` and the position ``where``, such as ``Line 3 of notes.jsonl``.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SourceError(
            f"{where} has a '{name}' with half of a surrogate pair at character {error.start}: write the "
            "whole character."
        ) from error
    return value


def no_access(path: Path, error: OSError) -> RagweaveError:
    """The error for a file without read access."""
    return too_many_files(error) or SourceError(
        f"The file {path} cannot be read ({error.strerror}): check that it exists and its permissions."
    )


def damaged_file(path: Path, error: Exception | str) -> SourceError:
    """The error for a file that the library for its format cannot read."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return SourceError(
        f"The file {path} cannot be read ({reason}): it is damaged, protected by a password, or not of the format "
        "that its ending names. Save it again, or leave it out."
    )


def _not_text(path: Path, error: UnicodeDecodeError, start: int) -> SourceError:
    """The error for bytes that start ``start`` bytes into the file."""
    name = error.encoding.upper()
    return SourceError(
        f"The file {path} is not {name} text: byte {error.object[error.start]:#04x} at offset {start + error.start} "
        "cannot be decoded. Save it as UTF-8 (for instance: iconv -f LATIN1 -t UTF-8 old > new) or leave it out."
    )

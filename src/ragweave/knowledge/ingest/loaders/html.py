"""Web pages as plain text: blocks on separate lines, headings and list items with marks, rows of cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from lxml import etree

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.text import (
    PROLOG,
    Page,
    decode_declared,
    read_bytes,
    warn_loss,
    whole_file,
)
from ragweave.types import Document, SourceFile

_HEADINGS = {f"h{level}": f"{'#' * level} " for level in range(1, 7)}
_LINES = frozenset("br dd dt li option row summary tbody td tfoot th thead tr".split())  # noqa: SIM905
_BLOCKS = frozenset(
    """address article aside audio blockquote body button canvas caption center datalist details dialog dir div dl
    fieldset figcaption figure footer form frameset header hgroup hr html input label legend main menu meter
    object ol optgroup output p pre progress search section select table textarea title ul
    video""".split()  # noqa: SIM905
)
_WITHOUT_TEXT = frozenset(
    "annotation annotation-xml iframe nav noembed noframes noscript rp script style template".split()  # noqa: SIM905
)
_LISTS = ("ul", "ol", "menu", "dir")
_SHOWN_INPUTS = ("text", "button", "submit", "reset")
# Parts of formulas and drawings, which browsers separate, and pronunciations of characters.
_BEFORE = dict.fromkeys("math mfrac mi mn mo mroot mrow msqrt msub msubsup msup mtd mtext svg".split(), " ")  # noqa: SIM905
_BEFORE |= {"q": '"', "rt": "("}
_AFTER = {"q": '"', "rt": ")", "text": " "}
_INVISIBLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_BINARY = (b"%PDF", b"PK\x03\x04", b"\x89PNG", b"GIF8", b"\xff\xd8\xff")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_SAMPLE = 2**16
_DEEPEST_TABLE = 8
_LONG_CELL = 1000


def read_html(file: SourceFile) -> Iterator[Document]:
    """Read a web page, titled by its ``title`` or first heading."""
    data = read_bytes(file.path)
    text, encoding, lost = decode_declared(data)
    controls = len(_CONTROL.findall(text[:_SAMPLE]))
    if data.startswith(_BINARY) or controls > len(text[:_SAMPLE]) // 50:
        raise SourceError(
            f"The file {file.path} cannot be read: it is not a web page but binary data. Leave "
            "it out, or give it the ending of its format."
        )
    if lost:
        warn_loss(file.name, f"it has bytes that are not {encoding} ({lost}), replaced by \ufffd.")
    page = parse_page(text)
    yield whole_file(file, page.title, page.text, markdown=True)


def parse_page(html: str) -> Page:
    """Render a page as text. Damaged markup is read as browsers read it, in one pass."""
    if html.startswith("<?xml"):
        html = _escape_sections(html)
    html = PROLOG.sub("", html)
    renderer = _Renderer()
    # The renderer receives events: no tree is built, whose depth or size could exhaust memory.
    parser = etree.HTMLParser(target=renderer, encoding="utf-8")
    parser.feed(html.replace("\0", "\ufffd").encode("utf-8", "replace") or b" ")
    return parser.close()


def _escape_sections(xhtml: str) -> str:
    """Escape the CDATA sections of XHTML, which HTML reads as comments."""
    first, *rest = xhtml.split("<![CDATA[")
    sections = (part.partition("]]>") for part in rest)
    return first + "".join((escape(text) if end else text) + after for text, end, after in sections)


def table_row(cells: Sequence[Sequence[str]]) -> list[str]:
    """Join the cells of a row, each a list of lines, to one line; cells that lay out a page keep their lines."""
    lays_out = any(sum(map(len, cell)) > _LONG_CELL for cell in cells)
    if len(cells) == 1 or lays_out:
        return [line for cell in cells for line in (*cell, "")]
    texts = [" ".join(" ".join(cell).split()) for cell in cells]
    return [f"| {' | '.join(texts)} |"] if any(texts) else []


class _Renderer:
    """Receives the parser's events and writes lines."""

    def __init__(self) -> None:
        self.title = self._heading = ""
        self._lines: list[str] = []
        self._text: list[str] = []  # of the line that is not complete
        self._mark = ""  # of a heading or list item, before the line that comes next
        self._hidden = 0  # open elements, counted from the hidden one
        self._open: Counter[str] = Counter()
        self._raised = False  # at the start of a superscript
        self._link_end = 0
        self._lists: list[int | None] = []  # the number of the last item; None in lists without numbers
        self._rows: list[list[list[str]]] = []  # the cells of the current row of each open table
        self._outside: list[list[str]] = []  # the lines before each open cell

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        tag = tag.rpartition(":")[2].lower()
        if self._hidden or _is_hidden(tag, attributes):
            self._hidden += 1
            return
        if _is_block(tag):
            self._break(blank=tag not in _LINES)
        self._open[tag] += 1
        self._raised = self._raised or tag == "sup"
        self._mark = _HEADINGS.get(tag, self._mark)
        self._text += _BEFORE.get(tag, "")
        if tag == "img":
            self._text.append(f" {attributes.get('alt', '')} ")
        elif tag == "input" and attributes.get("type", "text").lower() in _SHOWN_INPUTS:
            self._text.append(attributes.get("value", ""))
        elif tag == "a" and self._link_end == len(self._text) > 0:  # a menu, whose entries CSS separates
            self._text.append(" ")
        elif tag in _LISTS:
            first = attributes.get("start", "1") if tag == "ol" else ""
            self._lists.append(int(first) - 1 if re.fullmatch(r"-?\d{1,9}", first) else 0 if first else None)
        elif tag == "li":
            self._start_item()
        elif tag == "table":
            self._rows.append([])
        elif tag == "tr":
            self._end_row()
        elif tag in ("td", "th"):
            self._outside.append(self._lines)
            if self._rows and len(self._outside) <= _DEEPEST_TABLE:
                self._lines = []

    def end(self, tag: str) -> None:
        if self._hidden:
            self._hidden -= 1
            return
        tag = tag.rpartition(":")[2].lower()
        self._text += _AFTER.get(tag, "")
        if tag == "title" and not self._open["svg"] and not self.title:
            self.title = " ".join("".join(self._text).split())
            self._text.clear()
        elif _is_block(tag):
            self._break(blank=tag not in _LINES)
        self._open[tag] -= 1
        if tag == "a":
            self._link_end = len(self._text)
        elif tag == "sup":
            self._raised = False
        elif tag in _HEADINGS or tag == "li":
            line = next((line for line in reversed(self._lines) if line), "")
            if tag in _HEADINGS and not self._heading and line.startswith(_HEADINGS[tag]):
                self._heading = line
            self._mark = ""
        elif tag in _LISTS:
            self._lists.pop()
        elif tag == "tr":
            self._end_row()
        elif tag == "table":
            self._end_row()
            self._rows.pop()
            self._break(blank=True)
        elif tag in ("td", "th") and (outside := self._outside.pop()) is not self._lines:
            self._rows[-1].append(self._lines)
            self._lines = outside

    def data(self, text: str) -> None:
        if self._hidden or text == "¶":  # the sign of links to a heading
            return
        if self._raised and text.strip():
            # 10 to the 6th is not 106, and the number of a footnote is not part of the word.
            before = self._text[-1] if self._text else ""
            if text.lstrip("-\u2212")[:1].isdigit() and before[-1:].isalnum():
                text = f"^{text}"
            self._raised = False
        self._text.append(text)

    def close(self) -> Page:
        self._break(blank=True)
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip("\n")
        return Page(self.title or self._heading.lstrip("# "), text)

    def _break(self, *, blank: bool) -> None:
        """End the line, with a blank line after it if ``blank``."""
        text = "".join(self._text).replace("\xad", "")
        self._text.clear()
        self._raised, self._link_end = False, 0
        kept = self._open["pre"] or self._open["textarea"]
        text = text.strip("\n").rstrip() if kept else " ".join(text.split())
        if text.strip():
            # Markdown keeps lines between fences unchanged.
            self._lines.append(
                self._mark + (f"```\n{text}\n```" if self._open["pre"] and "\n" in text else text)
            )
            self._mark = ""
        if blank and self._lines and self._lines[-1]:
            self._lines.append("")

    def _start_item(self) -> None:
        mark = "- "
        if self._lists and (number := self._lists[-1]) is not None:
            self._lists[-1] = number + 1
            mark = f"{number + 1}. "
        self._mark = "  " * min(len(self._lists) - 1, 10) + mark

    def _end_row(self) -> None:
        if self._rows and self._rows[-1]:
            self._lines += table_row(self._rows[-1])
            self._rows[-1].clear()


def _is_block(tag: str) -> bool:
    return tag in _BLOCKS or tag in _LINES or tag in _HEADINGS or "-" in tag


def _is_hidden(tag: str, attributes: Mapping[str, str]) -> bool:
    if tag in _WITHOUT_TEXT:
        return True
    if tag in ("html", "body"):  # scripts show them later
        return False
    return (
        attributes.get("hidden", "until-found") != "until-found"
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") == "navigation"
        or _INVISIBLE.search(attributes.get("style", "")) is not None
    )

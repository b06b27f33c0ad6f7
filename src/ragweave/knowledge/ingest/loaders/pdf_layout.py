"""Text of PDF pages in reading order, from the characters that pdfium finds and their positions.

pdfium returns characters in the order in which a page draws them. That is the reading order more often than any order
computed from positions. Positions decide only where words, cells, lines and paragraphs end, and the order within
lines of Hebrew and Arabic.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from ctypes import c_double
from itertools import groupby, pairwise
from statistics import median
from typing import Any, NamedTuple

import pypdfium2.raw as pdfium
from pypdfium2 import PdfDocument, PdfiumError

# One page of a book has about 3,000 characters.
_PAGE_AT_MOST, _FILE_AT_MOST = 1_000_000, 20_000_000
_ANNOTATIONS_WITH_TEXT = (pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT, pdfium.FPDF_ANNOT_STAMP)
# Radicals that stand for CJK characters, ligatures, and the shapes of Hebrew and Arabic letters.
_PRESENTATION = re.compile("[\u2e80-\u2fdf\uf900-\ufdff\ufe80-\ufefc]+")
_RTL_FORMS = frozenset(unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB1D, 0xFEFD))
_ACCENTS = dict(
    zip(
        "\u00b4`\u00a8^\u02c6~\u02dc\u00af\u02d8\u02d9\u02da\u02dd\u02c7\u00b8\u02db",
        "\u0301\u0300\u0308\u0302\u0302\u0303\u0303\u0304\u0306\u0307\u030a\u030b\u030c\u0327\u0328",
        strict=True,
    )
)
_ENDS = (*".,:;!?،؛؟",)
_MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")
_KINDS = {"L": "L", "R": "R", "AL": "R", "EN": "N", "AN": "N", "CS": "S", "ES": "S"}
_LTR_RUN = re.compile("L(?:[LNS ]*[LN])?|N(?:S?N)*")
_RTL_RUN = re.compile("R(?:[RNS ]*R)?")
_MARKER = re.compile(r"[•‣▪◦*·–—-]|\(?\w{1,3}[.)]|\[\d+\]")  # noqa: RUF001
_LEADERS = re.compile(r"(?:\s?[.…_]){5,}")
_INVISIBLE = "\xad\u200c\u200d"  # soft hyphen, and the joiners of Persian and Indic scripts
# Gaps, in font sizes, from which words and cells count as separate.
_SPACE, _CELL = 0.2, 0.9


class Glyph(NamedTuple):
    """A character and its position along and across the direction of writing."""

    text: str
    origin: float  # where it is drawn along the line; characters of one ligature have the same
    start: float  # where its box starts there
    end: float  # where its box ends there
    base: float
    size: float
    turn: int  # the direction of writing, in quarters of a circle
    # -1 or 1 where pdfium has a space between it and the glyph before it, which is on its left or right
    spaced: int = 0

    def gap(self, other: Glyph) -> float:
        """The space between two glyphs of a line, in font sizes."""
        return max(other.start - self.end, self.start - other.end) / max(self.size, other.size)

    def on_line_of(self, other: Glyph) -> bool:
        """Whether two glyphs have the same baseline, or one is a superscript or subscript."""
        near = abs(self.base - other.base) < 0.7 * min(self.size, other.size)
        return near and self.turn == other.turn


Row = list[list[Glyph]]  # pieces of text on one baseline, with wide gaps between them


def read_pages(path: str) -> dict[str, Any]:
    """Read a file.

    Returns:
        Its ``pages``, the ``title`` of its metadata, the ``heading`` of its first page, the numbers of ``scanned``
        pages, which have content but no text, and of ``damaged`` pages, and the share of ``unmapped`` characters.
    """
    pages: list[str] = []
    scanned, damaged, counts = [], [], [0, 0]
    first_rows: list[Row] = []
    sizes: list[float] = []
    with PdfDocument(path) as document:
        if document.get_formtype() != pdfium.FORMTYPE_NONE:
            document.init_forms()  # draws the values of fields that the file does not draw itself
        for number in range(1, len(document) + 1):
            rows: list[Row] = []
            is_scan = False
            try:
                rows, is_scan = _read_page(document, number - 1, counts)
            except PdfiumError:
                damaged.append(number)
            if is_scan:
                scanned.append(number)
            pages.append(page_text(rows) if rows else "")
            first_rows = first_rows or rows
            if number <= 5:
                sizes.extend(glyph.size for row in rows for piece in row for glyph in piece)
        title = " ".join(document.get_metadata_value("Title").split())
    return {
        "pages": pages,
        "title": title,
        "heading": page_heading(first_rows, median(sizes or [1])),
        "scanned": scanned,
        "damaged": damaged,
        "unmapped": counts[1] / max(1, counts[0]),
    }


def _read_page(document: PdfDocument, index: int, counts: list[int]) -> tuple[list[Row], bool]:
    """The rows of a page, and whether it shows something but has no text; adds to the counts of characters."""
    page = document[index]
    text_page = page.get_textpage()
    glyphs = _glyphs(text_page, 0, counts)
    has_text, ticks = _annotations(document, page)
    if has_text:
        first = text_page.count_chars()
        pdfium.FPDFPage_Flatten(page, pdfium.FLAT_NORMALDISPLAY)
        page.close()
        page = document[index]
        ticks += _glyphs(page.get_textpage(), first, counts)
    images = page.get_objects([pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3)
    # Letters may also be drawn as lines; a few lines are decoration on an empty page.
    shows_text = next(images, None) is not None or pdfium.FPDFPage_CountObjects(page) > 100
    rows = page_rows(glyphs, ticks)
    page.close()
    return rows, shows_text and not rows


def _annotations(document: PdfDocument, page: Any) -> tuple[bool, list[Glyph]]:
    """Whether a page has form fields or notes with text, and a glyph for each ticked box."""
    has_text, ticks, box = False, [], pdfium.FS_RECTF()
    for number in range(pdfium.FPDFPage_GetAnnotCount(page)):
        annotation = pdfium.FPDFPage_GetAnnot(page, number)
        has_text |= pdfium.FPDFAnnot_GetSubtype(annotation) in _ANNOTATIONS_WITH_TEXT
        if document.formenv and pdfium.FPDFAnnot_IsChecked(document.formenv, annotation):
            pdfium.FPDFAnnot_GetRect(annotation, box)
            size = box.top - box.bottom
            ticks.append(Glyph("[x]", box.left, box.left, box.right, box.bottom + size / 4, size, 0))
        pdfium.FPDFPage_CloseAnnot(annotation)
    return has_text, ticks


def _glyphs(text_page: Any, first: int, counts: list[int]) -> list[Glyph]:
    """The glyphs of a page, starting at the character ``first``, in drawing order."""
    box, matrix, x, y = pdfium.FS_RECTF(), pdfium.FS_MATRIX(), c_double(), c_double()
    glyphs: list[Glyph] = []
    spaced = False
    last = text_page.count_chars()
    counts[0] += last - first
    if last > _PAGE_AT_MOST or counts[0] > _FILE_AT_MOST:
        raise ValueError(f"a page has over {_PAGE_AT_MOST:,} characters, or the file over {_FILE_AT_MOST:,}")
    for index in range(first, last):
        code = pdfium.FPDFText_GetUnicode(text_page, index)
        text = "-" if code == 2 else chr(code)  # 2: a hyphen that ends a line
        if text.isspace():
            spaced = True
        elif code == 0xFFFD or pdfium.FPDFText_HasUnicodeMapError(text_page, index):
            counts[1] += 1  # the font does not map its codes to Unicode
        elif text.isprintable() or text in _INVISIBLE:
            pdfium.FPDFText_GetLooseCharBox(text_page, index, box)
            pdfium.FPDFText_GetCharOrigin(text_page, index, x, y)
            pdfium.FPDFText_GetMatrix(text_page, index, matrix)
            turn = round(math.atan2(matrix.b, matrix.a) / (math.pi / 2)) % 4
            origin, start, end, base = (
                (x.value, box.left, box.right, y.value),
                (y.value, box.bottom, box.top, -x.value),
                (-x.value, -box.right, -box.left, -y.value),
                (-y.value, -box.top, -box.bottom, x.value),
            )[turn]
            size = pdfium.FPDFText_GetFontSize(text_page, index) * math.hypot(matrix.c, matrix.d)
            side = (1 if glyphs and glyphs[-1].origin > origin else -1) if spaced else 0
            glyphs.append(Glyph(text, origin, start, end, base, size or 1.0, turn, side))
            spaced = False
    return glyphs


def page_heading(rows: list[Row], usual: float) -> str:
    """The first lines of a page that are larger than the usual text; empty if none are."""
    sizes = [row[0][0].size for row in rows[:20]]
    largest = max(sizes, default=0)
    if largest < 1.15 * usual:
        return ""
    lines = [_line(row, rtl=False) for row, size in zip(rows, sizes, strict=False) if size > 0.95 * largest]
    heading = " ".join(lines[:3])
    return heading if 3 <= len(heading) <= 150 and any(map(str.isalpha, heading)) else ""


def page_rows(glyphs: list[Glyph], annotations: list[Glyph]) -> list[Row]:
    """The rows of a page in reading order, with the glyphs of annotations and form fields at their positions."""
    rows: list[Row] = []
    at_base: dict[tuple[int, int], list[Row]] = {}
    for turn, group in groupby(_pieces(glyphs), lambda piece: piece[0].turn):
        pieces = list(group)
        if turn == 3 and pieces[0][0].base < pieces[-1][0].base:
            pieces.reverse()  # pdfium reverses the order of lines that are written downwards
        for piece in pieces:
            same_base = at_base.setdefault((turn, round(piece[0].base)), [])
            if rows and piece[0].on_line_of(rows[-1][-1][0]):
                rows[-1].append(piece)
            elif touched := next((row for row in same_base if _touches(row, piece)), None):
                touched.append(piece)  # a page may be drawn font by font
            else:
                rows.append([piece])
                same_base.append(rows[-1])
    for piece in _pieces(annotations):
        beside = next((row for row in rows if piece[0].on_line_of(row[0][0])), None)
        if beside is None:
            above = [n for n, row in enumerate(rows, start=1) if row[0][0].base > piece[0].base]
            rows.insert(above[-1] if above else len(rows), [piece])
        else:
            beside.append(piece)
    return [_cut(row) for row in rows]


def _touches(row: Row, piece: list[Glyph]) -> bool:
    """Whether a piece of text is directly before or after one of a row."""
    gaps = ((piece[0].start - other[-1].end, other[0].start - piece[-1].end) for other in row)
    return any(-0.1 < max(gap) / piece[0].size < _CELL for gap in gaps)


def _cut(row: Row) -> Row:
    """Cut a row into pieces again, from left to right."""
    glyphs = [glyph for piece in sorted(row, key=lambda piece: piece[0].start) for glyph in piece]
    if any(_is_rtl(glyph.text) for glyph in glyphs):
        glyphs.sort(key=lambda glyph: glyph.origin)  # the order of drawing changes with the direction
    return _pieces(glyphs)


def _pieces(glyphs: list[Glyph]) -> list[list[Glyph]]:
    """Cut glyphs where a line ends or a gap separates cells."""
    pieces: list[list[Glyph]] = []
    for glyph in glyphs:
        if pieces and _continues(pieces[-1][-1], glyph):
            pieces[-1].append(glyph)
        else:
            pieces.append([glyph])
    return pieces


def _continues(last: Glyph, glyph: Glyph) -> bool:
    if not glyph.on_line_of(last):
        return False
    gap = glyph.gap(last)
    backwards = glyph.end <= last.start and not _is_rtl(glyph.text) and not _is_rtl(last.text)
    return gap < (0.3 if backwards else _CELL)


def page_text(rows: list[Row]) -> str:
    """The text of a page: lines, blank lines between paragraphs, and tables as rows of cells between bars."""
    letters = "".join(glyph.text for row in rows for piece in row for glyph in piece)
    rtl = sum(map(_is_rtl, letters)) > sum(map(str.isalpha, letters)) / 2
    rows = _columns([_without_marker(row) for row in rows], rtl)
    text: list[str] = []
    drops = [_drop(above, below) for above, below in pairwise(rows)]
    pitch = median([drop for drop in drops if 0.5 < drop < 3] or [1.2])
    in_table = [False, *map(_aligned, rows, rows[1:]), False]
    for number, row in enumerate(rows):
        if number:
            # The first row of the next column is higher up and continues the paragraph.
            edge = not in_table[number] and any(in_table[number - 1 : number + 2])
            text.append("\n\n" if edge or drops[number - 1] > 1.4 * pitch else "\n")
        if in_table[number] or in_table[number + 1]:
            cells = [_line([piece], rtl) for piece in row]
            text.append(f"| {' | '.join(reversed(cells) if rtl else cells)} |")
        else:
            text.append(_line(row, rtl))
    return unicodedata.normalize("NFC", "".join(text))


def _drop(above: Row, below: Row) -> float:
    """How far a row lies below another, in font sizes; infinite if it is written in another direction or size."""
    first, second = above[0][0], below[0][0]
    size = max(first.size, second.size)
    if first.turn != second.turn or min(first.size, second.size) < 0.8 * size:
        return math.inf
    return (first.base - second.base) / size


def _without_marker(row: Row) -> Row:
    """Join the bullet or number of a list item with its text: the gap between them separates no cells."""
    if len(row) > 1 and _MARKER.fullmatch("".join(glyph.text for glyph in row[0])):
        return [row[0] + row[1], *row[2:]]
    return row


def _columns(rows: list[Row], rtl: bool) -> list[Row]:
    """Put columns one after the other where a page draws two line by line."""
    pairs = [row for row in rows if len(row) == 2 and min(map(len, row)) > 25]
    if len(pairs) < 5:
        return rows
    gutter = median((left[-1].end + right[0].start) / 2 for left, right in pairs)
    result: list[Row] = []
    for crosses, group in groupby(rows, lambda row: any(p[0].start < gutter < p[-1].end for p in row)):
        if crosses:
            result.extend(group)
            continue
        region = list(group)
        for on_right in (rtl, not rtl):
            column = [[piece for piece in row if (piece[0].start > gutter) == on_right] for row in region]
            result.extend(row for row in column if row)
    return result


def _aligned(above: Row, below: Row) -> bool:
    """Whether two rows are of one table: two of their pieces begin, end or are centred at the same positions."""
    if len(above) < 2 or len(below) < 2 or not 0 < _drop(above, below) < 4:
        return False
    near = 0.5 * above[0][0].size
    edges = [[(p[0].start, p[-1].end, (p[0].start + p[-1].end) / 2) for p in row] for row in (above, below)]
    matches = [
        any(min(abs(a - b) for a, b in zip(one, other, strict=True)) < near for other in edges[1])
        for one in edges[0]
    ]
    return sum(matches) >= 2


def _line(row: Row, rtl: bool) -> str:
    glyphs = [glyph for piece in row for glyph in piece]
    if any(_is_rtl(glyph.text) for glyph in glyphs):
        text = _bidirectional_line(glyphs, rtl)
    else:
        text = ""
        for last, glyph in pairwise([glyphs[0], *glyphs]):
            accent, letter = (last, glyph) if last.text in _ACCENTS else (glyph, last)
            if accent.text in _ACCENTS and letter.text.isalpha() and glyph.gap(last) < -0.2:
                text = text[:-1] + unicodedata.normalize("NFC", letter.text + _ACCENTS[accent.text])
                continue
            if text and (glyph.spaced or glyph.gap(last) > _SPACE):
                text += " "
            text += glyph.text
    text = _PRESENTATION.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return _LEADERS.sub(" ", text).strip()


def _bidirectional_line(glyphs: list[Glyph], rtl: bool) -> str:
    """The text of a line with Hebrew or Arabic, in whatever order it is drawn."""
    drawings: dict[tuple[float, float], list[Glyph]] = {}
    for glyph in glyphs:
        drawings.setdefault((glyph.origin, glyph.base), []).append(glyph)
    letters: list[tuple[str, Glyph]] = []
    marks: list[tuple[str, Glyph]] = []
    for same in drawings.values():
        # The letters of a ligature: pdfium reverses them with the word, or gives each a part of the box.
        text = "".join(glyph.text for glyph in same)
        if len({glyph.start for glyph in same}) > 1:
            text = "".join(glyph.text for glyph in sorted(same, key=lambda glyph: -glyph.start))
        elif _is_rtl(text) and text not in _RTL_FORMS:
            text = text[::-1]
        if unicodedata.category(text[0]) == "Mn":
            marks.append((text, same[0]))
        else:
            end = max(glyph.end for glyph in same)
            letters.append((text, same[0]._replace(start=same[0].origin, end=end)))
    letters.sort(key=lambda letter: letter[1].start)
    for mark, at in marks:
        centre = (at.start + at.end) / 2
        distances = [max(glyph.start - centre, centre - glyph.end) for _, glyph in letters]
        nearest = distances.index(min(distances))
        letters[nearest] = (letters[nearest][0] + mark, letters[nearest][1])
    drawn: list[str] = []
    for last, (text, glyph) in zip([None, *letters], letters, strict=False):
        if last and glyph.gap(last[1]) > (0.05 if glyph.spaced < 0 or last[1].spaced > 0 else 0.15):
            drawn.append(" ")
        drawn.append(text)
    kinds = "".join(_KINDS.get(unicodedata.bidirectional(text[0]), " ") for text in drawn)
    # Punctuation is at the end of a sentence, so it shows the direction of the line.
    at_left, at_right = drawn[0] in _ENDS, drawn[-1] in _ENDS
    if at_left > at_right or (at_left == at_right and (rtl or kinds.count("R") > 3 * kinds.count("L"))):
        text = "".join(_reversed(drawn, kinds, 0, len(kinds)))
    else:
        text, position = "", 0
        for run in _RTL_RUN.finditer(kinds):
            text += "".join(drawn[position : run.start()]) + "".join(_reversed(drawn, kinds, *run.span()))
            position = run.end()
        text += "".join(drawn[position:])
    # Some fonts map brackets to their shape, others to their meaning, which is mirrored here.
    brackets = re.sub(r"[^()\[\]{}]", "", text)
    return text.translate(_MIRRORED) if re.match(r"[)\]}].*[(\[{]", brackets) else text


def _reversed(drawn: list[str], kinds: str, start: int, end: int) -> Iterator[str]:
    """Yield text in right-to-left order, in which numbers and Latin words keep theirs."""
    for run in reversed(list(_LTR_RUN.finditer(kinds, start, end))):
        yield from reversed(drawn[run.end() : end])
        yield from drawn[run.start() : run.end()]
        end = run.start()
    yield from reversed(drawn[start:end])


def _is_rtl(text: str) -> bool:
    return unicodedata.bidirectional(text[0]) in ("R", "AL")

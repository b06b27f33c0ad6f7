"""A rule-based sentence splitter for every language that ends sentences with punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Words whose full stop does not end a sentence.
_ABBREVIATIONS = frozenset(
    """mr mrs ms dr prof st sr jr rev hon gov sen rep gen col lt sgt capt cmdr adm maj pres messrs
    vs cf eg ie e.g i.e viz al approx ca est no nos fig figs eq vol vols pp ed eds ch sec art cap
    jan feb mar apr jun jul aug sep sept oct nov dec mt ft inc ltd co corp bros dept univ
    bzw z.b d.h usw nr str""".split()  # noqa: SIM905
)
# Scripts without spaces between words, in which a space ends a clause: Thai, Lao, Myanmar and Khmer.
CLAUSE_SCRIPTS = r"\u0e01-\u0e3a\u0e40-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f"
_ENDS = re.compile(
    rf"""(?P<mark>[.!?…؟۔।॥]+)["'”’»)\]]*\s+(?=["'“‘«(\[¿¡]*[^\W_a-zà-öø-ÿ])  # a mark, a space, no lower-case letter
      | [。！？။៕។]+["'”’」』）]*                                                   # scripts without spaces
      | (?<=[{CLAUSE_SCRIPTS}])\s+(?=[{CLAUSE_SCRIPTS}])""",  # noqa: RUF001
    re.VERBOSE,
)
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘]+$")  # noqa: RUF001
_PARAGRAPHS = re.compile(r"\n[ \t\f\v]*\n\s*")
# Lines that start something new even if no sentence has ended: a heading, a list item, a table row, "Capital: Lima".
_NEW_ITEM = re.compile(r"[ \t]*(?:#{1,6} |[-*+•–] |\d{1,3}[.)] |\||>|[A-Z][\w /()'-]{0,40}: )")  # noqa: RUF001


def blocks(text: str) -> Iterator[list[str]]:
    """Split a text into blocks of sentences: paragraphs, list items, headings and "Field: value" lines.

    Args:
        text: Any text. A single line break counts as a space, as in text wrapped to a width.

    Yields:
        The sentences of a block, never empty, with all white space reduced to single spaces.
    """
    for paragraph in _PARAGRAPHS.split(text):
        for item in _items(paragraph):
            if sentences := list(_sentences(item)):
                yield sentences


def _items(paragraph: str) -> Iterator[str]:
    """Split a paragraph at the lines that start something new."""
    item: list[str] = []
    for line in paragraph.split("\n"):
        if item and (_NEW_ITEM.match(line) or (len(item) == 1 and _is_heading(item[0], line))):
            yield " ".join(item)
            item = []
        item.append(line)
    yield " ".join(item)


def _is_heading(line: str, following: str) -> bool:
    """Tell a heading from the first line of wrapped text."""
    line = line.strip()
    if line.startswith("#"):
        return True
    return len(line) < 60 and line[-1:].isalnum() and following.lstrip()[:1].isupper()


def _sentences(item: str) -> Iterator[str]:
    text = " ".join(item.split())
    start = 0
    for end in _ENDS.finditer(text):
        if end["mark"] == "." and _is_abbreviation(text[start : end.start()]):
            continue
        yield text[start : end.end()].strip()
        start = end.end()
    if rest := text[start:].strip():
        yield rest


def _is_abbreviation(before: str) -> bool:
    """Whether the full stop after this text belongs to its last word."""
    match = _LAST_WORD.search(before)
    if match is None:
        return False
    word = match[0]
    if word.lower() in _ABBREVIATIONS or re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", word):
        return True  # "Dr", "e.g", "J", "U.S"
    # A number with nothing before it is the number of a list item: "1. Foo".
    return word.isdigit() and match.start() == 0

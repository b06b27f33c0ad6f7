"""reStructuredText, LaTeX, Org and subtitles as text. Lines keep their numbers, except in subtitles."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

from ragweave.knowledge.ingest.loaders.text import Page, read_text, whole_file
from ragweave.types import Document, SourceFile


def read_markup(file: SourceFile) -> Iterator[Document]:
    """Read a file of a markup language as one document, titled by its title or first heading."""
    ending = file.path.suffix.lower()
    title, text = _READERS[ending](read_text(file.path))
    is_speech = _READERS[ending] is _read_subtitles
    if not title and not is_speech:
        title = next((line.lstrip("# ") for line in text.split("\n") if line.startswith("#")), "")
    yield whole_file(file, title, text, line=0 if is_speech else 1, markdown=not is_speech)


def _quoted(line: str) -> str:
    """Indent a line that Markdown would take for a heading."""
    return f"    {line}" if line.lstrip().startswith("#") else line


# --- reStructuredText ---

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")
_DIRECTIVE = re.compile(r"([ \t]*)\.\. (?:\|[^|\n]+\| )?([\w:-]+)::[ \t]*(.*)")
_NO_TEXT = re.compile(
    r"[ \t]*\.\.(?:$|[ \t])|[ \t]+:[\w-]+:(?:[ \t]*\S+)?[ \t]*$"
)  # comments, targets, options
_REFERENCE = re.compile(r"(?::[\w:.+-]{1,40}:)?`~?!?([^`<\n]+)(?<!\s)[ \t]*(?:<[^`>\n]+>)?`_{0,2}")
# Directives whose argument is the name of a file or a language.
_SILENT = ("code", "code-block", "contents", "figure", "highlight", "image", "include", "literalinclude", "raw",
           "sourcecode", "toctree")  # fmt: skip


def _read_rst(text: str) -> Page:
    lines = text.split("\n")
    styles: list[tuple[str, bool]] = []  # of headings, the highest first
    for number, line in enumerate(lines):
        above = lines[number - 1].strip() if number else ""
        is_underline = _ADORNMENT.match(line) and above and not _ADORNMENT.match(above)
        if is_underline and not above.startswith("#") and len(line.rstrip()) >= len(above):
            over = number > 1 and lines[number - 2].rstrip() == line.rstrip()
            if (line[0], over) not in styles:
                styles.append((line[0], over))
            lines[number - 1] = f"{'#' * min(styles.index((line[0], over)) + 1, 6)} {above}"
            lines[number] = ""
            if over:
                lines[number - 2] = ""
        elif directive := _DIRECTIVE.match(line):
            indent, name, argument = directive.groups()
            lines[number] = "" if name in _SILENT else f"{indent}{name.capitalize()}: {argument}".rstrip(": ")
        elif _NO_TEXT.match(line):
            lines[number] = ""
        else:
            lines[number] = _quoted(_REFERENCE.sub(r"\1", line.replace("``", "\0")).replace("\0", "`"))
    return Page("", "\n".join(lines))


# --- LaTeX ---

_RAW = re.compile(  # formulas and listings
    r"\$\$|\$[^$\n]{1,500}\$|\\\[|\\begin\{((?:equation|align|gather|verbatim|lstlisting|minted)\*?)\}"
)
_SECTIONS = {"part": 1, "chapter": 1, "section": 2, "subsection": 3, "subsubsection": 4, "paragraph": 5}
_OPTIONS = r"(?:[ \t]{0,9}\[[^\]\n]{0,200}\]){0,3}"
_ARGUMENT = r"\{([^{}\n]{0,400})\}"
_MARKS = dict(zip("'`^\"~=.uvHcdbkr", "\u0301\u0300\u0302\u0308\u0303\u0304\u0307\u0306\u030c\u030b\u0327\u0323\u0331"
                  "\u0328\u030a", strict=True))  # fmt: skip
_LETTERS = {"ss": "ß", "o": "ø", "O": "Ø", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å", "AA": "Å", "l": "ł",
            "L": "Ł", "i": "i", "item": "- ", "textbackslash": "\\", "LaTeX": "LaTeX", "TeX": "TeX", "ldots": "…",
            "dots": "…", "S": "§", "footnote": " ",
            "thanks": " ", "par": " ", "newline": " ", "quad": " "}  # fmt: skip


def _accented(match: re.Match[str]) -> str:
    return unicodedata.normalize("NFC", (match[2] or match[4]) + _MARKS[match[1] or match[3]])


_FILES = "bibliography|bibliographystyle|hspace|include|includegraphics|index|input|label|usepackage|vspace"
# Replacements, in this order. Braces go last because they enclose the arguments of commands.
_TEX_STEPS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"(?<!\\)%.*"), ""),
    (re.compile(rf"\\(?:begin|end){_ARGUMENT}{_OPTIONS}(?:{_ARGUMENT})?"), ""),
    (re.compile(rf"\\(?:cite|ref|eqref|autoref|cref)\w{{0,20}}\*?{_OPTIONS}{_ARGUMENT}"), r"[\1]"),
    (re.compile(rf"\\(?:{_FILES})\*?{_OPTIONS}{_ARGUMENT}"), ""),
    (
        re.compile(rf"\\({'|'.join(_SECTIONS)})\*?{_OPTIONS}\{{"),
        lambda match: f"{'#' * _SECTIONS[match[1]]} {{",
    ),
    (re.compile(r"\\(?:(['`^\"~=.])\{?\\?([A-Za-z])\}?|([uvHcdbkr])\{\\?([A-Za-z])\})"), _accented),
    (re.compile(rf"\\([A-Za-z]+)\*?{_OPTIONS}[ \t]{{0,9}}"), lambda match: _LETTERS.get(match[1], "")),
    (re.compile(r"\\\\|(?<!\\)[{}]"), ""),
    (re.compile(r"(?<!\\)&"), "|"),
    (re.compile(r"~|\\[,;: ]"), " "),
    (re.compile(r"\\([%&$#_{}])"), r"\1"),
]


def _read_tex(text: str) -> Page:
    title = re.search(rf"\\title{_OPTIONS}\{{([^\n]{{0,1000}})\}}", text)
    preamble, begin, body = text.partition("\\begin{document}")
    # The preamble has no text. Its line ends keep the numbers of the lines.
    body = "\n" * preamble.count("\n") + body if begin else text
    pieces, end = [], 0
    unclosed: set[str] = set()  # marks that were not found, which are not searched again
    for raw in _RAW.finditer(body):
        closing = {"$$": "$$", "\\[": "\\]"}.get(raw[0], f"\\end{{{raw[1]}}}" if raw[1] else "")
        stop = body.find(closing, raw.end()) + len(closing) if closing not in unclosed else -1
        if raw.start() < end or stop < raw.end():
            unclosed |= {closing} if stop < raw.end() else set()
            continue
        pieces += [
            _plain_tex(body[end : raw.start()]),
            *map(_quoted, body[raw.start() : stop].splitlines(True)),
        ]
        end = stop
    pieces.append(_plain_tex(body[end:]))
    return Page(_plain_tex(title[1]).strip() if title else "", "".join(pieces))


def _plain_tex(text: str) -> str:
    for pattern, replacement in _TEX_STEPS:
        text = pattern.sub(replacement, text)
    return text


# --- Org ---

_KEYWORD = re.compile(r"[ \t]*#\+(\w+):?[ \t]*(.*)")
_ORG_LINK = re.compile(r"\[\[([^\[\]\n]+)\](?:\[([^\[\]\n]+)\])?\]")


def _read_org(text: str) -> Page:
    title, in_drawer, in_block, lines = "", False, False, []
    for line in text.split("\n"):
        if keyword := _KEYWORD.match(line):
            name = keyword[1].lower()
            title = keyword[2].strip() if name == "title" else title
            in_block = name.startswith("begin_") or (in_block and not name.startswith("end_"))
            line = ""
        elif in_block:
            line = _quoted(line)
        elif in_drawer or re.fullmatch(r"[ \t]*:[A-Z_-]+:[ \t]*", line):
            in_drawer = line.strip().upper() != ":END:"
            line = ""
        elif heading := re.match(r"(\*+) +(?:(?:TODO|DONE) )?(.*)", line):
            words, _, tags = heading[2].rstrip().rpartition(" ")
            has_tags = re.fullmatch(r":[\w@:]+:", tags) is not None
            line = f"{'#' * min(len(heading[1]), 6)} {words.rstrip() if has_tags else heading[2].rstrip()}"
        elif re.match(r"[ \t]*(?:#(?: |$)|\|[-+]+\|?$)", line):  # comments, rules of tables
            line = ""
        lines.append(_ORG_LINK.sub(lambda link: link[2] or link[1], line))
    return Page(title, "\n".join(lines))


# --- Subtitles ---

_TIMES = re.compile(r"[\d:.,]+[ \t]*-->")
_TAGS = re.compile(r"<(?!v[ .])[^<>\n]{0,200}>|\{\\[^{}\n]{0,200}\}")
_SPEAKER = re.compile(r"<v[ .]([^<>\n]{1,200})>")


def _read_subtitles(text: str) -> Page:
    spoken: list[str] = []
    for block in re.split(r"\n[ \t]*\n", text.strip("\ufeff\n")):
        lines = block.strip("\n").split("\n")
        times = next((number for number, line in enumerate(lines[:3]) if _TIMES.match(line.strip())), None)
        if times is None:  # the head of the file, notes, styles
            continue
        for line in lines[times + 1 :]:
            line = " ".join(_TAGS.sub("", _SPEAKER.sub(_speaker, line)).split())
            if line and spoken[-1:] != [line]:  # captions that scroll repeat their last line
                spoken.append(line)
    return Page("", "\n".join(spoken))


def _speaker(tag: re.Match[str]) -> str:
    """The name in a tag, which classes may precede: ``<v.loud Esme>``."""
    return f"{tag[1].rpartition('.')[2].strip()}: "


_READERS: dict[str, Callable[[str], Page]] = {
    ".rst": _read_rst,
    ".tex": _read_tex,
    ".org": _read_org,
    ".srt": _read_subtitles,
    ".vtt": _read_subtitles,
}

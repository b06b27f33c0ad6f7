"""Word and PowerPoint files, read from their XML: one document each, whose headings have the marks of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lxml import etree

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.html import table_row
from ragweave.knowledge.ingest.loaders.number_formats import shown
from ragweave.knowledge.ingest.loaders.package import Package, Relation, attribute, local_name, open_zip
from ragweave.knowledge.ingest.loaders.text import warn_omission, whole_file
from ragweave.types import Document, Place, SourceFile

# Properties, deleted text, field codes, pronunciations, and fallbacks for programs that lack a feature.
_WITHOUT_TEXT = frozenset(
    "del delText Fallback instrText moveFrom pPr rPr rt sdtPr sectPr tblPr tblGrid tcPr trPr".split()  # noqa: SIM905
)
_CHARACTERS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_WRAPPERS = ("sdt", "sdtContent", "customXml", "ins", "moveTo")
_NOTES = {"footnote": "Footnote", "endnote": "Endnote", "comment": "Comment by {author}"}
_EMBEDDED = ("package", "oleObject", "aFChunk")
_OFF = ("0", "false", "off")
_TEMPLATE_TITLES = ("word document", "powerpoint presentation", "untitled")
_NOWHERE = Relation("", "")
_ITEM = re.compile(r"\s*(?:- |\| |\(?[\w.]{1,12}[.)] )")
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
          (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip


def read_docx(file: SourceFile) -> Iterator[Document]:
    """Read a Word file, titled by its title style, its metadata or its first heading."""
    with open_zip(file.path) as content:
        package = Package(file, content)
        part, root = _main_part(package, "word/document.xml")
        reader = _WordReader(package, part)
        blocks = list(reader.blocks(root))
        headings = (block.lstrip("# ") for block in blocks if block.startswith("#"))
        title = reader.title or _metadata_title(package) or next(headings, "")
        for kind in ("header", "footer"):
            parts = package.related(part, kind)
            texts = [" ".join(_Reader(package, name).blocks(package.xml(name))) for name in parts]
            blocks += [f"[{kind.capitalize()}: {text}]" for text in dict.fromkeys(texts) if text]
    yield whole_file(file, title, _join(blocks), markdown=True)


def read_pptx(file: SourceFile) -> Iterator[Document]:
    """Read a PowerPoint file, titled by its first slide or its metadata, with form feeds between its slides."""
    with open_zip(file.path) as content:
        package = Package(file, content)
        part, root = _main_part(package, "ppt/presentation.xml")
        relations = package.relations(part)
        names = [_relation_id(slide) for slide in root.iter("{*}sldId")]
        parts = [relations[name].part if name in relations else f"of the slide {name}" for name in names]
        authors = {
            attribute(author, "id"): attribute(author, "name")
            for name in package.related(part, "commentAuthors", "authors")
            for author in package.xml(name)
        }
        slides = [_Reader(package, name) for name in dict.fromkeys(parts)]  # each once
        text = "\f".join(_join(_slide_blocks(slide, authors)) for slide in slides)
        title = (slides[0].title if slides else "") or _metadata_title(package)
    yield whole_file(file, title, text, place=Place(slide=1), markdown=True)


def _main_part(package: Package, default: str) -> tuple[str, etree._Element]:
    """The name and the content of the part that contains the document."""
    part = next(package.related("", "officeDocument"), default)
    if part not in package.names or not len(root := package.xml(part)):
        raise SourceError(
            f"The file {package.file.path} cannot be read: its part {part} is missing or damaged. Save it again, or "
            "leave it out."
        )
    return part, root


def _metadata_title(package: Package) -> str:
    core = next(package.related("", "core-properties"), "docProps/core.xml")
    title = " ".join(package.xml(core, optional=True).findtext("{*}title", "").split())
    return "" if title.lower() in _TEMPLATE_TITLES else title


def _slide_blocks(slide: _Reader, authors: dict[str, str]) -> list[str]:
    package, blocks = slide.package, list(slide.blocks(slide.package.xml(slide.part)))
    blocks.sort(key=lambda block: not block.startswith("# "))
    for name in package.related(slide.part, "notesSlide"):
        notes = _Reader(package, name)
        for shape in package.xml(name).iter("{*}sp"):
            if _placeholder(shape) == "body":
                blocks += [f"[Notes: {text}]" for text in notes.blocks(shape)]
    for name in package.related(slide.part, "comments"):
        for comment in package.xml(name).iter("{*}cm", "{*}reply"):
            text = " ".join([comment.findtext("{*}text", ""), *slide.blocks(comment)]).strip()
            blocks.append(f"[Comment by {authors.get(attribute(comment, 'authorId'), 'unknown')}: {text}]")
    return blocks


def _join(blocks: Iterable[str]) -> str:
    """Join blocks by blank lines, but list items and rows by line ends."""
    pieces, after_item = [], False
    for block in blocks:
        item = _ITEM.match(block) is not None
        pieces += ["\n" if item and after_item else "\n\n", block]
        after_item = item
    return "".join(pieces[1:])


class _Reader:
    """Reads the paragraphs, tables and shapes of a part, by the names that Word and PowerPoint share."""

    def __init__(self, package: Package, part: str) -> None:
        self.package, self.part = package, part
        self.title = ""  # the text in the style or the shape of a title
        self._relations = package.relations(part)
        self._asides: list[str] = []  # text boxes, notes and comments of the current paragraph
        self._items = False  # whether paragraphs are list items, as in the body of a slide
        for kind, target in self._relations.values():
            if kind in _EMBEDDED and target:
                package.warn(f"the file embedded in it, {target}, is not read.")
            elif kind == "image" and target and target not in package.names:
                warn_omission(package.file.name, f"its picture {target} is missing.")

    def blocks(self, parent: etree._Element) -> Iterator[str]:
        """Yield the paragraphs and rows below an element, headings and list items with their marks."""
        for child in parent:
            name = local_name(child)
            if name == "p":
                yield from self._paragraph(child)
            elif name == "tbl":
                for row in _nested(child, "tr"):
                    cells = [list(self.blocks(cell)) for cell in _nested(row, "tc")]
                    yield from filter(None, table_row(cells))
            elif name == "sp" and (kind := _placeholder(child)):
                yield from self._placeholder_blocks(child, kind)
            elif name == "cNvPr" and (alternative := attribute(child, "descr").strip()):
                yield f"[Picture: {alternative}]"
            elif name not in _WITHOUT_TEXT:
                yield from self._drawing(child) if name in ("blip", "chart", "relIds") else self.blocks(child)

    def _placeholder_blocks(self, shape: etree._Element, kind: str) -> Iterator[str]:
        if kind in ("title", "ctrTitle"):
            title = " ".join(" ".join(self.blocks(shape)).split())
            self.title = self.title or title
            yield from filter(None, [title and f"# {title}"])
        elif kind != "sldNum":
            self._items = kind in ("body", "obj")
            yield from self.blocks(shape)
            self._items = False

    def _paragraph(self, paragraph: etree._Element) -> Iterator[str]:
        outer, self._asides = self._asides, []
        lines = [" ".join(line.split()) for line in self._inline(paragraph).split("\n")]
        asides, self._asides = self._asides, outer
        if text := "\n".join(filter(None, lines)):
            yield self._mark(paragraph, text) + text
        yield from asides

    def _mark(self, paragraph: etree._Element, text: str) -> str:
        properties = paragraph.find("{*}pPr")
        names = [] if properties is None else [local_name(child) for child in properties]
        if "buNone" in names or not (self._items or "buChar" in names or "buAutoNum" in names):
            return ""
        level = "0" if properties is None else properties.get("lvl", "0")
        return "  " * (int(level) if level in "012345678" else 0) + "- "

    def _inline(self, parent: etree._Element) -> str:
        text = ""
        for child in parent:
            name = local_name(child)
            if name in _WITHOUT_TEXT or (name == "fld" and child.get("type") == "slidenum"):
                continue
            if name == "t":
                text += child.text or ""
            elif name == "r":
                text += self._run(child, text)
            elif name in _CHARACTERS:
                text += _CHARACTERS[name]
            elif name == "txbxContent":
                self._asides += self.blocks(child)
            elif name == "docPr" and (alternative := attribute(child, "descr").strip()):
                text += f" [Picture: {alternative}] "
            elif name in ("blip", "chart", "relIds"):
                self._asides += self._drawing(child)
            elif name.endswith("Reference"):
                self._asides += self._note(name.removesuffix("Reference"), attribute(child, "id"))
            else:  # raised and divided parts of formulas among others
                text += {"sup": "^", "den": "/"}.get(name, "") + self._inline(child)
        return text

    def _run(self, run: etree._Element, before: str) -> str:
        properties = run.find("{*}rPr")
        hidden = None if properties is None else properties.find("{*}vanish")
        if hidden is not None and attribute(hidden, "val") not in _OFF:
            return ""
        text = self._inline(run)
        raised = properties is not None and (
            _value(properties, "{*}vertAlign") == "superscript"
            or properties.get("baseline", "0")[:1] in "123456789"
        )
        # 10 to the 6th is not 106.
        return f"^{text}" if raised and text[:1].isdigit() and before[-1:].isalnum() else text

    def _note(self, kind: str, name: str) -> Iterator[str]:
        """Only Word has notes within paragraphs."""
        yield from ()

    def _drawing(self, drawing: etree._Element) -> Iterator[str]:
        """Yield the text of a chart or a diagram, and warn of a missing picture."""
        kind, part = self._relations.get(_relation_id(drawing), _NOWHERE)
        if not part:
            if not kind and _relation_id(drawing):
                warn_omission(self.package.file.name, "a picture or chart is missing.")
        elif local_name(drawing) == "chart" and self.package.is_new(part):
            yield from _chart(self.package.xml(part))
        elif local_name(drawing) == "relIds" and self.package.is_new(part):
            yield from self.blocks(self.package.xml(part))


class _WordReader(_Reader):
    """Reads the main part of a Word file, with its styles, numbers of lists, notes and comments."""

    def __init__(self, package: Package, part: str) -> None:
        super().__init__(package, part)
        styles, numbering = (self._root(kind) for kind in ("styles", "numbering"))
        self._styles = {attribute(style, "styleId"): style for style in styles.iter("{*}style")}
        self._numbers = _Numbers(numbering)
        self._notes = {
            (kind, attribute(note, "id")): note for kind in _NOTES for note in self._root(f"{kind}s")
        }

    def _root(self, kind: str) -> etree._Element:
        name = next(self.package.related(self.part, kind), "")
        return self.package.xml(name, optional=not name)

    def _mark(self, paragraph: etree._Element, text: str) -> str:
        chain = [paragraph]
        name = _value(paragraph, "{*}pPr/{*}pStyle")
        while (style := self._styles.get(name)) is not None and len(chain) < 10:
            chain.append(style)
            name = _value(style, "{*}basedOn")
        names = [_value(style, "{*}name").lower() for style in chain[1:]]
        numbers = [element.find("{*}pPr/{*}numPr") for element in chain]
        number = next(
            (_value(n, "{*}numId") for n in numbers if n is not None and _value(n, "{*}numId")), "0"
        )
        level = next((_value(n, "{*}ilvl") for n in numbers if n is not None and _value(n, "{*}ilvl")), "0")
        mark = self._numbers.mark(number, level) if number != "0" else ""
        outline = next((v for v in (_value(e, "{*}pPr/{*}outlineLvl") for e in chain) if v), "9")
        if names[:1] == ["title"]:
            self.title = self.title or " ".join(text.split())
            return f"# {mark.lstrip()}"
        heading = next((name[8:] for name in names if re.fullmatch(r"heading [1-9]", name)), "")
        depth = int(heading or 0) or (int(outline) + 1 if outline in "012345678" else 0)
        if depth:
            mark = "" if mark.strip() == "-" else mark.lstrip()
            return f"{'#' * min(depth, 6)} {mark}"
        return mark

    def _note(self, kind: str, name: str) -> Iterator[str]:
        """Yield a note or comment at its first reference."""
        note = self._notes.pop((kind, name), None)
        if note is not None and (text := " ".join(self.blocks(note))):
            author = attribute(note, "author") or "unknown"
            yield f"[{_NOTES[kind].format(author=author)}: {text}]"


class _Numbers:
    def __init__(self, root: etree._Element) -> None:
        # By list and level: the kind of number, its template such as "%1.%2.", and the first number.
        self._levels: dict[tuple[str, int], tuple[str, str, int]] = {}
        for level in root.iterfind("{*}abstractNum/{*}lvl"):
            key = attribute(level.getparent(), "abstractNumId"), _integer(attribute(level, "ilvl"))
            kind, template = _value(level, "{*}numFmt"), _value(level, "{*}lvlText")
            self._levels[key] = kind, template, _integer(_value(level, "{*}start"))
        self._list_of = {
            attribute(n, "numId"): _value(n, "{*}abstractNumId") for n in root.iterfind("{*}num")
        }
        self._restarts: dict[tuple[str, int], int] = {}
        for start in root.iterfind("{*}num/{*}lvlOverride/{*}startOverride"):
            level = start.getparent()
            key = attribute(level.getparent(), "numId"), _integer(attribute(level, "ilvl"))
            self._restarts[key] = _integer(attribute(start, "val"))
        self._counts: dict[tuple[str, int], int] = {}

    def mark(self, number: str, depth: str) -> str:
        """The mark of the next item of a list at a level."""
        level = min(_integer(depth), 8)
        name, indent = self._list_of.get(number, ""), "  " * level
        kind, template, start = self._levels.get((name, level), ("bullet", "", 1))
        if kind in ("bullet", "none", ""):
            return "" if kind == "none" else f"{indent}- "
        count = self._counts.get((name, level), start - 1) + 1
        self._counts[name, level] = self._restarts.pop((number, level), count)
        for deeper in range(level + 1, 9):
            self._counts.pop((name, deeper), None)

        def counted(match: re.Match[str]) -> str:
            kind, _, start = self._levels.get((name, int(match[1]) - 1), ("decimal", "", 1))
            return _number(self._counts.get((name, int(match[1]) - 1), start), kind)

        return f"{indent}{re.sub('%([1-9])', counted, template)} "


def _number(count: int, kind: str) -> str:
    """Write a number in the numbering style of a list."""
    text = str(count)
    if kind.endswith("Letter") and count > 0:
        text = chr(ord("a") + (count - 1) % 26) * min((count - 1) // 26 + 1, 10)
    elif kind.endswith("Roman") and 0 < count < 4000:
        text = ""
        for value, digits in _ROMAN:
            text += digits * (count // value)
            count %= value
    return text.upper() if kind.startswith("upper") else text


def _chart(root: etree._Element) -> Iterator[str]:
    """Yield the titles of a chart and the values of its series, a row for each."""
    titles = ("".join(t.text or "" for t in title.iter("{*}t")) for title in root.iter("{*}title"))
    yield from (f"[Chart: {title.strip()}]" for title in titles if title.strip())
    header: list[str] = []
    for series in root.iter("{*}ser"):
        names = [value.text or "" for value in series.iterfind("{*}tx//{*}v")]
        labels = _points(series, "cat") or _points(series, "xVal")
        values = _points(series, "val") or _points(series, "yVal")
        if labels and header != ["", *labels.values()]:
            header = ["", *labels.values()]
            yield from table_row([[cell] for cell in header])
        cells = [" ".join(names), *(values.get(index, "") for index in labels or values)]
        yield from table_row([[cell] for cell in cells])


def _points(series: etree._Element, axis: str) -> dict[str, str]:
    """The labels or values of a chart's points on an axis, by their index; labels follow those of their groups."""
    code = series.findtext(f"{{*}}{axis}//{{*}}formatCode", "")
    levels = series.findall(f"{{*}}{axis}//{{*}}lvl") or series.findall(f"{{*}}{axis}/*")
    points: dict[str, str] = {}
    for level in levels:
        group = {attribute(point, "idx"): point.findtext("{*}v", "") for point in level.iter("{*}pt")}
        label = ""
        for index in points or group:
            label = group.get(index, label)
            points[index] = f"{label} {points[index]}" if index in points else shown(label, code)
    return points


def _nested(parent: etree._Element, name: str) -> Iterator[etree._Element]:
    """Yield the rows of a table or the cells of a row, which may be wrapped; those that were deleted are left out."""
    for child in parent:
        tag = local_name(child)
        if tag == name and child.find("{*}trPr/{*}del") is None:
            yield child
        elif tag in _WRAPPERS:
            yield from _nested(child, name)


def _placeholder(shape: etree._Element) -> str:
    """The role of a shape on a slide, such as ``title``; empty if it has none."""
    role = shape.find("{*}nvSpPr/{*}nvPr/{*}ph")
    return "" if role is None else role.get("type", "obj")


def _relation_id(element: etree._Element) -> str:
    """The relation that an element names; another attribute may have the same name without the namespace."""
    names = ("embed", "dm", "id")
    relations = {key.rpartition("}")[2]: value for key, value in element.items() if "relationships}" in key}
    return next((relations[name] for name in names if name in relations), "")


def _value(element: etree._Element, path: str) -> str:
    child = element.find(path)
    return "" if child is None else attribute(child, "val")


def _integer(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0

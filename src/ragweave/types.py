"""Plain data that all packages share: sources, documents, passages, questions and the settings of a search."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Literal, Protocol, get_args

from ragweave.errors import ConfigurationError

Pooling = Literal["pooler", "cls", "mean"]
"""``"pooler"``: the model's own pooled vector; ``"cls"``: its first token; ``"mean"``: all its tokens."""

POOLINGS: tuple[Pooling, ...] = ("pooler", "cls", "mean")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in its source a document or a passage begins. Fields that do not apply are ``None``, or empty.

    Attributes:
        page: The page, counting from 1.
        slide: The slide, counting from 1.
        sheet: The name of the sheet.
        row: The row of the sheet or table, counting from 1.
        heading: The headings above, the highest first.
        line: The line of the source, counting from 1.
        start: The first character in the document's text, counting from 0.
        end: The end in the document's text, exclusive.
    """

    page: int | None = None
    slide: int | None = None
    sheet: str | None = None
    row: int | None = None
    heading: tuple[str, ...] = ()
    line: int | None = None
    start: int | None = None
    end: int | None = None

    def __str__(self) -> str:
        """The place in words, such as ``"page 3"`` or ``"Guide > Install, line 12"``; may be empty."""
        parts = [" > ".join(self.heading)] if self.heading else []
        for name in ("page", "slide", "sheet", "row", "line"):
            if (value := getattr(self, name)) is not None:
                parts.append(f"{name} {value}")
        return ", ".join(parts)

    def below(self, title: str) -> Place:
        """The same place without the headings that a title names, such as ``"Guide"`` or ``"Guide > Install"``."""
        named = tuple(title.split(" > "))
        return (
            replace(self, heading=self.heading[len(named) :]) if self.heading[: len(named)] == named else self
        )


# A loader sets where a document begins, and chunking counts from there. Form feeds in the text separate slides if
# ``place`` has a slide (.pptx: ``place=Place(slide=1)``), and pages otherwise (.pdf: ``place=Place(page=1)``). A row
# of a sheet has ``place=Place(sheet="Prices", row=12)``; a row of a text file has ``place=Place(line=12)``, because
# its text has other lines than the file. ``markdown`` marks text that was converted to Markdown: its headings become
# the heading paths of its passages, as in a file that ends in .md.
@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read."""

    path: Path  # where the file is
    # Its path below the source folder, with forward slashes; the file name for a file named directly.
    name: str
    known_as: str | None = None  # its name as a source if that is not the path, such as an address on the hub
    # Why it is not read: its ending, which no loader reads, or ``"hidden"``; empty for a file to read.
    ignored: str = ""

    @property
    def source(self) -> str:
        """The source that its passages name."""
        return self.known_as or str(self.path)

    @property
    def key(self) -> str:
        """Its key among the sources of a knowledge base, independent of the working directory."""
        return self.known_as or str(self.path.resolve())


@dataclass(frozen=True, slots=True)
class SourceCount:
    """The number of passages of a source, and the id of one of its documents; empty where all are deleted."""

    passages: int = 0
    document_id: str = ""


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One file that was read."""

    source: str  # its path as the user named it, also in its passages
    sha256: str  # the hash of its content


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """How files differ from the sources of a knowledge base."""

    new: tuple[str, ...]  # sources that it does not have
    changed: tuple[str, ...]  # sources that it has with other content
    removed: tuple[str, ...]  # sources that no longer exist
    skipped: tuple[str, ...]  # one sentence for each file that cannot be read


Sources = dict[str, SourceRecord]
"""Records by `SourceFile.key`."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document as a reader returned it, before it is cut into passages.

    Attributes:
        id: Identifier, unique in a knowledge base.
        title: Title that every passage of the document keeps; may be empty.
        text: The whole text. Form feeds separate its pages or slides.
        source: Path or name of its source.
        line: The line of the source that the text begins in, from 1; 0 if its lines are not those of the source.
        place: The page, slide, sheet and row, or line that the text begins in.
        markdown: Whether the text is Markdown, regardless of the ending of the source.
        keeps_lines: Whether passages keep its lines, such as those of source code and the columns of a row.
        rows: The characters at which rows of a sheet begin, each with the row's number; 0 outside rows.
        metadata: Further facts by which searches can be narrowed: texts, numbers, true or false, and lists of these.
    """

    id: str
    title: str
    text: str
    source: str
    line: int = 0
    place: Place = Place()
    markdown: bool = False
    keeps_lines: bool = False
    rows: tuple[tuple[int, int], ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrievable piece of a document: the z of the paper.

    Attributes:
        id: The document's id plus ``#0``, ``#1``, ... in reading order.
        document_id: The document's id.
        title: The document's title.
        text: The passage's own text.
        source: Path or name of the document's source.
        start: Where it begins in the document's text, in characters.
        end: Where it ends there.
        line: The line of the source that it begins in, from 1; 0 where there are no lines.
        page: The page of the source that it begins on, from 1; 0 where there are no pages.
        slide: The slide that it begins on, from 1; 0 where there are no slides.
        sheet: The name of the sheet that it is on; empty where there are no sheets.
        table_row: The row of the sheet or table that it begins in, from 1; 0 where there are no rows.
        heading: The headings above it, one per line, the highest first.
        metadata: The metadata of its document, as JSON.
    """

    id: str
    document_id: str
    title: str
    text: str
    source: str
    start: int = 0
    end: int = 0
    line: int = 0
    page: int = 0
    slide: int = 0
    sheet: str = ""
    table_row: int = 0
    heading: str = ""
    metadata: str = "{}"

    @property
    def place(self) -> Place:
        """Where it begins in its source."""
        return Place(
            page=self.page or None,
            slide=self.slide or None,
            sheet=self.sheet or None,
            row=self.table_row or None,
            heading=tuple(self.heading.splitlines()),
            line=self.line or None,
            start=self.start,
            end=self.end,
        )


def without_title(passage: Passage | ScoredPassage) -> str:
    """The text of a passage below its title: without a first line that repeats it, as a heading does."""
    first, _, rest = passage.text.lstrip().partition("\n")
    is_title = first.lstrip("#").strip() == passage.title != ""
    return rest.lstrip() if is_title and rest.strip() else passage.text


def source_name(source: str, document_id: str) -> str:
    """The path of a source below the folder that was given, with which the ids of its documents begin.

    Of documents with other ids, the name of the file; addresses stay as they are.
    """
    if "://" in source:
        return source
    parts = PurePath(source).parts
    paths = ("/".join(parts[first:]) for first in range(len(parts)))
    return next((path for path in paths if document_id.startswith(path)), PurePath(source).name)


@dataclass(frozen=True, slots=True)
class ScoredPassage:
    """A passage that was retrieved for a question.

    Attributes:
        id: The passage's id in the knowledge base.
        title: Its title.
        text: Its text.
        source: Its source.
        doc_score: Its scaled inner product with the question: the logit of p(z|x).
        prior: p(z|x), the retriever's probability for it; the priors of a question sum to one.
        place: Where it begins in its source; ``None`` if the index does not store it.
        metadata: The metadata of its document.
    """

    id: str
    title: str
    text: str
    source: str
    doc_score: float
    prior: float
    place: Place | None = field(default=None, kw_only=True)
    metadata: dict[str, Any] = field(default_factory=dict, hash=False, kw_only=True)

    @property
    def origin(self) -> str:
        """Its source (`source_name`) and its place below its title, in words: ``"handbook.pdf, page 3"``."""
        place = str((self.place or Place()).below(self.title))
        return ", ".join(filter(None, (source_name(self.source, self.id), place)))


Formulation = Literal["token", "sequence"]
"""RAG-Token or RAG-Sequence (Lewis et al. 2020, section 2.1)."""

AnswerFormulation = Literal["token", "sequence", "concat", "pced"]
"""How a pipeline answers: under a formulation, from all passages in one context, or by PCED's rule."""

FORMULATIONS: tuple[Formulation, ...] = ("token", "sequence")

ANSWER_FORMULATIONS: tuple[AnswerFormulation, ...] = (*FORMULATIONS, "concat", "pced")

AnswerStyle = Literal["short", "sentence", "long"]
"""The requested length of the answers of instruct models."""

ANSWER_STYLES: tuple[AnswerStyle, ...] = get_args(AnswerStyle)

GeneratorApi = Literal["chat", "completions", "vllm"]
"""The interface of a generator behind a server."""

GeneratorDtype = Literal["auto", "float32", "bfloat16", "int8"]

RetrievalKind = Literal["dense", "bm25", "hybrid"]
Fusion = Literal["weighted", "rrf"]

DEFAULT_DENSE_WEIGHT = 0.5
"""Weight of the vectors in hybrid search, unless the settings or the model set it."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How to search a knowledge base, and how a passage's score, the logit of p(z|x), is computed.

    Attributes:
        kind: ``"dense"``: inner products of vectors, times the model's scale. ``"bm25"``: BM25 scores, as in the
            ablation of Lewis et al. 2020, section 4.6. ``"hybrid"``: both. ``None``: the model's default
            (`RagConfig`), or ``"dense"`` without one or without an index of words.
        fusion: How "hybrid" combines both. ``"weighted"``: a weighted mean of the two scores, which makes p(z|x)
            proportional to the product of both distributions, each to the power of its weight; every candidate of
            either gets both scores. ``"rrf"``: the logarithm of the fused reciprocal ranks, which makes p(z|x)
            proportional to them.
        dense_weight: Weight of the vectors in the weighted mean, from 0 to 1; the words have the rest. ``None``: the
            model's default, or 0.5 without one.
        candidates: Passages of each ranking to fuse, or to give to a reranker; at least K.
        k1: Term-frequency saturation of BM25.
        b: Length normalisation of BM25, from 0 to 1.
        where: A condition that passages must meet, such as ``"year >= 2020 and lang == 'en'"``.
    """

    kind: RetrievalKind | None = None
    fusion: Fusion = "weighted"
    dense_weight: float | None = None
    candidates: int = 100
    k1: float = 0.9
    b: float = 0.4
    where: str | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, get_args(RetrievalKind)),
            ("fusion", self.fusion, get_args(Fusion)),
        ):
            if value is not None and value not in known:
                raise ConfigurationError(f"{name} is {value!r}; choose one of {', '.join(known)}.")
        if self.dense_weight is not None and not 0 <= self.dense_weight <= 1:
            raise ConfigurationError(f"dense_weight is {self.dense_weight}: give a number from 0 to 1.")
        if self.candidates < 1:
            raise ConfigurationError(f"candidates is {self.candidates}: give 1 or more.")

    def resolved(self, defaults: SearchSettings | None = None, *, words: bool = True) -> SearchSettings:
        """The same settings with all fields set; without an index of ``words`` the default is "dense"."""
        defaults = defaults or SearchSettings()
        weights = (self.dense_weight, defaults.dense_weight, DEFAULT_DENSE_WEIGHT)
        return replace(
            self,
            kind=self.kind or (defaults.kind if words else None) or "dense",
            dense_weight=next(weight for weight in weights if weight is not None),
        )


@dataclass(frozen=True, slots=True)
class GivenPassage:
    """A passage that the data provides with a question.

    Attributes:
        text: Its text.
        title: Its title; may be empty.
        id: Its id; empty where the data has none.
        gold: Whether the data says that it holds the answer; ``None`` if it does not say.
    """

    text: str
    title: str = ""
    id: str = ""
    gold: bool | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One question and its right answers.

    Attributes:
        id: Its id, unique among those it was read with.
        question: The question, or whatever else the model is given, such as a claim.
        answers: Right answers, all equally good; empty where only passages are known.
        gold_passages: Ids of passages or documents of the knowledge base that hold the answer; empty if unknown.
        where: Where it was read, for messages: a file and a line. It is ignored when examples are compared.
        contexts: Passages that the data provides with the question; empty if they were not requested.
        label: The class of a claim, as written in the data; ``None`` where there are no classes.
        unanswerable: Whether the data says that the documents do not answer it; then ``answers`` is empty.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    gold_passages: tuple[str, ...] = ()
    where: str = field(default="", compare=False)
    contexts: tuple[GivenPassage, ...] = ()
    label: str | None = None
    unanswerable: bool = False


class Progress(Protocol):
    """Receives the progress of a job, stage by stage."""

    def start(self, stage: str, total: int | None) -> None:
        """Start a stage, such as ``"Reading"``, of a number of steps; ``None`` if unknown."""
        ...

    def advance(self, steps: int) -> None:
        """Advance the current stage by a number of steps."""
        ...


class NoProgress:
    """Shows nothing."""

    def start(self, stage: str, total: int | None) -> None:
        """Do nothing."""

    def advance(self, steps: int) -> None:
        """Do nothing."""

"""What the service does with a pipeline and its knowledge base, in calls that block."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar, cast

from ragweave.errors import ConfigurationError, KnowledgeBaseError, QuestionError, RagweaveError, SourceError
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.knowledge.source_records import SourceFile
from ragweave.pipeline.rag_pipeline import FORMULATIONS, Formulation
from ragweave.provenance.answers import Answer
from ragweave.retrieval.finding import question_length
from ragweave.serving.errors import ConflictError, NotThereError, UnavailableError, UnreadableError
from ragweave.serving.jobs import Done, Failed, Job, Retrieved, Said
from ragweave.types import ScoredPassage

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.pipeline.rag_pipeline import RagPipeline

P = TypeVar("P", bound=ScoredPassage)

_LOG = logging.getLogger(__name__)
_POSTED = "posted:"  # what documents that came by HTTP name as their source, and then their id


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to be added.

    Attributes:
        id: Its id.
        title: Its title; may be empty.
        text: Its text.
    """

    id: str
    title: str
    text: str


class Engine:
    """Answers, finds and changes; each of the three from one thread at a time.

    Args:
        pipeline: What answers.
        refresh_seconds: How often a new version of the knowledge base is looked for.

    Raises:
        ConfigurationError: The pipeline answers from something else than a knowledge base.
    """

    def __init__(self, pipeline: RagPipeline, *, refresh_seconds: float) -> None:
        if not isinstance(pipeline.retriever.index, KnowledgeBaseIndex):
            raise ConfigurationError("A service answers from a knowledge base: give the pipeline one.")
        self._pipeline = pipeline
        self._pipelines = {own: pipeline.with_formulation(own) for own in FORMULATIONS}
        self._refresh_seconds = refresh_seconds
        self._refreshing = threading.Lock()
        self._refreshed = time.monotonic()
        self.refresh_failures = 0
        # A tokenizer is for one thread: finding has one of its own, and so has embedding.
        twin = _with_own_tokenizer(pipeline.encoder)
        self._finding = type(pipeline)(pipeline.model, pipeline.retriever, twin)
        self._counting = deepcopy(pipeline.retriever.generator_tokenizer)
        self._embedding = _with_own_tokenizer(pipeline.encoder)

    @property
    def base(self) -> KnowledgeBase:
        """The version of the knowledge base that is answered from."""
        return cast(KnowledgeBaseIndex, self._pipeline.retriever.index).base

    @property
    def n_docs(self) -> int:
        """K where nothing else is said."""
        return int(self._pipeline.model.config.n_docs)

    @property
    def formulation(self) -> Formulation:
        """The formulation where nothing else is said."""
        return self._pipeline.formulation

    def answer(self, jobs: Sequence[Job]) -> None:
        """Answer questions with equal options together, and tell each job what happens to it."""
        self.refresh()
        jobs = [job for job in jobs if not job.abandoned and self._can_be_asked(job)]
        if not jobs:
            return
        options = jobs[0].options
        pipeline = self._pipelines[options.formulation]
        for place, answer in pipeline.stream(
            [job.question for job in jobs],
            n_docs=options.n_docs,
            num_beams=options.num_beams,
            max_new_tokens=options.max_new_tokens,
            batch_size=len(jobs),
            prefetch=False,
            listener=_Telling(jobs),
        ):
            jobs[place].tell(Done(_shown_answer(answer)))

    def retrieve(self, questions: Sequence[str], n_docs: int | None) -> list[tuple[ScoredPassage, ...]]:
        """Find passages; arguments and errors as for `RagPipeline.retrieve`."""
        self.refresh()
        found = self._finding.retrieve(questions, n_docs=n_docs)
        return [tuple(_shown(passage) for passage in own) for own in found]

    def token_count(self, question: str) -> int:
        """How many tokens a question has for the generator; from the thread that finds."""
        return len(self._counting(question, add_special_tokens=False, verbose=False)["input_ids"])

    def add(self, documents: Sequence[NewDocument]) -> KnowledgeBase:
        """Add documents, each in place of the one with its id that was added before.

        Raises:
            ConflictError: An id belongs to a document that was read from elsewhere.
            UnreadableError: A document has nothing to be read.
            UnavailableError: The knowledge base cannot be changed now.
        """
        with _changing(), TemporaryDirectory(prefix="ragweave-") as folder:
            latest = self.base.latest()
            for document in documents:
                rows = latest.row_of(document.id)
                if rows and latest.passage(rows[0]).source != _POSTED + document.id:
                    raise ConflictError(
                        f"There is a document {document.id!r} already, from another source: delete it first, or "
                        "choose another id."
                    )
            sources = [_written(document, Path(folder), place) for place, document in enumerate(documents)]
            base = latest.add(sources, encoder=self._embedding, strict=True)
        self.refresh(now=True)
        return base

    def delete(self, document_id: str) -> KnowledgeBase:
        """Delete a document, or one passage.

        Raises:
            NotThereError: There is none with this id.
            UnavailableError: The knowledge base cannot be changed now.
        """
        with _changing():
            latest = self.base.latest()
            if not latest.row_of(document_id):
                raise NotThereError(f"There is no document {document_id!r}.")
            base = latest.delete(ids=[document_id])
        self.refresh(now=True)
        return base

    def refresh(self, *, now: bool = False) -> None:
        """Take up a new version of the knowledge base, if it is time to look.

        A version that cannot be read is passed over, and the one before stays.

        Args:
            now: Look, whenever that was done last.
        """
        with self._refreshing:
            if not now and time.monotonic() - self._refreshed < self._refresh_seconds:
                return
            self._refreshed = time.monotonic()
            try:
                self._pipeline.refresh()
            except (RagweaveError, OSError) as error:
                self.refresh_failures += 1
                _LOG.warning(
                    "The new version of the knowledge base cannot be used (%s); answering from the one before.",
                    type(error).__name__,
                )

    def _can_be_asked(self, job: Job) -> bool:
        try:
            question_length(self._pipeline.encoder, job.question)
        except QuestionError as error:
            job.tell(Failed(error))
            return False
        return True


class _Telling:
    """A listener that tells jobs what it hears."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs

    def retrieved(self, place: int, passages: Sequence[ScoredPassage]) -> None:
        self._jobs[place].tell(Retrieved([_shown(passage) for passage in passages]))

    def said(self, place: int, text: str) -> None:
        self._jobs[place].tell(Said(text))

    def stopped(self, place: int) -> bool:
        return self._jobs[place].abandoned


@contextmanager
def _changing() -> Iterator[None]:
    """Say what went wrong with a change without what the library says of it, which names paths."""
    try:
        yield
    except SourceError as error:
        raise UnreadableError(
            "A document has no text that can be made a passage: change or remove it."
        ) from error
    except (KnowledgeBaseError, OSError) as error:
        _LOG.warning("The knowledge base was not changed (%s).", type(error).__name__)
        raise UnavailableError(
            "The knowledge base cannot be changed now; another process may be changing it. Try again later."
        ) from error


def public_name(source: str) -> str:
    """A source's or an encoder's name without the folders of this machine; an address as it is."""
    return source if "://" in source or source.startswith(_POSTED) else PurePath(source).name


def _shown(passage: P) -> P:
    return replace(passage, source=public_name(passage.source))


def _shown_answer(answer: Answer) -> Answer:
    return replace(answer, passages=tuple(_shown(passage) for passage in answer.passages))


def _with_own_tokenizer(encoder: TextEncoder) -> TextEncoder:
    twin = copy(encoder)
    twin.tokenizer = deepcopy(encoder.tokenizer)
    return twin


def _written(document: NewDocument, folder: Path, place: int) -> SourceFile:
    """A document as a source that the knowledge base can read."""
    path = folder / f"{place}.jsonl"
    content = {"id": document.id, "title": document.title, "text": document.text}
    path.write_text(json.dumps(content), encoding="utf-8")
    return SourceFile(path=path, name=path.name, known_as=_POSTED + document.id)

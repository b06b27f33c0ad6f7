"""The documents of a knowledge base: shown, listed, added, read again and deleted."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from ragweave.errors import KnowledgeBaseError, SourceError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.loaders.loader import ignored_kind
from ragweave.serving.engine import POSTED, UPLOADED, Engine, copy_encoder, is_posted, public_name
from ragweave.serving.errors import (
    ConflictError,
    NotFoundError,
    UnavailableError,
    UnreadableDocumentError,
    unavailable,
    without_folders,
)
from ragweave.serving.schemas import DocumentIn, Source
from ragweave.types import Passage, SourceFile, source_name

_LOG = logging.getLogger(__name__)
# How many passages of a document are shown before and after the one that was asked for.
_AROUND = 100


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a document.

    Attributes:
        passages: Consecutive passages, at least one.
        marked: The position of the requested passage; ``None`` if the document was requested.
        before: Number of passages that precede them in the document.
        after: Number of passages that follow them.
    """

    passages: list[Passage]
    marked: int | None
    before: int
    after: int


class Documents:
    """Blocking calls about documents. Make all changes in one thread, and all other calls in one thread.

    Args:
        engine: Answers from the knowledge base.
        keep_versions: Number of older versions to keep after a change.
    """

    def __init__(self, engine: Engine, *, keep_versions: int) -> None:
        self._engine = engine
        self._keep_versions = keep_versions
        self._encoder = copy_encoder(engine.pipeline.encoder)

    def excerpt(self, name: str) -> Excerpt:
        """A passage with its neighbours in the document, or the start of a document.

        Raises:
            NotFoundError: No document and no passage has this id.
        """
        self._engine.refresh()
        document = self._engine.base.document(name.rpartition("#")[0])
        asked = next((number for number, one in enumerate(document) if one.id == name), None)
        if asked is None:
            document = self._engine.base.document(name)
        if not document:
            raise NotFoundError(f"Document {name!r} does not exist or was deleted. Ask the question again.")
        first = max(0, (asked or 0) - _AROUND)
        passages = document[first : (asked or 0) + _AROUND + 1]
        public = [
            replace(one, source=public_name(one.source, one.id), line=0 if is_posted(one) else one.line)
            for one in passages
        ]
        marked = None if asked is None else asked - first
        return Excerpt(public, marked, first, len(document) - first - len(passages))

    def add(self, documents: Sequence[DocumentIn]) -> KnowledgeBase:
        """Add documents. Each replaces the document with the same id that was added over HTTP before.

        Raises:
            ConflictError: A document from another source has the same id.
            UnreadableDocumentError: A document yields no passages.
            UnavailableError: The knowledge base cannot be changed now.
        """
        with self._changing() as latest, TemporaryDirectory(prefix="ragweave-") as folder:
            for document in documents:
                passages = latest.document(document.id)
                if passages and passages[0].source != POSTED + document.id:
                    raise ConflictError(
                        f"A document {document.id!r} from another source exists. Delete it first, or choose another "
                        "id."
                    )
            sources = [_write_source(document, Path(folder), i) for i, document in enumerate(documents)]
            return latest.add(sources, encoder=self._encoder, strict=True)

    def upload(self, path: Path, name: str) -> KnowledgeBase:
        """Add the documents of a file, in place of those of an earlier upload of this name.

        Raises:
            UnreadableDocumentError: It yields no passages, or a document from another source has the id of one of its
                documents.
            UnavailableError: The knowledge base cannot be changed now.
        """
        if kind := ignored_kind(path):
            raise UnreadableDocumentError(
                f"Files of the kind {kind} cannot be read. Convert the file to another kind."
            )
        with self._changing() as latest:
            file = SourceFile(path=path, name=name, known_as=UPLOADED + name)
            base = latest.add([file], encoder=self._encoder, strict=True)
        if not base.sources().get(file.source):
            raise UnreadableDocumentError(f"The file {name} has no text.")
        return base

    def sources(self, search: str) -> list[Source]:
        """The sources whose names contain ``search``, sorted by name."""
        self._engine.refresh()
        found = [
            Source(
                id=source_id(source),
                name=name,
                passages=count.passages,
                uploaded=source.startswith((POSTED, UPLOADED)),
            )
            for source, count in self._engine.base.storage.source_counts().items()
            if count.passages
            and search.lower()
            in (name := public_name(source, count.document_id).removeprefix(POSTED)).lower()
        ]
        return sorted(found, key=lambda one: one.name)

    def first_document(self, name: str) -> str:
        """The id of a document of a source.

        Raises:
            NotFoundError: There is no such source, or its passages belong to another one.
        """
        self._engine.refresh()
        passage = self._engine.base.storage.passage_of(self._source(self._engine.base, name))
        if passage is None:
            raise NotFoundError("Another document has the same text. Open that one.")
        return passage.document_id

    def read_again(self, name: str) -> KnowledgeBase:
        """Read the file of a source again, if it has changed.

        Raises:
            NotFoundError: There is no such source, or its file cannot be found here.
            UnreadableDocumentError: It yields no passages.
            UnavailableError: The knowledge base cannot be changed now.
        """
        with self._changing() as latest:
            source = self._source(latest, name)
            path, passage = Path(source), latest.storage.passage_of(source)
            if not path.is_file():
                raise NotFoundError(
                    "The file is no longer where it was read from. Upload it, or delete the document."
                )
            file = SourceFile(path, source_name(source, "" if passage is None else passage.document_id))
            return latest.add([file], encoder=self._encoder, strict=True)

    def delete_source(self, name: str) -> KnowledgeBase:
        """Delete the passages of a source.

        Raises:
            NotFoundError: There is no such source.
            UnavailableError: The knowledge base cannot be changed now.
        """
        with self._changing() as latest:
            return latest.delete(sources=[glob.escape(self._source(latest, name))])

    def delete(self, document_id: str) -> KnowledgeBase:
        """Delete a document, or one passage.

        Raises:
            NotFoundError: No document and no passage has this id.
            UnavailableError: The knowledge base cannot be changed now.
        """
        with self._changing() as latest:
            if not latest.row_of(document_id):
                raise NotFoundError(f"There is no document {document_id!r}. Check the id.")
            return latest.delete(ids=[document_id])

    @contextmanager
    def _changing(self) -> Iterator[KnowledgeBase]:
        """Yield the latest version to change; afterwards, use the new version and delete old ones."""
        with _change_errors():
            yield self._engine.base.latest()
        self._engine.refresh(force=True)
        try:
            self._engine.base.prune(keep=self._keep_versions)
        except (
            KnowledgeBaseError
        ) as error:  # the documents were changed; the next change deletes the versions
            _LOG.warning("Old versions of the knowledge base were not deleted: %s", unavailable(error))

    def _source(self, base: KnowledgeBase, name: str) -> str:
        source = next((source for source in base.sources() if source_id(source) == name), None)
        if source is None:
            raise NotFoundError(f"Source {name!r} does not exist or was deleted. Load the list again.")
        return source


@contextmanager
def _change_errors() -> Iterator[None]:
    """Replace the library's errors about a change, because their messages contain paths."""
    try:
        yield
    except (SourceError, KnowledgeBaseError, OSError) as error:
        reason = unavailable(error)
        if reason is None and isinstance(error, SourceError):
            raise UnreadableDocumentError(f"The document was not added: {without_folders(error)}") from error
        reason = reason or UnavailableError(
            f"The knowledge base cannot be changed now ({type(error).__name__})."
        )
        _LOG.warning("The knowledge base was not changed: %s", reason)
        raise reason from error


def source_id(source: str) -> str:
    """The id of a source, which reveals nothing about this machine's folders."""
    return sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _write_source(document: DocumentIn, folder: Path, number: int) -> SourceFile:
    """Write a document as a file that the knowledge base can read."""
    path = folder / f"{number}.jsonl"
    path.write_text(document.model_dump_json(), encoding="utf-8")
    return SourceFile(path=path, name=path.name, known_as=POSTED + document.id)

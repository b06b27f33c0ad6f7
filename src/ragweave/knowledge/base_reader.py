"""Reading one version of a knowledge base: its passages, and searching them.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, QuestionError
from ragweave.knowledge.filters import check_names
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.knowledge.layout import Layout
from ragweave.knowledge.storage import Storage, WordScores, checked_vectors
from ragweave.knowledge.store import passage_batch, replacing
from ragweave.knowledge.stored_states import stored_files
from ragweave.retrieval.index_protocol import INDEX_COLUMN, PassageScorer
from ragweave.retrieval.retriever import Retriever
from ragweave.types import NoProgress, Passage, Progress, ScoredPassage, SearchSettings

if TYPE_CHECKING:  # brings torch
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.base import KnowledgeBase


_ROW_GROUP = 1000  # as in wiki_dpr: a search in such files reads whole groups


class KnowledgeBaseReader:
    """One version of a knowledge base, open for reading; see `KnowledgeBase`."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        location = storage.location
        self.path: Path | str = location if isinstance(location, Path) else str(location)
        self.version, self.manifest = storage.version, storage.manifest
        self._encoder: TextEncoder | None = None

    def __len__(self) -> int:
        return self.manifest.passages

    def passage(self, row: int) -> Passage:
        """One passage; raises `IndexError` if the row does not exist."""
        return self.storage.passage(int(row))

    def document(self, document_id: str) -> list[Passage]:
        """The passages of a document in reading order, with their ids and places in it; empty if it is unknown."""
        return sorted(self.storage.document(document_id), key=lambda one: int(one.id.rpartition("#")[2]))

    def sources_of(self, row: int) -> list[str]:
        """The sources that hold a passage, each once; raises `IndexError` if the row does not exist."""
        return self.storage.sources_of(int(row))

    def passages(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Passage]:
        """Several passages; raises `IndexError` if a row does not exist."""
        return [self.passage(row) for row in rows]

    def vectors_of(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M rows, (M, D)."""
        return self.storage.vectors(np.asarray(rows, dtype=np.int64))

    def row_of(self, passage_or_document_id: str) -> list[int]:
        """The row of a passage, or the rows of a document's passages; empty if the id is unknown."""
        return self.rows_of([passage_or_document_id])[passage_or_document_id]

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """The rows of many passages and documents by their ids; empty for unknown ids."""
        return self.storage.rows_of(names)

    @overload
    def search(
        self, questions: NDArray[np.float32], n_docs: int = 5, *, where: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...

    @overload
    def search(self, questions: str, n_docs: int = 5, **options: Any) -> tuple[ScoredPassage, ...]: ...

    @overload
    def search(
        self, questions: Sequence[str], n_docs: int = 5, **options: Any
    ) -> list[tuple[ScoredPassage, ...]]: ...

    def search(self, questions: Any, n_docs: int = 5, **options: Any) -> Any:
        """Retrieve passages for a question, for several, or for question vectors.

        Args:
            questions: A text, B texts, or question vectors, (B, D).
            n_docs: Passages per question, K.
            **options: For texts: ``settings`` (`SearchSettings`), ``encoder`` (by default the one that the manifest
                names), and ``reranker``. For vectors: ``where``, as in `SearchSettings`.

        Returns:
            For a text, its passages by descending p(z|x); for texts, a list of these. For vectors, the largest inner
            products and their rows, (B, K), best first. With fewer than K passages, the other scores are minus
            infinity and the other rows -1.

        Raises:
            ShapeError: ``questions`` is an array but not a matrix.
            IndexDataError: The vectors differ in dimension from the passages'.
            ConfigurationError: ``n_docs`` is below 1, or a condition is invalid.
            QuestionError: A question is empty, or longer than the encoder reads.
            EncoderMismatchError: Another encoder embedded the passages.
            ModelNotFoundError: The encoder that the manifest names cannot be loaded here.
        """
        if isinstance(questions, np.ndarray):
            vectors = checked_vectors(questions, n_docs, self.manifest)
            return self.storage.search(vectors, n_docs, self._checked(**options))
        results = self._retrieve([questions] if isinstance(questions, str) else questions, n_docs, **options)
        return results[0] if isinstance(questions, str) else results

    def _retrieve(
        self,
        questions: Sequence[str],
        n_docs: int,
        *,
        encoder: TextEncoder | None = None,
        settings: SearchSettings | None = None,
        reranker: PassageScorer | None = None,
    ) -> list[tuple[ScoredPassage, ...]]:
        retriever = self.retriever(settings, encoder=encoder, reranker=reranker)
        if blank := [question for question in questions if not question.strip()]:
            raise QuestionError(f"The question {blank[0]!r} is empty; ask something.")
        vectors = None
        if cast(KnowledgeBaseIndex, retriever.index).settings.kind == "bm25":
            vectors = np.zeros((len(questions), self.manifest.dimension), np.float32)  # words need no encoder
        elif retriever.encoder is None:
            retriever = replace(retriever, encoder=self.encoder)
        n_docs = min(n_docs, max(len(self), 1))
        return retriever.retrieve(questions, n_docs, vectors=vectors).ranked_passages()

    def retriever(
        self,
        settings: SearchSettings | None = None,
        *,
        encoder: TextEncoder | None = None,
        reranker: PassageScorer | None = None,
    ) -> Retriever:
        """A retriever with the defaults of search and the scale of scores that fit this knowledge base's encoder."""
        # Imported here because it loads torch, which only questions in words need.
        from ragweave.model_files import EMBEDDED_ENCODER, EMBEDDED_SCORE_SCALE, EMBEDDED_SEARCH

        record = self.manifest.encoder
        if encoder is not None:
            self.check_encoder(encoder)
        defaults = EMBEDDED_SEARCH if record.name == EMBEDDED_ENCODER else None
        index = self.as_index(settings, defaults=defaults, reranker=reranker)
        return Retriever(index, encoder, EMBEDDED_SCORE_SCALE if record.normalize else 1.0)

    @property
    def encoder(self) -> TextEncoder:
        """The encoder that embedded the passages, loaded by the name in the manifest unless `open` was given it."""
        if self._encoder is None:
            encoder = self.manifest.encoder.load()
            self.check_encoder(encoder)
            self._encoder = encoder
        return self._encoder

    def export(self, path: Path | str, *, overwrite: bool = False, progress: Progress | None = None) -> None:
        """Write all passages with their ids, places and vectors to a .parquet or .jsonl file.

        The file appears when it is complete. An existing file is replaced only with ``overwrite``.
        """
        path = Path(path)
        if path.suffix not in (".parquet", ".jsonl"):
            raise ConfigurationError(f"{path} ends in neither .parquet nor .jsonl: choose one of them.")
        if path.is_dir() or not path.parent.is_dir():
            raise ConfigurationError(
                f"{path} is a folder, or there is no folder for it: name a file in a folder."
            )
        if path.exists() and not overwrite:
            raise ConfigurationError(
                f"{path} exists: add --overwrite (overwrite=True), or choose another file."
            )
        progress = progress or NoProgress()
        progress.start("Exporting", self.manifest.passages)
        with replacing(path) as file, ExitStack() as stack:
            parquet = None
            if path.suffix == ".parquet":
                vectors_type = pa.list_(pa.float32(), self.manifest.dimension)
                schema = passage_batch([]).schema.append(pa.field(INDEX_COLUMN, vectors_type))
                parquet = stack.enter_context(pq.ParquetWriter(file, schema))
            for passages, vectors in self.storage.shards():
                lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
                batch = passage_batch(passages).append_column(INDEX_COLUMN, lists)
                if parquet is not None:
                    parquet.write_batch(batch, row_group_size=_ROW_GROUP)
                else:
                    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
                    file.writelines(line.encode() for line in lines)
                progress.advance(len(passages))

    def search_text(
        self, questions: Sequence[str], n: int, *, k1: float = 0.9, b: float = 0.4
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The ``n`` passages with the largest BM25 scores for each of B questions: scores and rows, (B, K).

        A larger ``k1`` gives repeated words more weight; a larger ``b``, from 0 to 1, gives long passages less.
        Passages that share no word score 0; PostgreSQL leaves them out.

        Raises:
            KnowledgeBaseError: The knowledge base was built without words.
            ConfigurationError: ``n`` is below 1, or ``k1`` or ``b`` is out of range.
        """
        if n < 1:
            raise ConfigurationError(f"n is {n}. Ask for at least 1 passage.")
        score = self.text_scorer(k1=k1, b=b)
        scores = np.full((len(questions), n), -np.inf, dtype=np.float32)
        rows = np.full((len(questions), n), -1, dtype=np.int64)
        for number, question in enumerate(questions):
            hits, values = score(question).best(n)
            rows[number, : len(hits)], scores[number, : len(hits)] = hits, values
        return scores, rows

    def _checked(self, where: str | None = None) -> str | None:
        """Return a condition; raises `ConfigurationError` if it names a column that no passage has."""
        if where is not None:
            check_names(where, self.storage.columns())
        return where

    def text_scorer(self, *, k1: float = 0.9, b: float = 0.4) -> Callable[[str], WordScores]:
        """A function that scores passages by BM25 for a question; see `search_text`."""
        return self.storage.text_scorer(k1=k1, b=b)

    def as_index(
        self,
        settings: SearchSettings | None = None,
        *,
        defaults: SearchSettings | None = None,
        reranker: PassageScorer | None = None,
    ) -> KnowledgeBaseIndex:
        """This knowledge base as an index for `RagRetriever`; see `KnowledgeBaseIndex`."""
        if settings is not None:
            self._checked(settings.where)
        base = cast("KnowledgeBase", self)  # there are no other subclasses
        return KnowledgeBaseIndex(base, settings=settings, defaults=defaults, reranker=reranker)

    def info(self) -> dict[str, Any]:
        """Describe the knowledge base in values that JSON can hold."""
        facts = {"path": str(self.path), "version": self.version, **self.manifest.summary()}
        stored = stored_files(Layout(self.path)) if isinstance(self.path, Path) else []
        if stored:
            sizes = [path.stat().st_size for path in stored]
            facts |= {"stored_passages": len(sizes), "stored_bytes": sum(sizes)}
        size = self.storage.bytes()
        return facts if size is None else {**facts, "bytes": size}

    def sources(self) -> dict[str, int]:
        """The sources and their numbers of passages, 0 where all are deleted."""
        return {source: count.passages for source, count in sorted(self.storage.source_counts().items())}

    def check_encoder(self, encoder: TextEncoder) -> None:
        """Raise `EncoderMismatchError` unless this encoder embedded the passages."""
        self.manifest.encoder.check(encoder, self.path)

    def close(self) -> None:
        """Close the connection to a database; the next use opens another."""
        self.storage.close()

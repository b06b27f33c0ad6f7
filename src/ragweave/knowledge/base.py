"""The knowledge base: passages, their vectors and an index, in a folder of immutable versions.

Notation used for tensor shapes: B questions, K passages per question, N passages, D vector size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragweave.errors import (
    ConfigurationError,
    EncoderMismatchError,
    IndexDataError,
    KnowledgeBaseError,
    ShapeError,
)
from ragweave.knowledge.layout import Layout, VersionLayout
from ragweave.knowledge.manifest import FileRecord, Manifest
from ragweave.knowledge.passages import Passage
from ragweave.knowledge.progress import NoProgress, Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ragweave.encoding import TextEncoder
    from ragweave.knowledge.index import KnowledgeBaseIndex
    from ragweave.knowledge.store import PassageTable


class KnowledgeBase:
    """One version of a knowledge base, open for reading; make it with `build` or `open`.

    Passages and vectors are memory-mapped, so opening a large one is quick and several processes share its
    memory. A version never changes: who has it open keeps it, whatever is built after.

    Args:
        path: The folder of the knowledge base.
        version: The version's name.
        manifest: What the version holds.

    Attributes:
        path: The folder of the knowledge base.
        version: The version's name.
        manifest: What the version holds, and how it was made.

    Example:
        >>> base = KnowledgeBase.build([Path("notes")], Path("kb"), encoder=encoder)
        >>> scores, rows = base.search(encoder.encode(["Where is Lima?"]), 5)
        >>> base.passages(rows[0])[0].title
        'Peru'
    """

    def __init__(self, *, path: Path, version: str, manifest: Manifest) -> None:
        self.path = path
        self.version = version
        self.manifest = manifest

    @classmethod
    def build(
        cls,
        sources: Sequence[Path | str],
        output: Path | str,
        *,
        encoder: TextEncoder,
        words: int = 100,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> KnowledgeBase:
        """Build a knowledge base from files and folders.

        Nothing is at ``output``, or what was there before, until all of it is written.

        Args:
            sources: Files and folders of documents; `read_documents` says which kinds there are.
            output: The folder to make.
            encoder: What embeds the passages, and will embed the questions.
            words: About how many words a passage has.
            overwrite: Give a knowledge base that is at ``output`` a new version. Its older ones are kept for
                those who read them.
            progress: Hears how far it is.

        Returns:
            The knowledge base, open.

        Raises:
            KnowledgeBaseError: The place is taken, or cannot be written.
            SourceError: A source is missing, empty or unreadable.
        """
        from ragweave.knowledge.builder import build, check_output
        from ragweave.knowledge.readers import read_documents

        output = Path(output)
        check_output(output, overwrite=overwrite)
        build(
            read_documents([Path(source) for source in sources]),
            output,
            encoder=encoder,
            words=words,
            overwrite=overwrite,
            progress=progress or NoProgress(),
        )
        return cls.open(output, encoder=encoder)

    @classmethod
    def open(cls, path: Path | str, *, encoder: TextEncoder | None = None) -> KnowledgeBase:
        """Open the version that is in force.

        Args:
            path: The folder of the knowledge base.
            encoder: The encoder of the questions, to be compared with the one that embedded the passages.

        Returns:
            The knowledge base.

        Raises:
            KnowledgeBaseError: This is not a knowledge base, or it is damaged, or of an unknown format.
            EncoderMismatchError: The passages were embedded by another encoder.
        """
        layout = Layout(Path(path))
        version = layout.read_current()
        base = cls(
            path=layout.root, version=version, manifest=Manifest.read(layout.version(version).manifest)
        )
        base._check_sizes()
        if encoder is not None:
            base.check_encoder(encoder)
        return base

    def __len__(self) -> int:
        return self.manifest.passages

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """The passages' vectors, memory-mapped, shape (N, D)."""
        from ragweave.knowledge.store import read_vectors

        vectors = read_vectors(self._files.vectors)
        self._check_shape(self._files.vectors, vectors.shape)
        return vectors

    def passage(self, row: int) -> Passage:
        """Look one passage up.

        Raises:
            IndexError: There is no such row.
        """
        return self._table[int(row)]

    def passages(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Passage]:
        """Look several passages up.

        Raises:
            IndexError: There is no such row.
        """
        return [self.passage(row) for row in rows]

    def row_of(self, passage_or_document_id: str) -> list[int]:
        """Find the row of a passage, or the rows of all passages of a document; empty if there is none."""
        return self._table.rows_of(passage_or_document_id)

    def search(self, vectors: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the passages with the largest inner products.

        Args:
            vectors: Question vectors, shape (B, D).
            n: How many passages per question, K.

        Returns:
            Scores, shape (B, K), best first, and rows, shape (B, K). Where there are fewer than K passages
            the scores are minus infinity and the rows -1.

        Raises:
            ShapeError: ``vectors`` is not a matrix.
            IndexDataError: The vectors are of another dimension than the index.
            ConfigurationError: ``n`` is below 1.
        """
        import numpy as np

        if n < 1:
            raise ConfigurationError(f"n is {n}: ask for at least 1 passage.")
        dimension = self.manifest.dimension
        if vectors.ndim != 2:
            raise ShapeError(f"vectors has shape {vectors.shape}: expected (B, {dimension}).")
        if vectors.shape[1] != dimension:
            raise IndexDataError(
                f"vectors has shape {vectors.shape}, but the passages' vectors have dimension {dimension}: "
                f"use the encoder that embedded them, {self.manifest.encoder.name}."
            )
        # FAISS would reserve room for n hits per question, though there cannot be more than N.
        k = min(n, len(self))
        found, hits = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), k)
        scores = np.full((len(vectors), n), -np.inf, dtype=np.float32)  # (B, K)
        rows = np.full((len(vectors), n), -1, dtype=np.int64)  # (B, K)
        rows[:, :k] = hits
        scores[:, :k] = np.where(hits < 0, -np.inf, found)
        return scores, rows

    def as_index(self) -> KnowledgeBaseIndex:
        """This knowledge base as an index for `RagRetriever`."""
        from ragweave.knowledge.index import KnowledgeBaseIndex

        return KnowledgeBaseIndex(self)

    def info(self) -> dict[str, Any]:
        """Describe the knowledge base in values that JSON can hold."""
        manifest = self.manifest
        return {
            "path": str(self.path),
            "version": self.version,
            "created": manifest.created,
            "documents": manifest.documents,
            "passages": manifest.passages,
            "words": manifest.words,
            "encoder": manifest.encoder.name,
            "fingerprint": manifest.encoder.fingerprint,
            "pooling": manifest.encoder.pooling,
            "normalize": manifest.encoder.normalize,
            "max_length": manifest.encoder.max_length,
            "dimension": manifest.dimension,
            "index": manifest.index.kind,
            "metric": manifest.index.metric,
            "bytes": sum(record.bytes for record in manifest.files.values()),
        }

    def check_encoder(self, encoder: TextEncoder) -> None:
        """Check that an encoder is the one that embedded the passages.

        Raises:
            EncoderMismatchError: It is not.
        """
        own = self.manifest.encoder
        if encoder.fingerprint != own.fingerprint:
            raise EncoderMismatchError(
                f"The knowledge base at {self.path} was embedded by the encoder {own.name} ({own.pooling}, "
                f"fingerprint {own.fingerprint[:12]}), but this is {encoder.name} ({encoder.pooling}, "
                f"fingerprint {encoder.fingerprint[:12]}): use the first, or build the knowledge base again "
                "with the second."
            )

    def verify(self) -> None:
        """Read every byte and compare it with what was written.

        Raises:
            KnowledgeBaseError: A file has changed.
        """
        for path in self._files.data:
            if FileRecord.of(path) != self.manifest.files[path.name]:
                raise KnowledgeBaseError(
                    f"The file {path} has changed since it was written: restore it from a copy, or build the "
                    "knowledge base again with --overwrite."
                )

    @property
    def _files(self) -> VersionLayout:
        return Layout(self.path).version(self.version)

    @cached_property
    def _table(self) -> PassageTable:
        from ragweave.knowledge.store import PassageTable

        table = PassageTable(self._files.passages)
        self._check_shape(self._files.passages, (len(table), self.manifest.dimension))
        return table

    @cached_property
    def _index(self) -> Any:
        from ragweave.knowledge.store import read_index

        index = read_index(self._files.index)
        self._check_shape(self._files.index, (index.ntotal, index.d))
        return index

    def _check_sizes(self) -> None:
        """Find a file that is missing or cut off at once, and not in the middle of a search."""
        for path in self._files.data:
            record = self.manifest.files.get(path.name)
            size = path.stat().st_size if path.is_file() else None
            if record is None or size != record.bytes:
                state = "is missing" if size is None else f"has {size} bytes"
                wanted = "is not in its manifest" if record is None else f"should have {record.bytes} bytes"
                raise KnowledgeBaseError(
                    f"The knowledge base at {self.path} is damaged: {path} {state} and {wanted}. Restore it "
                    "from a copy, or build it again with --overwrite."
                )

    def _check_shape(self, path: Path, shape: tuple[int, ...]) -> None:
        expected = (self.manifest.passages, self.manifest.dimension)
        if shape != expected:
            raise KnowledgeBaseError(
                f"The file {path} holds data of shape {shape}, its manifest says {expected}: build the "
                "knowledge base again with --overwrite."
            )

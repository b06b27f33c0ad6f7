"""Reading a knowledge base in a database: what a search has found is remembered, so that it can be looked up.

A change by another process may delete a passage between the search that finds it and the look at its text; and a
search brings texts and vectors along anyway, which saves two more trips.

Notation used for tensor shapes: B questions, K passages per question, M rows, D vector size.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.analyzer import Analyzer
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.postgres.protocol import Database, Record
from ragweave.knowledge.storage import WordScores
from ragweave.types import Passage

REMEMBERED = 4096
"""How many passages are remembered, or as many as one search has found."""


class DatabaseReader:
    """Satisfies `ragweave.knowledge.storage.Reader` with a database; several threads may use it.

    Args:
        database: The database.
        manifest: What is in it.
    """

    def __init__(self, database: Database, manifest: Manifest) -> None:
        self.database = database
        self.manifest = manifest
        self._found: OrderedDict[int, Record] = OrderedDict()
        self._lock = threading.Lock()

    def passage(self, row: int) -> Passage:
        """Look one passage up.

        Raises:
            IndexError: There is no such row, or no longer.
        """
        return self._records([row])[row].passage

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of M rows, (M, D).

        Raises:
            IndexError: There is no such row, or no longer.
        """
        records = self._records(rows.tolist())
        vectors = np.empty((len(rows), self.manifest.dimension), dtype=np.float32)
        for place, row in enumerate(rows.tolist()):
            vectors[place] = records[row].vector
        return vectors

    def search(self, questions: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the passages with the largest inner products: scores and rows, (B, K), best first."""
        scores = np.full((len(questions), n), -np.inf, dtype=np.float32)
        rows = np.full((len(questions), n), -1, dtype=np.int64)
        if not len(questions):
            return scores, rows
        found = self.database.search(questions, n)
        for place, hits in enumerate(found):
            scores[place, : len(hits)] = [score for score, _ in hits]
            rows[place, : len(hits)] = [record.row for _, record in hits]
        self._remember([record for hits in found for _, record in hits])
        return scores, rows

    def text_scorer(self, *, k1: float, b: float) -> Callable[[str], WordScores]:
        """What scores passages by the words they share with a question.

        Raises:
            KnowledgeBaseError: There are no words to search by.
            ConfigurationError: A number cannot be.
        """
        language = self.manifest.language
        if language is None:
            raise KnowledgeBaseError(
                f"The knowledge base at {self.database.place} was built to be searched by vectors alone: build it "
                "again with --overwrite to search it by words too."
            )
        if not (k1 >= 0 and math.isfinite(k1)) or not 0 <= b <= 1:
            raise ConfigurationError(f"k1 is {k1} and b is {b}: give 0 or more, and a number from 0 to 1.")
        analyzer = Analyzer(language)
        return lambda question: self.database.words_asked(analyzer.words(question), k1=k1, b=b)

    def rows_of(self, names: Collection[str]) -> dict[str, list[int]]:
        """Find the rows of many passages and documents; those of names that are not there are empty."""
        return {name: self.row_of(name) for name in names}

    def row_of(self, name: str) -> list[int]:
        """Find the row of a passage, or the rows of a document's passages."""
        return self.database.rows_with("id", name) or self.database.rows_with("document_id", name)

    def _records(self, rows: Sequence[int]) -> dict[int, Record]:
        """The records of rows, from memory or else from the database."""
        wanted = set(rows)
        with self._lock:
            records = {row: self._found[row] for row in wanted if row in self._found}
        if missing := sorted(wanted - records.keys()):
            fetched = self.database.fetch(missing)
            self._remember(fetched)
            records |= {record.row: record for record in fetched}
        if gone := wanted - records.keys():
            raise IndexError(f"There is no passage {min(gone)} in {self.database.place}, or no longer.")
        return records

    def _remember(self, records: Sequence[Record]) -> None:
        with self._lock:
            for record in records:
                self._found[record.row] = record
                self._found.move_to_end(record.row)
            while len(self._found) > max(REMEMBERED, len(records)):
                self._found.popitem(last=False)

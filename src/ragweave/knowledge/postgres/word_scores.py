"""BM25 in PostgreSQL, with the scores of a folder: over arrays of hashed words with a GIN index.

PostgreSQL's ``ts_rank`` ignores how rare a word is, and its scores cannot serve as logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, LiteralString

import numpy as np
from numpy.typing import NDArray

from ragweave.knowledge.bm25 import hashed, idf
from ragweave.knowledge.postgres.conditions import Where
from ragweave.knowledge.postgres.connection import Connection
from ragweave.knowledge.postgres.tables import Tables

_SCORED: LiteralString = (
    "SELECT p.row, (SELECT sum(question.weight * tf.count / (tf.count + %(k1)s * (1 - %(b)s + %(b)s * p.length / "
    "%(mean)s))) FROM (SELECT word, count(*)::float8 AS count FROM unnest(p.words) AS word "
    "WHERE word = ANY(%(words)s) GROUP BY word) AS tf "
    "JOIN unnest(%(words)s::bigint[], %(weights)s::float8[]) AS question (word, weight) USING (word)) AS score "
    "FROM {passages} AS p WHERE p.words && %(words)s::bigint[] AND ({condition}) "
)


class PostgresWordScores:
    """The BM25 scores of the passages that meet a condition for the words of one question; satisfies `WordScores`."""

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        words: Sequence[str],
        *,
        k1: float,
        b: float,
        where: Where,
    ) -> None:
        self._connection, self._tables, self._where = connection, tables, where
        self._settings = {"k1": k1, "b": b}
        self._words, self._counts = np.unique(hashed(words).view(np.int64), return_counts=True)

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows that share a word, best first, and their scores."""
        hits = self._fetch("ORDER BY score DESC, p.row LIMIT %(n)s", {"n": n})
        return (
            np.array([row for row, _ in hits], dtype=np.int64),
            np.array([score for _, score in hits], dtype=np.float32),
        )

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,); 0 for rows that share no word."""
        scores = dict(self._fetch("AND p.row = ANY(%(rows)s)", {"rows": rows.tolist()}))
        return np.array([scores.get(row, 0.0) for row in rows.tolist()], dtype=np.float32)

    def _fetch(self, condition: LiteralString, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        if not len(self._words):
            return []
        statement = self._tables.statement(_SCORED + condition, condition=self._where.condition)
        bound = {**self._settings, **self._statistics, **self._where.values, **values}
        return self._connection.fetch(statement, bound)

    @cached_property
    def _statistics(self) -> dict[str, Any]:
        """The weight of each word, and the mean length of a passage."""
        statement = self._tables.statement(
            "SELECT base.passages, base.words, ARRAY(SELECT (SELECT count(*) FROM {passages} "
            "WHERE words @> ARRAY[question.word]) FROM unnest(%s::bigint[]) WITH ORDINALITY "
            "AS question (word, position) ORDER BY question.position) FROM {base} AS base"
        )
        words = self._words.tolist()
        ((passages, total, frequencies),) = self._connection.fetch(statement, [words])
        weights = [
            float(count) * idf(passages, frequency)
            for count, frequency in zip(self._counts, frequencies, strict=True)
        ]
        return {"words": words, "weights": weights, "mean": (total / max(passages, 1)) or 1.0}

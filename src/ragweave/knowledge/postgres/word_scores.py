"""Search by words in PostgreSQL: BM25, as in a folder, over arrays of hashed words with a GIN index.

PostgreSQL's own ``ts_rank`` knows nothing of how rare a word is, and its scores are no logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from ragweave.knowledge.analyzer import hashed
from ragweave.knowledge.bm25 import rarity
from ragweave.knowledge.postgres.connection import Connection
from ragweave.knowledge.postgres.tables import Tables

_SCORED = sql.SQL(
    "SELECT p.row, (SELECT sum(asked.weight * own.times / (own.times + %(k1)s * (1 - %(b)s + %(b)s * p.length / "
    "%(mean)s))) FROM (SELECT word, count(*)::float8 AS times FROM unnest(p.words) AS word "
    "WHERE word = ANY(%(words)s) GROUP BY word) AS own "
    "JOIN unnest(%(words)s::bigint[], %(weights)s::float8[]) AS asked (word, weight) USING (word)) AS score "
    "FROM {} AS p WHERE p.words && %(words)s::bigint[]"
)


class PostgresWordScores:
    """Satisfies `WordScores`.

    Args:
        connection: The connection.
        tables: Where the passages are.
        words: The words of a question.
        k1: How soon further occurrences of a word cease to count.
        b: How much the length of a passage counts.
    """

    def __init__(
        self, connection: Connection, tables: Tables, words: Sequence[str], *, k1: float, b: float
    ) -> None:
        self._connection, self._tables = connection, tables
        self._numbers = {"k1": k1, "b": b}
        self._words, self._times = np.unique(hashed(words).view(np.int64), return_counts=True)

    def best(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most K rows that share a word, best first, and their scores."""
        statement = sql.SQL("{} ORDER BY score DESC, p.row LIMIT %(n)s").format(self._scored)
        found = self._run(statement, {"n": n})
        return (
            np.array([row for row, _ in found], dtype=np.int64),
            np.array([score for _, score in found], dtype=np.float32),
        )

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of M rows, (M,), 0 for those that share no word."""
        statement = sql.SQL("{} AND p.row = ANY(%(rows)s)").format(self._scored)
        scores = dict(self._run(statement, {"rows": rows.tolist()}))
        return np.array([scores.get(row, 0.0) for row in rows.tolist()], dtype=np.float32)

    @property
    def _scored(self) -> sql.Composed:
        return _SCORED.format(self._tables.passages)

    def _run(self, statement: sql.Composed, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        if not len(self._words):
            return []
        values = {**self._numbers, **self._statistics, **parameters}
        return self._connection.run(lambda connection: connection.execute(statement, values).fetchall())

    @cached_property
    def _statistics(self) -> dict[str, Any]:
        """How much each word weighs, and the mean length of a passage."""
        statement = sql.SQL(
            "SELECT base.passages, base.words, ARRAY(SELECT (SELECT count(*) FROM {} "
            "WHERE words @> ARRAY[asked.word]) FROM unnest(%s::bigint[]) WITH ORDINALITY AS asked (word, place) "
            "ORDER BY asked.place) FROM {} AS base"
        ).format(self._tables.passages, self._tables.base)
        words = self._words.tolist()
        passages, total, rows_with = self._connection.run(
            lambda connection: connection.execute(statement, [words]).fetchall()
        )[0]
        weights = [
            float(times) * rarity(passages, rows) for times, rows in zip(self._times, rows_with, strict=True)
        ]
        return {"words": words, "weights": weights, "mean": (total / max(passages, 1)) or 1.0}

"""The tables of a knowledge base in PostgreSQL: their statements, and which index their vectors get.

For ``table=kb``: ``kb`` has a row per passage, ``kb_copies`` a row for each further document with the same passage,
``kb_sources`` a row per file that was read, ``kb_base`` one row with the manifest. `psycopg.sql` composes all names,
and all values are bound.
"""

from __future__ import annotations

from typing import Literal

from psycopg import sql

from ragweave.errors import ConfigurationError
from ragweave.knowledge.manifest import WITH_METADATA, Manifest
from ragweave.knowledge.store import BEFORE_METADATA, BEFORE_PLACES, COLUMNS, NUMBERS

IndexKind = Literal["flat", "hnsw"]
"""Compare all vectors, or search a graph."""

FACTORY: dict[IndexKind, str] = {"flat": "Flat", "hnsw": "HNSW"}
"""Their names in the manifest."""

EXACT_UP_TO = 20_000
"""Up to how many passages ``"auto"`` compares all vectors, which takes PostgreSQL tens of milliseconds."""

MAX_FULL, MAX_HALF = 2000, 4000
"""The largest vectors that pgvector indexes as they are, and in half precision."""

# pgvector compares a row that is stored in one piece much faster. It has to fit into a page of 8 kB with its ids.
_MAX_INLINE = 1536
_M, _EF_CONSTRUCTION = 16, 64
_KINDS, _PARAMETERS = ("auto", "flat", "hnsw"), ("efConstruction", "efSearch")


def storable(text: str) -> str:
    """Replace NUL, which PostgreSQL refuses, by the replacement character."""
    return text.replace("\0", "\ufffd")


def check_index(kind: str, parameters: dict[str, int], dimension: int) -> None:
    """Check that PostgreSQL has a kind of index and its settings, before any work.

    Raises:
        ConfigurationError: It does not.
    """
    if kind not in _KINDS:
        raise ConfigurationError(
            f"PostgreSQL has no index {kind!r}. Choose one of {', '.join(_KINDS)}, or build the knowledge base in a "
            "folder."
        )
    if unknown := sorted(set(parameters) - set(_PARAMETERS)):
        raise ConfigurationError(
            f"An index in PostgreSQL has no parameter {', '.join(unknown)}. Choose from {', '.join(_PARAMETERS)}."
        )
    if kind == "hnsw" and dimension > MAX_HALF:
        raise ConfigurationError(
            f"hnsw in PostgreSQL indexes at most {MAX_HALF} dimensions, these vectors have {dimension}. Choose flat."
        )


def choose_index(kind: str, count: int, dimension: int) -> IndexKind:
    """The index for N passages."""
    if kind == "auto":
        return "hnsw" if count > EXACT_UP_TO and dimension <= MAX_HALF else "flat"
    return "hnsw" if kind == "hnsw" else "flat"


def current_index(manifest: Manifest) -> IndexKind:
    """The index that the tables have."""
    return "hnsw" if manifest.segments[0].factory == FACTORY["hnsw"] else "flat"


def column_names(manifest: Manifest) -> tuple[str, ...]:
    """The columns of passages that the tables have."""
    version = manifest.format_version
    return BEFORE_PLACES if version < 5 else BEFORE_METADATA if version < WITH_METADATA else COLUMNS


def passage_columns(manifest: Manifest) -> sql.Composed:
    """The columns of passages that the tables have, as SQL."""
    return sql.SQL(", ").join(map(sql.Identifier, column_names(manifest)))


def _column(name: str) -> sql.Composed:
    kind, default = ("bigint", "0") if name in NUMBERS else ("text", "'{}'" if name == "metadata" else "''")
    return sql.SQL("{} {} NOT NULL DEFAULT {}").format(sql.Identifier(name), sql.SQL(kind), sql.SQL(default))


class Tables:
    """The tables of one knowledge base.

    Args:
        name: The table of the passages, after its schema if one was named.
        suffix: The end of all names.
    """

    def __init__(self, name: tuple[str, ...], suffix: str = "") -> None:
        *schema, table = name
        self.name = name
        self.plain_names = [f"{table}{part}{suffix}" for part in ("", "_sources", "_copies", "_base")]
        self.passages, self.sources, self.copies, self.base = (
            sql.Identifier(*schema, plain) for plain in self.plain_names
        )

    @property
    def new(self) -> Tables:
        """The tables of a rebuild, which replace these at its end."""
        return Tables(self.name, "_new")

    def create_base(self) -> sql.Composed:
        """Create the table of the manifest."""
        return sql.SQL(
            "CREATE TABLE {} (here boolean PRIMARY KEY DEFAULT true CHECK (here), version bigint NOT NULL, "
            "manifest text NOT NULL, passages bigint NOT NULL, words bigint NOT NULL)"
        ).format(self.base)

    def create(self, dimension: int, first_row: int) -> list[sql.Composed]:
        """Create the tables of passages, sources and copies, without the indexes of passages."""
        columns = sql.SQL(", ").join(map(_column, COLUMNS))
        statements = [
            sql.SQL(
                "CREATE TABLE {} (row bigint GENERATED ALWAYS AS IDENTITY (START WITH {}) PRIMARY KEY, {}, "
                "hash bigint NOT NULL, embedding vector({}) NOT NULL, words bigint[], length integer NOT NULL)"
            ).format(self.passages, sql.Literal(first_row), columns, sql.Literal(dimension)),
            sql.SQL(
                "CREATE TABLE {} (digest text PRIMARY KEY, key text NOT NULL, source text NOT NULL, "
                "sha256 text NOT NULL)"
            ).format(self.sources),
            *self.create_copies(),
        ]
        if dimension <= _MAX_INLINE:
            inline = sql.SQL("ALTER TABLE {} ALTER COLUMN embedding SET STORAGE PLAIN")
            statements.append(inline.format(self.passages))
        return statements

    def add_columns(self) -> list[sql.Composed]:
        """Add the columns that tables of older formats lack."""
        added = sql.SQL(", ").join(
            sql.SQL("ADD COLUMN IF NOT EXISTS {}").format(_column(name)) for name in COLUMNS
        )
        alter = sql.SQL("ALTER TABLE IF EXISTS {} {}")
        return [alter.format(table, added) for table in (self.passages, self.copies)]

    def create_copies(self) -> list[sql.Composed]:
        """Create the table of copies, which formats before 6 lack, and its indexes."""
        create = sql.SQL(
            "CREATE TABLE {} (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {}, "
            "hash bigint NOT NULL)"
        ).format(self.copies, sql.SQL(", ").join(map(_column, COLUMNS)))
        index = sql.SQL("CREATE INDEX ON {} USING hash ({})")
        columns = map(sql.Identifier, ("hash", "id", "document_id", "source"))
        return [create, *(index.format(self.copies, column) for column in columns)]

    def create_indexes(self, *, words: bool) -> list[sql.Composed]:
        """Create the indexes except that of the vectors. Texts are hashed, since a B-tree limits their length."""
        kinds = [("hash", "btree"), ("id", "hash"), ("document_id", "hash"), ("source", "hash")]
        return [
            sql.SQL("CREATE INDEX ON {} USING {} ({})").format(
                self.passages, sql.SQL(kind), sql.Identifier(column)
            )
            for column, kind in [*kinds, *([("words", "gin")] if words else [])]
        ]

    def create_graph(self, dimension: int, parameters: dict[str, int]) -> sql.Composed:
        """Create the HNSW index."""
        half = dimension > MAX_FULL
        return sql.SQL("CREATE INDEX ON {} USING hnsw (({}) {}) WITH (m = {}, ef_construction = {})").format(
            self.passages,
            _compared("hnsw", dimension),
            sql.SQL("halfvec_ip_ops" if half else "vector_ip_ops"),
            sql.Literal(_M),
            sql.Literal(parameters.get("efConstruction", _EF_CONSTRUCTION)),
        )

    def vacuum(self) -> sql.Composed:
        """Return the space of deleted rows, and update the planner's statistics."""
        return sql.SQL("VACUUM (ANALYZE) {}").format(self.passages)

    def nearest(self, manifest: Manifest, condition: sql.Composable) -> sql.Composed:
        """Select the ``n`` passages with the largest inner products with ``vector`` that meet a condition.

        The order is by what the index compares, the score by the full vectors.
        """
        index, dimension = current_index(manifest), manifest.dimension
        half = index == "hnsw" and dimension > MAX_FULL
        return sql.SQL(
            "SELECT -(embedding <#> %(vector)s), row, embedding, {} FROM {} WHERE {} "
            "ORDER BY {} <#> %(vector)s::{} LIMIT %(n)s"
        ).format(
            passage_columns(manifest),
            self.passages,
            condition,
            _compared(index, dimension),
            sql.SQL("halfvec" if half else "vector"),
        )


def _compared(index: IndexKind, dimension: int) -> sql.Composable:
    """What is compared with a question: the vectors, or large ones in half precision, as they are indexed."""
    if index == "hnsw" and dimension > MAX_FULL:
        return sql.SQL("embedding::halfvec({})").format(sql.Literal(dimension))
    return sql.Identifier("embedding")

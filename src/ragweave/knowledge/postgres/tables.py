"""The tables of a knowledge base in PostgreSQL: their statements, and which index their vectors get.

For ``table=kb``: ``kb`` has a row per passage, ``kb_copies`` a row for each further document with the same passage,
``kb_sources`` a row per file that was read, ``kb_base`` one row with the manifest. `psycopg.sql` composes all names,
and all values are bound.
"""

from __future__ import annotations

from typing import Literal, LiteralString

from psycopg import sql

from ragweave.errors import ConfigurationError
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.store import COLUMNS, NUMBERS

IndexKind = Literal["flat", "hnsw"]  # compare all vectors, or search a graph
FACTORY: dict[IndexKind, str] = {"flat": "Flat", "hnsw": "HNSW"}  # their names in the manifest

EXACT_UP_TO = 20_000
"""Up to how many passages ``"auto"`` compares all vectors, which takes PostgreSQL tens of milliseconds."""

MAX_FULL, MAX_HALF = 2000, 4000
"""The largest vectors that pgvector indexes in full, and in half precision."""

# pgvector compares a row that is stored in one piece much faster. It has to fit into a page of 8 kB with its ids.
_MAX_INLINE = 1536
_M, _EF_CONSTRUCTION = 16, 64
_KINDS, _PARAMETERS = ("auto", "flat", "hnsw"), ("efConstruction", "efSearch")


def storable(text: str) -> str:
    """Replace NUL, which PostgreSQL refuses, by the replacement character."""
    return text.replace("\0", "\ufffd")


def check_index(kind: str, parameters: dict[str, int], dimension: int) -> None:
    """Check that PostgreSQL has a kind of index and its settings, before any work."""
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


def _column(name: str) -> sql.Composed:
    kind, default = ("bigint", "0") if name in NUMBERS else ("text", "'{}'" if name == "metadata" else "''")
    return sql.SQL("{} {} NOT NULL DEFAULT {}").format(sql.Identifier(name), sql.SQL(kind), sql.SQL(default))


class Tables:
    """The tables of one knowledge base, whose names end in a suffix; ``name`` may begin with a schema."""

    def __init__(self, name: tuple[str, ...], suffix: str = "") -> None:
        *schema, table = name
        self.name = name
        self.plain_names = [f"{table}{part}{suffix}" for part in ("", "_sources", "_copies", "_base")]
        self.passages, self.sources, self.copies, self.base = (
            sql.Identifier(*schema, plain) for plain in self.plain_names
        )
        self.rebuilt = self.passages, self.sources, self.copies  # the tables that a rebuild replaces
        names = ("passages", "sources", "copies", "base")
        self._parts: dict[str, sql.Composable] = {name: getattr(self, name) for name in names}
        self._parts["columns"] = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))

    def statement(self, text: LiteralString, **parts: sql.Composable) -> sql.Composed:
        """A statement with the names of the tables, the ``{columns}`` of passages, and other parts."""
        return sql.SQL(text).format(**self._parts, **parts)

    @property
    def new(self) -> Tables:
        """The tables of a rebuild, which replace these at its end."""
        return Tables(self.name, "_new")

    def create_base(self) -> sql.Composed:
        """Create the table of the manifest."""
        return self.statement(
            "CREATE TABLE {base} (here boolean PRIMARY KEY DEFAULT true CHECK (here), version bigint NOT NULL, "
            "manifest text NOT NULL, passages bigint NOT NULL, words bigint NOT NULL)"
        )

    def create(self, dimension: int, first_row: int) -> list[sql.Composed]:
        """Create the tables of passages, sources and copies, without the indexes of passages."""
        definitions = sql.SQL(", ").join(map(_column, COLUMNS))
        statements = [
            self.statement(
                "CREATE TABLE {passages} (row bigint GENERATED ALWAYS AS IDENTITY (START WITH {first}) PRIMARY KEY, "
                "{definitions}, hash bigint NOT NULL, embedding vector({dimension}) NOT NULL, words bigint[], "
                "length integer NOT NULL)",
                first=sql.Literal(first_row),
                definitions=definitions,
                dimension=sql.Literal(dimension),
            ),
            self.statement(
                "CREATE TABLE {sources} (digest text PRIMARY KEY, key text NOT NULL, source text NOT NULL, "
                "sha256 text NOT NULL)"
            ),
            self.statement(
                "CREATE TABLE {copies} (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {definitions}, "
                "hash bigint NOT NULL)",
                definitions=definitions,
            ),
        ]
        for column in ("hash", "id", "document_id", "source"):
            index: LiteralString = "CREATE INDEX ON {copies} USING hash ({column})"
            statements.append(self.statement(index, column=sql.Identifier(column)))
        if dimension <= _MAX_INLINE:
            statements.append(
                self.statement("ALTER TABLE {passages} ALTER COLUMN embedding SET STORAGE PLAIN")
            )
        return statements

    def create_indexes(self, *, words: bool) -> list[sql.Composed]:
        """Create the indexes except that of the vectors. Texts are hashed, since a B-tree limits their length."""
        kinds = [("hash", "btree"), ("id", "hash"), ("document_id", "hash"), ("source", "hash")]
        index: LiteralString = "CREATE INDEX ON {passages} USING {kind} ({column})"
        return [
            self.statement(index, kind=sql.SQL(kind), column=sql.Identifier(column))
            for column, kind in [*kinds, *([("words", "gin")] if words else [])]
        ]

    def create_graph(self, dimension: int, parameters: dict[str, int]) -> sql.Composed:
        """Create the HNSW index."""
        return self.statement(
            "CREATE INDEX ON {passages} USING hnsw (({compared}) {operators}) WITH (m = {m}, ef_construction = {ef})",
            compared=_compared("hnsw", dimension),
            operators=sql.SQL("halfvec_ip_ops" if dimension > MAX_FULL else "vector_ip_ops"),
            m=sql.Literal(_M),
            ef=sql.Literal(parameters.get("efConstruction", _EF_CONSTRUCTION)),
        )

    def nearest(self, manifest: Manifest, condition: sql.Composable) -> sql.Composed:
        """Select the ``n`` passages with the largest inner products with ``vector`` that meet a condition.

        The order is that of the index, the scores come from the full vectors.
        """
        index, dimension = current_index(manifest), manifest.dimension
        return self.statement(
            "SELECT -(embedding <#> %(vector)s), row, embedding, {columns} FROM {passages} WHERE {condition} "
            "ORDER BY {compared} <#> %(vector)s::{kind} LIMIT %(n)s",
            condition=condition,
            compared=_compared(index, dimension),
            kind=sql.SQL("halfvec" if index == "hnsw" and dimension > MAX_FULL else "vector"),
        )


def _compared(index: IndexKind, dimension: int) -> sql.Composable:
    """The expression that is compared with a question: the vectors, or large ones in half precision, as indexed."""
    if index == "hnsw" and dimension > MAX_FULL:
        return sql.SQL("embedding::halfvec({})").format(sql.Literal(dimension))
    return sql.Identifier("embedding")

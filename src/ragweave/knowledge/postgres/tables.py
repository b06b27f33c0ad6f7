"""The tables of a knowledge base in PostgreSQL, and their statements.

For ``table=kb``: ``kb`` has a row for every passage, ``kb_sources`` one for every file that was read, ``kb_base`` one
for all.
All names are composed by `psycopg.sql`, all values are bound.
"""

from __future__ import annotations

from psycopg import sql

from ragweave.knowledge.postgres.protocol import IndexKind
from ragweave.knowledge.store import COLUMNS, NUMBERS

MOST_FULL, MOST_HALF = 2000, 4000
"""Up to how many numbers pgvector indexes as they are, and in two bytes each."""

# A row that pgvector keeps in one piece is compared much faster; it has to fit into a page of 8 kB with its ids.
_MOST_INLINE = 1536
_M, _EF_CONSTRUCTION = 16, 64

PASSAGE = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))


class Tables:
    """The names of the tables.

    Args:
        name: The table of the passages, perhaps after its schema.
        suffix: What their names end in.
    """

    def __init__(self, name: tuple[str, ...], suffix: str = "") -> None:
        *schema, table = name
        self.name = name
        self.plain = {part: f"{table}{part}{suffix}" for part in ("", "_sources", "_base")}
        self.passages, self.sources, self.base = (
            sql.Identifier(*schema, plain) for plain in self.plain.values()
        )

    @property
    def new(self) -> Tables:
        """Those that are being built, until they replace these."""
        return Tables(self.name, "_new")

    def create_base(self) -> sql.Composed:
        """The table of what holds for all."""
        return sql.SQL(
            "CREATE TABLE {} (here boolean PRIMARY KEY DEFAULT true CHECK (here), version bigint NOT NULL, "
            "manifest text NOT NULL, passages bigint NOT NULL, words bigint NOT NULL)"
        ).format(self.base)

    def create(self, dimension: int, first_row: int) -> list[sql.Composed]:
        """The tables of passages and sources, without indexes."""
        columns = sql.SQL(", ").join(
            sql.SQL("{} {} NOT NULL").format(
                sql.Identifier(name), sql.SQL("bigint" if name in NUMBERS else "text")
            )
            for name in COLUMNS
        )
        statements = [
            sql.SQL(
                "CREATE TABLE {} (row bigint GENERATED ALWAYS AS IDENTITY (START WITH {}) PRIMARY KEY, {}, "
                "hash bigint NOT NULL, embedding vector({}) NOT NULL, words bigint[], length integer NOT NULL)"
            ).format(self.passages, sql.Literal(first_row), columns, sql.Literal(dimension)),
            sql.SQL(
                "CREATE TABLE {} (digest text PRIMARY KEY, key text NOT NULL, source text NOT NULL, "
                "sha256 text NOT NULL)"
            ).format(self.sources),
        ]
        if dimension <= _MOST_INLINE:
            inline = sql.SQL("ALTER TABLE {} ALTER COLUMN embedding SET STORAGE PLAIN")
            statements.append(inline.format(self.passages))
        return statements

    def create_indexes(self, *, words: bool) -> list[sql.Composed]:
        """What finds passages by anything but their vectors; texts by hashes, for they may be of any length."""
        kinds = [("hash", "btree"), ("id", "hash"), ("document_id", "hash"), ("source", "hash")]
        return [
            sql.SQL("CREATE INDEX ON {} USING {} ({})").format(
                self.passages, sql.SQL(kind), sql.Identifier(column)
            )
            for column, kind in [*kinds, *([("words", "gin")] if words else [])]
        ]

    def create_graph(self, dimension: int, parameters: dict[str, int]) -> sql.Composed:
        """The HNSW index."""
        half = dimension > MOST_FULL
        return sql.SQL("CREATE INDEX ON {} USING hnsw ({} {}) WITH (m = {}, ef_construction = {})").format(
            self.passages,
            sql.SQL("({})").format(compared("hnsw", dimension)),
            sql.SQL("halfvec_ip_ops" if half else "vector_ip_ops"),
            sql.Literal(_M),
            sql.Literal(parameters.get("efConstruction", _EF_CONSTRUCTION)),
        )

    def nearest(self, index: IndexKind, dimension: int) -> sql.Composed:
        """Passages by their inner products with ``vector``, the largest first; also of those alone that it finds."""
        return sql.SQL(
            "SELECT -(embedding <#> %(vector)s), row, embedding, {} FROM {} ORDER BY {} <#> {} LIMIT %(n)s"
        ).format(
            PASSAGE,
            self.passages,
            compared(index, dimension),
            sql.SQL("%(vector)s::{}").format(sql.SQL(_type(index, dimension))),
        )


def compared(index: IndexKind, dimension: int) -> sql.Composable:
    """What questions are compared with: vectors, or what is indexed of large ones."""
    if index == "hnsw" and dimension > MOST_FULL:
        return sql.SQL("embedding::halfvec({})").format(sql.Literal(dimension))
    return sql.Identifier("embedding")


def _type(index: IndexKind, dimension: int) -> str:
    return "halfvec" if index == "hnsw" and dimension > MOST_FULL else "vector"

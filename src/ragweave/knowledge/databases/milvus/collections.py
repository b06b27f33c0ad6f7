"""The collections of a knowledge base in Milvus.

For ``collection=kb``: ``kb`` has a record of what holds for all, one for every file that was read, and what a change
has still to do; ``kb_000001`` has the passages. Filters compare numbers alone: texts are compared by hashes, so that
nothing that a user wrote is ever part of an expression.

A row's number is that of the change that wrote it, and its place in the change. So no row is ever given twice, and
what a change has written can be told from what was there before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pymilvus import CollectionSchema, DataType, Function, FunctionType, MilvusClient
from pymilvus.milvus_client.index import IndexParams

from ragweave.knowledge.databases.milvus.connection import READ, WRITE
from ragweave.knowledge.databases.protocol import IndexKind
from ragweave.knowledge.store import COLUMNS, NUMBERS

LONGEST = 65_535
"""The most bytes of a text that Milvus holds."""

K1, B = 0.9, 0.4
"""The numbers of BM25, which Milvus fixes with the index."""

MOST_FOUND = 16_384
"""The most passages that a search finds."""

AT_ONCE = 1000
"""How many values a filter names, or small records a request brings."""

_CHANGE_BITS = 32
_M, _EF_CONSTRUCTION = 16, 128


def first_row(change: int) -> int:
    """The first row that a change writes."""
    return change << _CHANGE_BITS


def number_of(text: str) -> int:
    """What a text is compared by, a whole number of 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def create_base(client: MilvusClient, name: str) -> None:
    """Make the collection of records. Milvus wants a vector in each, of which nothing is made here."""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, max_length=64, is_primary=True)
    schema.add_field("content", DataType.VARCHAR, max_length=LONGEST)
    schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=2)
    indexes = client.prepare_index_params()
    indexes.add_index("nothing", index_type="FLAT", metric_type="IP")
    _create(client, name, schema, indexes)


def is_base(client: MilvusClient, name: str) -> bool:
    """Whether a collection is one of records."""
    fields = client.describe_collection(name, timeout=READ)["fields"]
    return {field["name"] for field in fields} == {"key", "content", "nothing"}


def create_passages(client: MilvusClient, name: str, *, dimension: int, words: bool) -> None:
    """Make a collection of passages whose vectors are compared one by one."""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    for column in COLUMNS:
        if column in NUMBERS:
            schema.add_field(column, DataType.INT64)
        else:
            schema.add_field(column, DataType.VARCHAR, max_length=LONGEST)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type="IP")
    for column in ("hash", "id_number", "document_number", "source_number"):
        schema.add_field(column, DataType.INT64)
        indexes.add_index(column, index_type="INVERTED")
    if words:
        # They come taken apart already, so that all that is left to do is to cut at the spaces.
        schema.add_field(
            "words",
            DataType.VARCHAR,
            max_length=LONGEST,
            enable_analyzer=True,
            analyzer_params={"tokenizer": "standard"},
        )
        schema.add_field("counts", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(
                name="bm25",
                function_type=FunctionType.BM25,
                input_field_names=["words"],
                output_field_names=["counts"],
            )
        )
        indexes.add_index(
            "counts",
            index_type="SPARSE_INVERTED_INDEX",
            metric_type="BM25",
            params=_nested({"bm25_k1": K1, "bm25_b": B}),
        )
    _create(client, name, schema, indexes)


def _create(client: MilvusClient, name: str, schema: CollectionSchema, indexes: IndexParams) -> None:
    """Make a collection in which everything is found as soon as it is written."""
    client.create_collection(name, schema=schema, consistency_level="Strong", timeout=WRITE)
    # There is nothing to index yet, and so nothing to wait for.
    client.create_index(name, indexes, sync=False, timeout=WRITE)
    client.load_collection(name, timeout=WRITE)


def index_vectors(client: MilvusClient, name: str, index: IndexKind, parameters: dict[str, int]) -> None:
    """Change how vectors are searched, where it is another way; meanwhile, searches wait or fail."""
    wanted = {"flat": "FLAT", "hnsw": "HNSW"}[index]
    found = client.describe_index(name, "vector", timeout=READ) or {}
    if found.get("index_type") == wanted:
        return
    client.release_collection(name, timeout=WRITE)
    if found:
        client.drop_index(name, "vector", timeout=WRITE)
    indexes = client.prepare_index_params()
    settings = {"M": _M, "efConstruction": parameters.get("efConstruction", _EF_CONSTRUCTION)}
    indexes.add_index(
        "vector", index_type=wanted, metric_type="IP", params=_nested(settings) if index == "hnsw" else {}
    )
    client.create_index(name, indexes, timeout=None)  # a large one takes as long as it takes
    client.load_collection(name, timeout=None)


def _nested(parameters: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Settings of an index as both servers and Milvus Lite read them, which passes over others."""
    return {"params": dict(parameters)}


def among(column: str, numbers: Iterable[int]) -> Iterator[str]:
    """Filters for rows that have one of these numbers in a column, each of bearable length."""
    for some in in_parts(sorted(numbers)):
        yield f"{column} in [{', '.join(map(str, some))}]"


def in_parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """As many values at a time as a request takes."""
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]


def rows_of(
    client: MilvusClient, name: str, condition: str, columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """All rows that fulfil a condition, however many."""
    iterator = client.query_iterator(
        name, filter=condition, output_fields=list(columns), batch_size=AT_ONCE, timeout=READ
    )
    try:
        while batch := iterator.next():
            yield from batch
    finally:
        iterator.close()


def read_records(client: MilvusClient, name: str, keys: Sequence[str]) -> dict[str, Any]:
    """Records by their keys, as far as they are there."""
    found = client.get(name, ids=list(keys), output_fields=["content"], timeout=READ)
    return {row["key"]: json.loads(row["content"]) for row in found}


def records_of(client: MilvusClient, name: str, kind: str) -> Iterator[tuple[str, Any]]:
    """All records whose keys begin with a kind."""
    for row in rows_of(client, name, f'key like "{kind}:%"', ["key", "content"]):
        yield row["key"], json.loads(row["content"])


def write_records(client: MilvusClient, name: str, records: dict[str, Any]) -> None:
    """Write records, each in place of the one that has its key."""
    rows = [
        {"key": key, "content": json.dumps(content, ensure_ascii=False), "nothing": [0.0, 0.0]}
        for key, content in records.items()
    ]
    for some in in_parts(rows):
        client.upsert(name, some, timeout=WRITE)


def remove_records(client: MilvusClient, name: str, keys: Sequence[str]) -> None:
    """Remove records."""
    for some in in_parts(keys):
        client.delete(name, ids=list(some), timeout=WRITE)

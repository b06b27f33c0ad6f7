"""What holds for a knowledge base in Milvus as a whole, and how a change comes into force without transactions.

A change goes through these steps, and each of them is a request:

1. The record ``base`` says that change n is begun, and which collection is made for it, if any.
2. New passages are written, in rows of n. Those that they replace stay.
3. What is left to do is written down in records ``next``: what to delete, which sources to note.
4. ``base`` names n as the version: from here on, the change is in force.
5. What is left to do is done, its records are removed, and ``base`` says that no change is begun.

Whoever finds a change that was begun, and its writer gone, takes back what step 2 has written if ``base`` does not
name it as the version, and else does step 5 again, of which every part may be done twice. At no time are there
neither the old passages of a source nor its new ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from pymilvus import MilvusClient

from ragweave.knowledge.databases.milvus.collections import (
    among,
    first_row,
    in_parts,
    read_records,
    records_of,
    remove_records,
    write_records,
)
from ragweave.knowledge.databases.milvus.connection import WRITE

_KEY = "base"


@dataclass(frozen=True, slots=True)
class Base:
    """What holds for all.

    Attributes:
        version: The last change in force; 0 before the first.
        begun: The last change that was begun.
        open: Whether something of it may be left to do.
        passages: The collection with the passages; empty before the first change.
        other: A collection of passages that is being built, or is in force no more.
        manifest: What the knowledge base holds, as JSON.
    """

    version: int = 0
    begun: int = 0
    open: bool = False
    passages: str = ""
    other: str = ""
    manifest: str = ""


def collection_of(name: str, change: int) -> str:
    """The collection of the passages that a change writes anew."""
    return f"{name}_{change:06}"


def read_base(client: MilvusClient, name: str) -> Base | None:
    """The record; ``None`` where there is none."""
    found = read_records(client, name, [_KEY])
    return Base(**found[_KEY]) if found else None


def write_base(client: MilvusClient, name: str, base: Base) -> None:
    """Write the record."""
    write_records(client, name, {_KEY: asdict(base)})


def note(client: MilvusClient, name: str, steps: Iterable[dict[str, Any]]) -> None:
    """Write down what is left to do, in this order."""
    write_records(client, name, {f"next:{place:08}": step for place, step in enumerate(steps)})


def steps_of(
    *,
    gone: Iterable[int],
    rows: Iterable[int],
    sources: dict[str, dict[str, str]],
    forgotten: Iterable[str],
) -> list[dict[str, Any]]:
    """What is to be done once a change is in force.

    Args:
        gone: The numbers of sources whose passages of before the change go.
        rows: Rows that go.
        sources: Records of sources, by their keys.
        forgotten: Keys of sources that are no longer known.
    """
    steps: list[dict[str, Any]] = [{"gone": list(some)} for some in in_parts(sorted(gone))]
    steps += [{"rows": list(some)} for some in in_parts(sorted(rows))]
    steps += [{"forget": list(some)} for some in in_parts(sorted(forgotten))]
    return [*steps, *({"source": key, "record": record} for key, record in sources.items())]


def finish(client: MilvusClient, name: str, base: Base) -> None:
    """Do what is left to do of a change that is in force."""
    done: list[str] = []
    sources: dict[str, Any] = {}
    for key, step in sorted(records_of(client, name, "next")):
        done.append(key)
        if "source" in step:
            sources[step["source"]] = step["record"]
        for condition in among("source_number", step.get("gone", ())):
            before = f"{condition} and row < {first_row(base.version)}"
            client.delete(base.passages, filter=before, timeout=WRITE)
        if rows := step.get("rows"):
            client.delete(base.passages, ids=rows, timeout=WRITE)
        remove_records(client, name, step.get("forget", []))
    write_records(client, name, sources)
    remove_records(client, name, done)
    _close(client, name, base)


def take_back(client: MilvusClient, name: str, base: Base) -> None:
    """Remove what a change has written that did not come into force."""
    remove_records(client, name, [key for key, _ in records_of(client, name, "next")])
    if base.passages:
        client.delete(base.passages, filter=f"row >= {first_row(base.begun)}", timeout=WRITE)
    _close(client, name, base)


def _close(client: MilvusClient, name: str, base: Base) -> None:
    if base.other:
        client.drop_collection(base.other, timeout=WRITE)  # which may be gone already
    write_base(client, name, replace(base, open=False, other=""))

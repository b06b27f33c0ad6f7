"""What depends on whether a knowledge base is in a folder or in a database."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ragweave.knowledge.postgres.uri import is_uri


def check_output(place: Path | str, *, overwrite: bool) -> None:
    """Check, before any work is done, that a knowledge base may be written to a place.

    Args:
        place: A folder, or the URI of a database.
        overwrite: Whether what is there may be replaced.

    Raises:
        KnowledgeBaseError: A knowledge base is there and ``overwrite`` is false, or something else is there, or the
            database cannot be reached.
    """
    if is_uri(place):
        from ragweave.knowledge.postgres.changes import check_free
        from ragweave.knowledge.postgres.opening import database_at

        database = database_at(str(place))
        check_free(database, database.state(), overwrite=overwrite)
        return
    from ragweave.knowledge.ingest import transaction

    transaction.check_output(Path(place), overwrite=overwrite)


def check_kind(place: Path | str, kind: str, parameters: dict[str, int], dimension: int) -> None:
    """Check that there is a kind of index with these settings, before any work is done.

    Raises:
        ConfigurationError: There is none.
    """
    if is_uri(place):
        from ragweave.knowledge.postgres import index_kinds as kinds
        from ragweave.knowledge.postgres.opening import database_at

        kinds.check(kind, parameters, dimension, database_at(str(place)).most_indexed)
        return
    from ragweave.knowledge import vector_index

    vector_index.check_kind(kind, parameters, dimension)


def writer_of(place: Path | str) -> Callable[..., None]:
    """What builds a knowledge base at a place from files; see `ragweave.knowledge.ingest.changes.build`."""
    if is_uri(place):
        from ragweave.knowledge.postgres.changes import build as build_in_database
        from ragweave.knowledge.postgres.opening import database_at

        return partial(build_in_database, database_at(str(place)))
    from ragweave.knowledge.ingest.changes import build

    return partial(build, output=Path(place))

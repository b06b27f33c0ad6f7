"""How the vectors of a database are searched: the words for it, and which is chosen."""

from __future__ import annotations

from ragweave.errors import ConfigurationError
from ragweave.knowledge.manifest import Manifest
from ragweave.knowledge.postgres.protocol import IndexKind

EXACT_UP_TO = 20_000
"""Up to how many passages ``"auto"`` compares with every vector, which takes a database tens of milliseconds."""

KINDS = ("auto", "flat", "hnsw")
PARAMETERS = ("efConstruction", "efSearch")

FACTORY: dict[IndexKind, str] = {"flat": "Flat", "hnsw": "HNSW"}
"""What the manifest calls them."""


def check(kind: str, parameters: dict[str, int], dimension: int, most_indexed: int) -> None:
    """Check that databases have a kind of index and its settings.

    Args:
        kind: As it was asked for.
        parameters: Settings.
        dimension: D.
        most_indexed: The largest D that the database can search by a graph.

    Raises:
        ConfigurationError: They do not.
    """
    if kind not in KINDS:
        raise ConfigurationError(
            f"A knowledge base in a database has no index {kind!r}: choose one of {', '.join(KINDS)}, or a folder, "
            "which has the others."
        )
    if unknown := sorted(set(parameters) - set(PARAMETERS)):
        raise ConfigurationError(
            f"An index in a database has no parameter {', '.join(unknown)}; choose among {', '.join(PARAMETERS)}."
        )
    if kind == "hnsw" and dimension > most_indexed:
        raise ConfigurationError(
            f"This database indexes vectors of at most {most_indexed} numbers by hnsw, these have {dimension}: "
            "choose flat."
        )


def current(manifest: Manifest) -> IndexKind:
    """The index that there is."""
    return "hnsw" if manifest.segments[0].factory == FACTORY["hnsw"] else "flat"


def chosen(kind: str, count: int, dimension: int, most_indexed: int) -> IndexKind:
    """The index for so many passages."""
    if kind == "auto":
        return "hnsw" if count > EXACT_UP_TO and dimension <= most_indexed else "flat"
    return "hnsw" if kind == "hnsw" else "flat"

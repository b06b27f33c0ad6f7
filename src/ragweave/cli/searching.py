"""The options of commands that search a knowledge base."""

from __future__ import annotations

from typing import Annotated

import typer

from ragweave.types import Fusion, RetrievalKind

Retrieval = Annotated[
    RetrievalKind | None,
    typer.Option(
        "--retrieval",
        help="Search by vectors (dense), by words (bm25), or by both (hybrid) (default: the model's).",
    ),
]
FusedBy = Annotated[
    Fusion,
    typer.Option(
        "--fusion", help="How hybrid puts both together: weighted mean of scores, or reciprocal ranks (rrf)."
    ),
]
DenseWeight = Annotated[
    float | None,
    typer.Option(
        "--dense-weight", min=0, max=1, help="What vectors count in the weighted mean (default: the model's)."
    ),
]
Candidates = Annotated[
    int, typer.Option("--candidates", min=1, help="Passages of each ranking that are fused or reranked.")
]
Rerank = Annotated[
    str | None,
    typer.Option(
        "--rerank",
        metavar="MODEL",
        help="Cross-encoder that chooses among the candidates: folder or hub name.",
    ),
]

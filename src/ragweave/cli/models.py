"""The options of commands that load a model and let it answer."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

RagModel = Annotated[str, typer.Option("--model", help="'embedded', or folder or hub name of a RAG model.")]
Beams = Annotated[int, typer.Option("--beams", "--num-beams", min=1, help="Beams of the search.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]
NDocs = Annotated[
    int | None, typer.Option("--n-docs", min=1, help="Passages per question (default: the model's).")
]
ModelFormulation = Annotated[
    Literal["token", "sequence"] | None,
    typer.Option("--formulation", help="RAG-Token or RAG-Sequence (default: the model's)."),
]
GeneratorDtype = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    typer.Option("--dtype", help="Type that the generator computes in."),
]
Device = Annotated[str | None, typer.Option("--device", help="Where to compute, such as cuda.")]

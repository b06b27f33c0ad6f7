"""What the commands that change a knowledge base share."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.knowledge.ingest.builder import Engine

AsJson = Annotated[bool, typer.Option("--json", help="Print the knowledge base as one JSON object.")]


EngineKind = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Embed in this process, or with the workers of a Ray cluster."),
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="With --engine ray, how many workers.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="A Ray cluster that is running (default: one is started here).",
    ),
]


def load_engine(kind: Literal["local", "ray"], workers: int, address: str | None) -> Engine:
    """What embeds the passages."""
    from ragweave.knowledge.ingest.builder import LocalEngine

    if kind == "local":
        return LocalEngine()
    from ragweave.knowledge.ingest.ray_engine import RayEngine

    return RayEngine(workers=workers, address=address)


def show_change(base: KnowledgeBase, *, as_json: bool, before: str | None = None) -> None:
    """Say what a change has made of a knowledge base, and warn of what was skipped.

    Args:
        base: The knowledge base after it.
        as_json: Say it as one JSON object.
        before: The version before, which is still in force if nothing has changed.
    """
    from ragweave.cli.console import stdout, warn

    change, manifest = base.manifest.change, base.manifest
    changed = base.version != before
    for sentence in change.skipped if changed else ():
        warn(f"skipped: {sentence}")
    if as_json:
        sys.stdout.write(json.dumps(base.info(), ensure_ascii=False) + "\n")
        return
    parts = [
        f"{number} {what}"
        for number, what in (
            (change.added, "passages added"),
            (change.deleted, "deleted"),
            (change.duplicates, "duplicates left out"),
            (change.unchanged, "sources unchanged"),
            (len(change.skipped), "sources skipped"),
        )
        if number
    ]
    done = ", ".join(parts) if changed else "nothing has changed"
    recall = manifest.recall
    found = "" if recall in (None, 1) else f" Recall@10 against comparing all vectors: {recall:.3f}."
    stdout().print(
        f"{base.path}: {manifest.passages} passages from {manifest.documents} documents, version "
        f"{base.version}, embedded by {manifest.encoder.name}{f' ({done})' if done else ''}.{found}",
        markup=False,
        soft_wrap=True,
    )


def load_encoder(
    model: str, dtype: Literal["auto", "float32", "bfloat16"] = "float32", device: str | None = None
) -> TextEncoder:
    """Load an encoder: "embedded", or by a name on the hub, or from a folder."""
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.pipeline.embedded import ENCODER, encoder_path

    if model not in {"embedded", ENCODER}:
        return TextEncoder.from_pretrained(model, dtype=dtype, device=device)
    # The name on the hub means the same model on every machine; its folder is of this one alone.
    return TextEncoder.from_pretrained(encoder_path(), dtype=dtype, device=device, name=ENCODER)

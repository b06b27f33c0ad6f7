"""``ragweave index``: a knowledge base from files and folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ragweave.encoding import TextEncoder

HELP = """Build a knowledge base from documents.

Reads .txt, .md, .csv and .tsv (columns title, text), .jsonl (keys id, title, text) and folders of these, cuts
them into passages on sentence boundaries, and embeds them.

Examples:

  ragweave index notes/ --output kb

  ragweave index people.csv history.jsonl --output kb --overwrite

  ragweave index notes/ --output kb --model sentence-transformers/multi-qa-MiniLM-L6-cos-v1 --words 60
"""


def index(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Files and folders to read.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="KB", help="Folder to make.")],
    model: Annotated[
        str, typer.Option(help="Encoder: 'embedded', a name on the hub, or a folder.")
    ] = "embedded",
    words: Annotated[int, typer.Option(min=1, help="About how many words a passage has.")] = 100,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the content of a knowledge base that is there.")
    ] = False,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Type that the encoder computes in; auto: bfloat16 where the processor has it."),
    ] = "float32",
    device: Annotated[str | None, typer.Option(help="Where to compute, such as cuda.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was built as one JSON object.")] = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.console import quiet_libraries, stage_bars, stdout
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.knowledge.builder import check_output
    from ragweave.knowledge.readers import READERS
    from ragweave.knowledge.readers.files import find_files

    # Mistakes in the arguments are told at once, not after a model was loaded.
    check_output(output, overwrite=overwrite)
    find_files(sources, frozenset(READERS))
    quiet_libraries()
    with stage_bars() as progress:
        encoder = _load_encoder(model, dtype, device)
        base = KnowledgeBase.build(
            sources, output, encoder=encoder, words=words, overwrite=overwrite, progress=progress
        )
    if as_json:
        sys.stdout.write(json.dumps(base.info(), ensure_ascii=False) + "\n")
        return
    manifest = base.manifest
    stdout().print(
        f"{output}: {manifest.passages} passages from {manifest.documents} documents, version "
        f"{base.version}, embedded by {manifest.encoder.name}.",
        markup=False,
        soft_wrap=True,
    )


def _load_encoder(
    model: str, dtype: Literal["auto", "float32", "bfloat16"], device: str | None
) -> TextEncoder:
    from ragweave.encoding import TextEncoder

    if model != "embedded":
        return TextEncoder.from_pretrained(model, dtype=dtype, device=device)
    from ragweave.embedded import ENCODER, encoder_path

    # The name on the hub means the same model on every machine; its folder is of this one alone.
    return TextEncoder.from_pretrained(encoder_path(), dtype=dtype, device=device, name=ENCODER)

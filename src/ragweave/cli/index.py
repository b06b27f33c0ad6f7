"""``ragweave index``: a knowledge base from files and folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ragweave.cli.changes import EngineKind, RayAddress, Workers
from ragweave.cli.models import Device
from ragweave.cli.spooling import StdinFormat, StdinName, spooled

HELP = """Build a knowledge base from documents.

Reads .txt, .md, .csv, .tsv and .parquet (columns title, text), .jsonl (keys id, title, text), .pdf, .docx, .pptx,
.xlsx, .html and .epub, and folders of these, cuts them into passages on sentence boundaries, and embeds them.

Examples:

  ragweave index notes/ --output kb

  ragweave index people.csv history.jsonl --output kb --overwrite

  ragweave index notes/ --output kb --model sentence-transformers/multi-qa-MiniLM-L6-cos-v1 --words 60

  ragweave index dump.jsonl --output kb --index hnsw --set efSearch=64

  ragweave index notizen/ --output kb --language german

  ragweave index handbook/ --output kb --chunking markdown --overlap 20

  zcat dump.jsonl.gz | ragweave index - --stdin-format jsonl --stdin-name dump --output kb

  ragweave index dump.jsonl --output kb --resume

  ragweave index dump.jsonl --output kb --engine ray --workers 8 --ray-address 10.0.0.1:6379

  ragweave index notes/ --output 'postgresql://user@host/db?table=kb'

"""


def index(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE", help="Files, folders, hf://datasets/NAME, or - for standard input."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="KB", help="Folder to make, or URI of a database.")
    ],
    stdin_format: StdinFormat = "txt",
    stdin_name: StdinName = "stdin",
    model: Annotated[
        str, typer.Option(help="Encoder: 'embedded', a name on the hub, or a folder.")
    ] = "embedded",
    chunking: Annotated[
        Literal["sentences", "words", "tokens", "markdown"],
        typer.Option(
            help="Cut passages at the ends of sentences, after exactly so many words, after so many tokens of the "
            "encoder, or at Markdown's headings and the ends of sentences."
        ),
    ] = "sentences",
    words: Annotated[int, typer.Option(min=1, help="How many words a passage has.")] = 100,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --chunking tokens, how many at most (default: what the encoder reads)."
        ),
    ] = None,
    overlap: Annotated[
        int, typer.Option(min=0, help="How many words (or tokens) of the passage before each repeats.")
    ] = 0,
    kind: Annotated[
        str,
        typer.Option(
            "--index",
            metavar="KIND",
            help="How passages are searched: flat, hnsw, ivfpq, sq8, words of FAISS' index factory, or auto: flat up "
            "to 100,000 passages, hnsw above. In a database: flat, hnsw, or auto: flat up to 20,000.",
        ),
    ] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=NUMBER", help="Setting of the index, such as nprobe=16 or efSearch=64."
        ),
    ] = None,
    language: Annotated[
        str,
        typer.Option(
            help="Language of the words for --retrieval bm25 and hybrid; none leaves them as they are."
        ),
    ] = "english",
    vectors_only: Annotated[
        bool, typer.Option("--vectors-only", help="Leave out what search by words needs.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a source that cannot be read, rather than skip it.")
    ] = False,
    engine: EngineKind = "local",
    workers: Workers = 2,
    ray_address: RayAddress = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an interrupted build of the same sources and settings."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the content of a knowledge base that is there.")
    ] = False,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Type that the encoder computes in; auto: bfloat16 where the processor has it."),
    ] = "float32",
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was built as one JSON object.")] = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.changes import load_encoder, load_engine, show_change
    from ragweave.cli.console import quiet_libraries, stage_bars
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.knowledge.chunking_settings import Chunking
    from ragweave.knowledge.ingest.loaders.loader import find_sources
    from ragweave.knowledge.places import check_output

    # Mistakes in the arguments are told at once, not after a model was loaded.
    check_output(output, overwrite=overwrite)
    parameters = _parameters(settings or [])
    quiet_libraries()
    with spooled(sources, stdin_format, stdin_name) as given, stage_bars() as progress:
        files = find_sources(given)
        encoder = load_encoder(model, dtype, device)
        base = KnowledgeBase.build(
            files,
            output,
            encoder=encoder,
            chunking=Chunking(chunking, words, tokens, overlap),
            index=kind,
            parameters=parameters,
            language=None if vectors_only else language,
            overwrite=overwrite,
            strict=strict,
            engine=load_engine(engine, workers, ray_address),
            resume=resume,
            progress=progress,
        )
    show_change(base, as_json=as_json)


def _parameters(settings: list[str]) -> dict[str, int]:
    from ragweave.errors import ConfigurationError

    parameters = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if not value.isdecimal():
            raise ConfigurationError(f"--set {setting} is no setting: write NAME=NUMBER, such as nprobe=16.")
        parameters[name] = int(value)
    return parameters

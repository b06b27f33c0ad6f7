"""``ragweave index``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

import ragweave
from ragweave.cli import options, takes_options
from ragweave.cli.console import print_change, source_warnings, stage_bars
from ragweave.errors import ConfigurationError


@takes_options
def index(
    sources: options.Sources,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="KB", help="New folder, or URI of a database.")
    ],
    *,
    model: Annotated[str, typer.Option(help="Encoder: 'embedded', a hub name, or a folder.")] = "embedded",
    chunking: Annotated[
        Literal["sentences", "words", "tokens", "markdown"],
        typer.Option(
            help="Split at ends of sentences, after a number of words or of the encoder's tokens, or at Markdown "
            "headings and ends of sentences."
        ),
    ] = "sentences",
    words: Annotated[int, typer.Option(min=1, help="Words per passage.")] = 100,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --chunking tokens, tokens per passage (default: the encoder's maximum)."
        ),
    ] = None,
    overlap: Annotated[
        int, typer.Option(min=0, help="Words (or tokens) that a passage repeats from the previous one.")
    ] = 0,
    kind: Annotated[
        str,
        typer.Option(
            "--index",
            metavar="KIND",
            help="flat, hnsw, ivfpq, sq8, binary, a FAISS factory string, or auto: flat up to 100,000 passages, hnsw "
            "above, with recall@100 of 0.95. In a database: flat, hnsw, or auto: flat up to 20,000.",
        ),
    ] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=NUMBER", help="Index parameter, such as nprobe=16 or efSearch=64."
        ),
    ] = None,
    language: Annotated[
        str,
        typer.Option(help="Language of the stemmer for --retrieval bm25 and hybrid; none for no stemmer."),
    ] = "english",
    vectors_only: Annotated[
        bool, typer.Option("--vectors-only", help="Do not write the word index of bm25 and hybrid.")
    ] = False,
    sparse: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Folder or hub name of a sparse encoder (SPLADE), whose words replace those of bm25 and hybrid.",
        ),
    ] = None,
    reading: options.SourceOptions,
    engine: options.EngineKind = "local",
    workers: options.Workers = 2,
    ray_address: options.RayAddress = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted build of the same sources and settings.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the content of an existing knowledge base.")
    ] = False,
    encoding: options.EncoderOptions,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> None:
    """Build a knowledge base from documents.

    Reads text (.txt, .md, .rst, .tex, .org, .ipynb, .srt, .vtt, .log), tables (.csv, .tsv, .parquet, .jsonl, .xlsx),
    documents (.pdf, .docx, .pptx, .html, .epub), mail (.eml, .mbox), source code, archives (.zip, .tar.gz) and
    folders of these, splits the documents into passages, and embeds them.

    Examples:
      ragweave index notes/ --output kb
      ragweave index people.csv history.jsonl --output kb --overwrite
      ragweave index people.csv --output kb --columns 'title=Name,text=Biography'
      ragweave index notes/ --output kb --model sentence-transformers/multi-qa-MiniLM-L6-cos-v1 --words 60
      ragweave index dump.jsonl --output kb --index hnsw --set efSearch=64
      ragweave index notizen/ --output kb --language german
      ragweave index notes/ --output kb --sparse naver/splade-v3
      ragweave index handbook/ --output kb --chunking markdown --overlap 20
      zcat dump.jsonl.gz | ragweave index - --stdin-format jsonl --stdin-name dump --output kb
      ragweave index dump.jsonl --output kb --resume
      ragweave index dump.jsonl --output kb --engine ray --workers 8 --ray-address 10.0.0.1:6379
      ragweave index notes/ --output 'postgresql://user@host/db?table=kb'
    """
    from ragweave.encoders.sparse_encoder import SparseEncoder
    from ragweave.knowledge.storage import check_output

    # Wrong arguments fail before the model is loaded.
    check_output(output, overwrite=overwrite)
    if sparse is not None and vectors_only:
        raise ConfigurationError(
            "--sparse writes a word index, but --vectors-only writes none. Leave out one of them."
        )
    parameters = _parameters(settings or [])
    read_settings = reading.settings()
    with stage_bars() as progress, source_warnings(), reading.files(sources) as files:
        base = ragweave.KnowledgeBase.build(
            files,
            output,
            encoder=encoding.load(model),
            chunking=ragweave.Chunking(chunking, words, tokens, overlap),
            index=kind,
            parameters=parameters,
            language=None if vectors_only else language,
            sparse=None if sparse is None else SparseEncoder.from_pretrained(sparse, device=encoding.device),
            overwrite=overwrite,
            strict=reading.strict,
            reading=read_settings,
            engine=options.load_engine(engine, workers, ray_address),
            resume=resume,
            progress=progress,
        )
    print_change(base, as_json=as_json, files=files, verbose=verbose)


def _parameters(settings: list[str]) -> dict[str, int]:
    parameters = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if not value.isdecimal():
            raise ConfigurationError(f"--set {setting} is invalid. Write NAME=NUMBER, such as nprobe=16.")
        parameters[name] = int(value)
    return parameters

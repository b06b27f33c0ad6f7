"""Options that several commands share, and the objects that are loaded from them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import ragweave
from ragweave.cli.console import loading
from ragweave.knowledge.ingest_settings import DEFAULT_READING, ReadSettings, TableSettings
from ragweave.types import Fusion, RetrievalKind, SourceFile

if TYPE_CHECKING:
    from ragweave.knowledge.ingest.builder import Engine

# A knowledge base and its sources.
KnowledgeBaseArgument = Annotated[
    str, typer.Argument(metavar="KB", help="Folder or URI of the knowledge base.")
]
KnowledgeBaseOption = Annotated[str, typer.Option(help="Folder or URI of the knowledge base.")]
Sources = Annotated[
    list[Path],
    typer.Argument(metavar="SOURCE", help="Files, folders, hf://datasets/NAME, or - for standard input."),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Name each file that was ignored.")]
EngineKind = Annotated[
    Literal["local", "ray"], typer.Option(help="Embed in this process or on a Ray cluster.")
]
Workers = Annotated[int, typer.Option(min=1, help="Number of workers of --engine ray.")]
RayAddress = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Address of a running Ray cluster (default: start one)."),
]
SameEncoder = Annotated[
    str | None,
    typer.Option(
        "--model", help="The encoder that embedded the knowledge base, if it has another name here."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only, one object per line.")]

# A model and its answers.
RagModel = Annotated[
    str,
    typer.Option(help="'embedded', or a folder or hub name of a RAG model or of a causal language model."),
]
Extractive = Annotated[
    bool | None,
    typer.Option(
        "--extractive/--free",
        help="Copy answers from the passages, or generate freely (default: the model's).",
    ),
]
Device = Annotated[str | None, typer.Option(help="Device to compute on, such as cuda.")]

OptionalKnowledgeBase = Annotated[str | None, typer.Option(help="Folder or URI of the knowledge base.")]

# Serving.
ApiKeyFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="API keys for all requests, one per line.")
]

# Retrieval.
Retrieval = Annotated[
    RetrievalKind | None,
    typer.Option(help="Search vectors (dense), words (bm25) or both (default: the model's)."),
]
FusedBy = Annotated[
    Fusion,
    typer.Option(help="How hybrid combines both: weighted mean of scores, or reciprocal rank fusion."),
]
DenseWeight = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Weight of dense scores in the mean (default: the model's)."),
]
Candidates = Annotated[int, typer.Option(min=1, help="Passages of each ranking to fuse or to rerank.")]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help="Search only passages with matching metadata, such as \"year >= 2020 and lang == 'en'\".",
    ),
]
Rerank = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Folder or hub name of a cross-encoder or a late-interaction model that reranks the candidates.",
    ),
]

# Training.
StartingModel = Annotated[
    str, typer.Option(help="Initial model: 'embedded', or a folder or hub name of a RAG model.")
]
Epochs = Annotated[float, typer.Option(min=0, help="Passes over the data.")]
LearningRate = Annotated[float, typer.Option(help="Initial learning rate of AdamW.")]
Seed = Annotated[int, typer.Option(help="Seed of the data order and of dropout.")]
Config = Annotated[
    Path | None,
    typer.Option(metavar="YAML", help="File with further arguments of transformers' Trainer."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use only the first questions.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in --output.")]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """The options of commands that read sources."""

    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Fail if a source, or a part of one, cannot be read, instead of skipping it."
        ),
    ] = False
    read_memory: Annotated[
        int,
        typer.Option(min=256, metavar="MIB", help="Memory for reading; files that need more are skipped."),
    ] = DEFAULT_READING.memory
    read_seconds: Annotated[
        float,
        typer.Option(min=0.1, help="Time per 64 MiB of a file or part of it; slower files are skipped."),
    ] = DEFAULT_READING.seconds
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=COLUMN,...",
            help="Columns of tables that hold the id, title and text: title=Name,text=Abstract,text=Notes.",
        ),
    ] = None
    hidden_sheets: Annotated[bool, typer.Option("--hidden-sheets", help="Also read hidden sheets.")] = False
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links in a folder that lead out of it.")
    ] = False
    meta: Annotated[
        list[str] | None,
        typer.Option(
            "--meta",
            metavar="NAME=VALUE",
            help="Metadata of all documents that are read, such as year=2020; may be repeated.",
        ),
    ] = None

    def settings(self) -> ReadSettings:
        """How files are read.

        Raises:
            ConfigurationError: An option is invalid.
        """
        from ragweave.knowledge.ingest.metadata import parse_options

        tables = TableSettings.parse(self.columns or (), hidden_sheets=self.hidden_sheets)
        metadata = parse_options(self.meta or ())
        return ReadSettings(
            self.read_memory, self.read_seconds, tables, follow_links=self.follow_links, metadata=metadata
        )


@dataclass(frozen=True, kw_only=True)
class SourceOptions(ReadOptions):
    """The options of commands that read sources, of which one may be standard input."""

    stdin_format: Annotated[
        Literal["txt", "md", "jsonl", "csv", "tsv", "html"],
        typer.Option(help="Format of standard input."),
    ] = "txt"
    stdin_name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Source name of standard input. Adding the same name again replaces the source.",
        ),
    ] = "stdin"

    @contextmanager
    def files(self, sources: Sequence[Path]) -> Iterator[list[SourceFile]]:
        """Find the files of the sources; standard input (``-``) becomes a temporary file."""
        from ragweave.knowledge.ingest.loaders.loader import find_sources

        paths: list[Path | SourceFile] = list(sources)
        with ExitStack() as stack:
            if Path("-") in sources:
                folder = stack.enter_context(TemporaryDirectory(prefix="ragweave-stdin-"))
                path = Path(folder) / f"stdin.{self.stdin_format}"
                with path.open("wb") as file:
                    shutil.copyfileobj(sys.stdin.buffer, file)
                stdin = SourceFile(path=path, name=self.stdin_name, known_as=self.stdin_name)
                paths = [stdin if source == Path("-") else source for source in sources]
            yield find_sources(paths, follow_links=self.follow_links)


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """The options of commands that embed passages with a new encoder."""

    dim: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Keep only the first dimensions of vectors, for an encoder trained for it (Matryoshka).",
        ),
    ] = None
    question_prompt: Annotated[
        str | None,
        typer.Option(help="Text in front of questions, such as 'query: ' (default: the encoder's own)."),
    ] = None
    passage_prompt: Annotated[
        str | None,
        typer.Option(help="Text in front of passages, such as 'passage: ' (default: the encoder's own)."),
    ] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Data type of the encoder; auto is bfloat16 if the processor supports it."),
    ] = "float32"
    device: Device = None

    def load(self, model: str) -> ragweave.TextEncoder:
        """Load an encoder without messages of the libraries."""
        with loading(f"the encoder '{model}'"):
            return ragweave.TextEncoder.from_pretrained(model, **vars(self))


def load_encoder(
    model: str | None, base: ragweave.KnowledgeBase, *, device: str | None
) -> ragweave.TextEncoder:
    """Load the encoder of a knowledge base, under another name if one is given, without messages of the libraries."""
    name = model or base.manifest.encoder.name
    with loading(f"the encoder '{name}'"):
        return base.manifest.encoder.load(name, device=device)


def load_pipeline(model: str, **arguments: Any) -> ragweave.RagPipeline:
    """Load a pipeline without messages of the libraries; arguments as in `RagPipeline.from_pretrained`."""
    with loading(f"the model '{model}'"):
        return ragweave.RagPipeline.from_pretrained(model, **arguments)


def load_engine(kind: Literal["local", "ray"], workers: int, address: str | None) -> Engine:
    """The engine that embeds passages."""
    from ragweave.knowledge.ingest.builder import LocalEngine

    if kind == "local":
        return LocalEngine()
    from ragweave.knowledge.ingest.ray_engine import RayEngine

    return RayEngine(workers=workers, address=address)

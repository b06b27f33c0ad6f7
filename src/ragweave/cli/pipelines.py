"""Pipeline options shared by commands, and the pipelines that are loaded from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragweave.cli import options
from ragweave.cli.console import loading
from ragweave.errors import ConfigurationError
from ragweave.types import AnswerFormulation, AnswerStyle, GeneratorApi, GeneratorDtype, SearchSettings

if TYPE_CHECKING:
    from ragweave.pipeline.answer_pipeline import AnswerPipeline
    from ragweave.pipeline.chat_client import ChatClient


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """The options of a pipeline; see `ragweave.cli.takes_options`."""

    model: options.RagModel = "embedded"
    formulation: Annotated[
        AnswerFormulation | None,
        typer.Option(
            "--formulation",
            help="RAG-Token, RAG-Sequence, all passages in one prompt, or PCED's rule (default: the model's).",
        ),
    ] = None
    beams: Annotated[int, typer.Option("--beams", "--num-beams", min=1, help="Number of beams.")] = 1
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer, in tokens.")] = 32
    retrieval: options.Retrieval = None
    fusion: options.FusedBy = "weighted"
    dense_weight: options.DenseWeight = None
    candidates: options.Candidates = 100
    rerank: options.Rerank = None
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help='Answer "The documents do not say." below this confidence (default: the calibration\'s).',
        ),
    ] = None
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A file of 'ragweave eval --calibrate' (default: the model's own, if any)."
        ),
    ] = None
    passage_cache: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory for passages that a causal generator has read, such as 512MiB; 0 for none "
            "(default: an eighth of the free memory, at most 1 GiB).",
        ),
    ] = None
    answer_style: Annotated[
        AnswerStyle | None,
        typer.Option(
            "--answer-style",
            help="How a causal language model or --generator is told to answer (default: short).",
        ),
    ] = None
    generator: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Generate with an OpenAI-compatible server, such as http://HOST:8080/v1."
        ),
    ] = None
    generator_model: Annotated[str | None, typer.Option(metavar="NAME", help="Model of --generator.")] = None
    generator_api: Annotated[
        GeneratorApi,
        typer.Option(
            help="API of --generator: chats, plain text, or vLLM's chats; the last two score answers under all "
            "passages."
        ),
    ] = "chat"
    generator_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="API key of --generator (default: $RAGWEAVE_GENERATOR_KEY, if set)."
        ),
    ] = None
    generator_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for each request to --generator.")
    ] = 60.0
    generator_requests: Annotated[
        int | None, typer.Option(min=1, help="Budget of requests to --generator (default: no bound).")
    ] = None
    dtype: Annotated[
        GeneratorDtype,
        typer.Option(help="Data type of the generator; auto is bfloat16 if the processor supports it."),
    ] = "auto"
    device: options.Device = None

    def search(self, where: str | None = None) -> SearchSettings:
        """How to search the knowledge base."""
        return SearchSettings(self.retrieval, self.fusion, self.dense_weight, self.candidates, where=where)

    def server(self) -> ChatClient | None:
        """The server that ``--generator`` names, if any.

        Raises:
            ConfigurationError: The name of the model is missing, or an option is invalid.
        """
        if self.generator is None:
            return None
        from ragweave.pipeline.chat_client import ChatClient, read_key

        if self.generator_model is None:
            raise ConfigurationError("Name the model of --generator with --generator-model.")
        return ChatClient(
            self.generator,
            self.generator_model,
            api=self.generator_api,
            key=None if self.generator_key_file is None else read_key(self.generator_key_file),
            timeout=self.generator_timeout,
            max_requests=self.generator_requests,
        )


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(PipelineOptions):
    """The options of the commands that answer questions one after another."""

    n_docs: Annotated[
        int | None, typer.Option(min=1, help="Passages per question (default: the model's).")
    ] = None
    answer_anyway: Annotated[
        bool, typer.Option("--answer-anyway", help="Answer at any confidence, like --min-confidence 0.")
    ] = False

    def answering(self) -> dict[str, Any]:
        """The keyword arguments of `AnswerPipeline.stream`."""
        return {"n_docs": self.n_docs, "num_beams": self.beams, "max_new_tokens": self.max_new_tokens}

    def load(self, kb: str, where: str | None = None) -> AnswerPipeline:
        """Load the pipeline over a knowledge base.

        Raises:
            ConfigurationError: The options contradict each other.
        """
        settings: dict[str, Any] = {
            "knowledge_base": kb,
            "search": self.search(where),
            "reranker": self.rerank,
            "min_confidence": 0.0 if self.answer_anyway else self.min_confidence,
            "formulation": self.formulation,
            "answer_style": self.answer_style,
            "dtype": self.dtype,
            "device": self.device,
            "calibration": self.calibration,
            "passage_cache": self.passage_cache,
        }
        with loading(f"the model '{self.generator_model or self.model}'"):
            if self.generator is None:
                from ragweave.pipeline.rag_pipeline import RagPipeline

                return RagPipeline.from_pretrained(self.model, **settings)
            from ragweave.pipeline.endpoint_pipeline import load_pipeline

            return load_pipeline(self.model, server=self.server(), **settings)

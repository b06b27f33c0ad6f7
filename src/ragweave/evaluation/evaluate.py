"""Evaluates a model on questions: the Python interface of ``ragweave eval``."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ragweave.encoders.late_interaction import load_reranker
from ragweave.errors import ConfigurationError, DataError, require_extra
from ragweave.evaluation.data import Example, check_gold
from ragweave.evaluation.metric_values import ANSWER_METRICS, CORPUS_METRICS
from ragweave.evaluation.report import write_report
from ragweave.evaluation.run_folder import RunFolder, RunSettings
from ragweave.evaluation.runner import run_evaluation
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.model_files import EMBEDDED
from ragweave.pipeline.answer_pipeline import AnswerPipeline
from ragweave.pipeline.chat_client import ChatClient
from ragweave.pipeline.endpoint_pipeline import load_pipeline
from ragweave.pipeline.loading import load_embedded_encoder
from ragweave.retrieval.retriever import Retriever
from ragweave.types import AnswerFormulation, AnswerStyle, GeneratorDtype, SearchSettings

RunProgress = Callable[[str, int, int, dict[str, float]], None]
"""Called with a run's name, its number of questions, the newly finished ones, and the means so far."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The model to evaluate, and how it searches."""

    # ``"embedded"``, or the folder or hub name of a RAG model or of a causal language model.
    model: str = "embedded"
    # ``"token"``, ``"sequence"``, ``"concat"`` or ``"pced"``; the model's default if ``None``.
    formulation: AnswerFormulation | None = None
    # How to search the knowledge base; the model's defaults fill unset options.
    search: SearchSettings = field(default_factory=SearchSettings)
    rerank: str | None = None  # folder or hub name of a reranker
    adapter: bool = True  # whether the embedded generator uses its adapter
    dtype: GeneratorDtype = "auto"
    device: str | None = None
    calibration: str | None = None  # a file of ``ragweave eval --calibrate``; the model's own if ``None``
    answer_style: AnswerStyle | None = None  # how an instruct model or a server is told to answer
    server: ChatClient | None = None  # a server that generates instead of ``model``

    def to_dict(self) -> dict[str, Any]:
        """The settings that determine the answers of a run."""
        server = self.server and {name: getattr(self.server, name) for name in ("url", "model", "api")}
        return {**asdict(replace(self, server=None)), "server": server}


def evaluate(
    examples: Sequence[Example],
    output: Path | str,
    *,
    knowledge_base: Path | str | KnowledgeBase | None,
    model: ModelSettings | None = None,
    settings: RunSettings | None = None,
    curve: Sequence[int] = (),
    overwrite: bool = False,
    passage_cache: int | str | None = None,
    progress: RunProgress | None = None,
) -> RunFolder:
    """Evaluate a model on questions, write predictions, metrics and a report, and return their folder.

    The same call resumes an interrupted evaluation.

    Args:
        examples: The questions and gold answers.
        output: The folder of the run.
        knowledge_base: A knowledge base, its folder or its URI; ``None`` for a closed-book run.
        model: The model, and how it searches.
        settings: How every question is evaluated.
        curve: Further values of K, evaluated in subfolders, for a plot against K.
        overwrite: Replace a run in the folder.
        passage_cache: As in `RagPipeline.from_pretrained`.
        progress: Called after every batch.

    Raises:
        DataError: The folder contains a different run, or the knowledge base lacks gold passages.
        ConfigurationError: The settings contradict each other.
        KnowledgeBaseError, ModelNotFoundError: The knowledge base or the model does not exist.
        MissingExtraError: The extra ``eval`` is not installed.
        QuestionError: A question is longer than the encoder reads.
    """
    model, settings, folder = model or ModelSettings(), settings or RunSettings(), RunFolder(Path(output))
    base = None if settings.mode == "closed-book" else _open(knowledge_base)
    _validate(examples, settings, base)
    if overwrite:
        _remove(folder)
    retriever, pipeline = _load(model, base, settings, passage_cache)
    if retriever is not None and isinstance(retriever.index, KnowledgeBaseIndex):
        # The folder records how the base was searched, even if the model's defaults change later.
        model = replace(model, search=retriever.index.settings)
    description = {
        "model": model.to_dict(),
        "data": _fingerprint(examples),
        "knowledge_base": _describe(base),
    }
    for k in dict.fromkeys([settings.n_docs, *curve]):
        title = "Evaluating" if k == settings.n_docs else f"Evaluating with K={k}"
        run_evaluation(
            examples,
            folder if k == settings.n_docs else RunFolder(folder.root / f"k{k}"),
            settings=replace(settings, n_docs=k),
            description=description,
            retriever=retriever,
            pipeline=pipeline,
            progress=None if progress is None else partial(progress, title, len(examples)),
        )
    write_report(folder)
    return folder


def _open(knowledge_base: Path | str | KnowledgeBase | None) -> KnowledgeBase | None:
    if knowledge_base is None or isinstance(knowledge_base, KnowledgeBase):
        return knowledge_base
    return KnowledgeBase.open(knowledge_base)


def _validate(examples: Sequence[Example], settings: RunSettings, base: KnowledgeBase | None) -> None:
    """Find mistakes before a model is loaded."""
    for module in ("matplotlib", "scipy"):
        require_extra(module, "eval")
    if not examples:
        raise DataError("There are no questions to evaluate on.")
    if base is None and settings.mode != "closed-book":
        raise ConfigurationError(
            "Name a knowledge base (--kb), or evaluate closed book (--mode closed-book)."
        )
    if settings.gold and settings.mode != "e2e":
        raise ConfigurationError("Gold passages can only be used for answering: choose the mode e2e.")
    names = [*ANSWER_METRICS, *CORPUS_METRICS]
    if unknown := [name for name in settings.metrics if name not in names]:
        raise ConfigurationError(f"Unknown metric {', '.join(unknown)}. Choose from: {', '.join(names)}.")
    if base is not None:
        check_gold(examples, base)
    without_gold = next((example for example in examples if not example.gold_passages), None)
    if settings.gold and without_gold is not None:
        raise DataError(
            f"The question '{without_gold.id}' has no gold passage to answer from: add the key 'passage' to the "
            "data, or leave --gold-passages out."
        )


def _load(
    model: ModelSettings,
    base: KnowledgeBase | None,
    settings: RunSettings,
    passage_cache: int | str | None,
) -> tuple[Retriever | None, AnswerPipeline | None]:
    """The retriever and the pipeline that the run needs."""
    if settings.mode == "retrieval" and model.model == EMBEDDED and base is not None:
        # Retrieval alone does not need the generator.
        encoder = load_embedded_encoder(base, model.device)
        reranker = None if model.rerank is None else load_reranker(model.rerank, device=model.device)
        return base.retriever(model.search, encoder=encoder, reranker=reranker), None
    pipeline = load_pipeline(
        model.model,
        server=model.server,
        knowledge_base=base,
        formulation=model.formulation,
        search=model.search,
        reranker=model.rerank,
        adapter=model.adapter,
        answer_style=model.answer_style,
        dtype=model.dtype,
        device=model.device,
        calibration=model.calibration,
        passage_cache=passage_cache,
    )
    retriever = None if base is None else pipeline.text_retriever
    return retriever, None if settings.mode == "retrieval" else pipeline


def _remove(folder: RunFolder) -> None:
    """Delete a run, and refuse any other folder."""
    if not folder.root.exists():
        return
    if not folder.description.is_file():
        raise DataError(f"{folder.root} does not contain a run to overwrite: choose another --output.")
    shutil.rmtree(folder.root)


def _describe(base: KnowledgeBase | None) -> dict[str, Any] | None:
    if base is None:
        return None
    return {"path": str(base.path), "version": base.version, "checksum": base.manifest.checksum}


def _fingerprint(examples: Sequence[Example]) -> dict[str, Any]:
    """Identify the data by content, independent of its path."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.id, example.question, example.answers, example.gold_passages)).encode())
    return {"questions": len(examples), "sha256": digest.hexdigest()}

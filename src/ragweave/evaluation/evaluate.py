"""Evaluation from names: what ``ragweave eval`` does, for Python too."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragweave.errors import ConfigurationError, DataError
from ragweave.evaluation.data import Example, check_gold
from ragweave.evaluation.figures import ANSWER_METRICS, WHOLE_METRICS
from ragweave.evaluation.folder import RunFolder, RunSettings
from ragweave.evaluation.report import write_report
from ragweave.evaluation.run import run
from ragweave.knowledge.base import KnowledgeBase
from ragweave.types import SearchSettings

if TYPE_CHECKING:
    from ragweave.pipeline.rag_pipeline import Formulation, GeneratorDtype, RagPipeline
    from ragweave.retrieval.finding import PassageFinder

RunProgress = Callable[[str, int, int, dict[str, float]], None]
"""Hears the name of a run, how many questions it has, how many more are done, and the means so far."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What answers, and how it searches.

    Attributes:
        model: ``"embedded"``, or the folder or hub name of a RAG model.
        formulation: ``"token"`` or ``"sequence"``; the model's own where ``None``.
        search: How the knowledge base is searched; what it leaves open is as the model says.
        rerank: Folder or hub name of a cross-encoder.
        adapter: Whether the embedded generator has its adapter.
        dtype: Type that the generator computes in.
        device: Where to compute.
    """

    model: str = "embedded"
    formulation: Formulation | None = None
    search: SearchSettings = field(default_factory=SearchSettings)
    rerank: str | None = None
    adapter: bool = True
    dtype: GeneratorDtype = "auto"
    device: str | None = None


def evaluate(
    examples: Sequence[Example],
    output: Path | str,
    *,
    knowledge_base: Path | str | KnowledgeBase | None,
    model: ModelSettings | None = None,
    settings: RunSettings | None = None,
    curve: Sequence[int] = (),
    overwrite: bool = False,
    progress: RunProgress | None = None,
) -> RunFolder:
    """Evaluate a model on questions, and write predictions, figures and a report.

    An evaluation that was interrupted goes on where it stopped when it is run again.

    Args:
        examples: The questions and what is right.
        output: Folder of the run.
        knowledge_base: Where passages are found, a folder or a URI; ``None`` for closed book.
        model: What answers, and how it searches.
        settings: What is done with every question.
        curve: Other K to evaluate with, in folders below, for a plot against K.
        overwrite: Begin anew where the folder holds a run.
        progress: Hears how far it is.

    Returns:
        The folder.

    Raises:
        DataError: The folder holds another run; the knowledge base lacks gold passages.
        ConfigurationError: The settings contradict each other.
        KnowledgeBaseError, ModelNotFoundError: There is no such knowledge base or model.
        QuestionError: A question is longer than the encoder reads.
    """
    model, settings, folder = model or ModelSettings(), settings or RunSettings(), RunFolder(Path(output))
    base = None if settings.mode == "closed-book" else _opened(knowledge_base)
    _check(examples, settings, base)
    if overwrite:
        _clear(folder)
    finder, pipeline = _loaded(model, base, settings)
    if finder is not None:  # the folder says how it was searched, whatever the model's own way becomes
        model = replace(model, search=finder.index.settings)
    about = {"model": asdict(model), "data": _fingerprint(examples), "knowledge_base": _described(base)}
    for k in (settings.n_docs, *(k for k in curve if k != settings.n_docs)):
        own = folder if k == settings.n_docs else RunFolder(folder.root / f"k{k}")
        name = "Evaluating" if own is folder else f"Evaluating with K={k}"
        run(
            examples,
            own,
            settings=replace(settings, n_docs=k),
            about=about,
            finder=finder,
            pipeline=pipeline,
            progress=None if progress is None else _named(progress, name, len(examples)),
        )
    write_report(folder)
    return folder


def _opened(knowledge_base: Path | str | KnowledgeBase | None) -> KnowledgeBase | None:
    if knowledge_base is None or isinstance(knowledge_base, KnowledgeBase):
        return knowledge_base
    return KnowledgeBase.open(knowledge_base)


def _check(examples: Sequence[Example], settings: RunSettings, base: KnowledgeBase | None) -> None:
    """Find out what is wrong before a model is loaded."""
    if not examples:
        raise DataError("There are no questions to evaluate on.")
    if base is None and settings.mode != "closed-book":
        raise ConfigurationError(
            "Name a knowledge base (--kb), or evaluate closed book (--mode closed-book)."
        )
    if settings.gold and settings.mode != "e2e":
        raise ConfigurationError("Gold passages are given to what answers: choose the mode e2e.")
    known = [*ANSWER_METRICS, *WHOLE_METRICS]
    if unknown := [name for name in settings.metrics if name not in known]:
        raise ConfigurationError(f"There is no metric {', '.join(unknown)}; choose among {', '.join(known)}.")
    if base is not None:
        check_gold(examples, base)
    without = next((example for example in examples if not example.gold_passages), None)
    if settings.gold and without is not None:
        raise DataError(
            f"The question '{without.id}' names no gold passage to answer from: add the key 'passage' to the data, "
            "or leave --gold-passages out."
        )


def _loaded(
    model: ModelSettings, base: KnowledgeBase | None, settings: RunSettings
) -> tuple[PassageFinder | None, RagPipeline | None]:
    """What finds passages and what answers, as far as the run needs them."""
    from ragweave.encoders.cross_encoder import Reranker
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.pipeline import embedded
    from ragweave.pipeline.rag_pipeline import RagPipeline
    from ragweave.retrieval.finding import PassageFinder

    if settings.mode == "retrieval" and model.model == embedded.NAME and base is not None:
        encoder = TextEncoder.from_pretrained(
            embedded.encoder_path(), device=model.device, name=embedded.ENCODER
        )
        base.check_encoder(encoder)
        reranker = (
            None if model.rerank is None else Reranker.from_pretrained(model.rerank, device=model.device)
        )
        index = base.as_index(model.search, otherwise=embedded.SEARCH, reranker=reranker)
        return PassageFinder(encoder, index, embedded.DOC_SCORE_SCALE), None
    pipeline = RagPipeline.from_pretrained(
        model.model,
        knowledge_base=base,
        formulation=model.formulation,
        search=model.search,
        reranker=model.rerank,
        adapter=model.adapter,
        dtype=model.dtype,
        device=model.device,
    )
    finder = None if base is None else pipeline.finder
    return finder, None if settings.mode == "retrieval" else pipeline


def _clear(folder: RunFolder) -> None:
    """Remove a run, and nothing that is not one."""
    if not folder.root.exists():
        return
    if not folder.description.is_file():
        raise DataError(f"{folder.root} holds no run that could be replaced: choose another --output.")
    shutil.rmtree(folder.root)


def _named(progress: RunProgress, name: str, total: int) -> Callable[[int, dict[str, float]], None]:
    return lambda done, means: progress(name, total, done, means)


def _described(base: KnowledgeBase | None) -> dict[str, Any] | None:
    if base is None:
        return None
    return {"path": str(base.path), "version": base.version, "checksum": base.manifest.checksum}


def _fingerprint(examples: Sequence[Example]) -> dict[str, Any]:
    """The data by its content, wherever the file is."""
    import hashlib

    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.id, example.question, example.answers, example.gold_passages)).encode())
    return {"questions": len(examples), "sha256": digest.hexdigest()}

"""Loading the parts of a pipeline: model, retriever and question encoder."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from transformers import AutoTokenizer

import ragweave  # its names load on first use, and a question needs few of them
from ragweave.configuration import RagConfig
from ragweave.encoders.text_encoder import TextEncoder, compute_dtype
from ragweave.errors import ConfigurationError, EncoderMismatchError, KnowledgeBaseError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.knowledge.layout import Layout
from ragweave.model_files import (
    EMBEDDED,
    EMBEDDED_ENCODER,
    EMBEDDED_SEARCH,
    check_complete,
    check_weights,
    reading_model,
)
from ragweave.modeling.generation import RagForGeneration
from ragweave.modeling.passage_cache import PassageCache, PassageStore, default_budget, parse_size
from ragweave.modeling.quantization import quantize_int8
from ragweave.modeling.token import PcedForGeneration, RagTokenForGeneration
from ragweave.pipeline import embedded
from ragweave.pipeline.answer_pipeline import AnswerPipeline
from ragweave.pipeline.instruct import ADVICE, is_adapter, load_causal, prompt_fields
from ragweave.provenance.confidence import FILE_NAME, UNCALIBRATED, CalibratedConfidence
from ragweave.retrieval.index_protocol import Index, NoPassages, PassageScorer
from ragweave.retrieval.rag_retriever import RagRetriever
from ragweave.types import (
    ANSWER_FORMULATIONS,
    AnswerFormulation,
    AnswerStyle,
    GeneratorDtype,
    SearchSettings,
)

P = TypeVar("P", bound=AnswerPipeline)


@dataclass(frozen=True, slots=True)
class PipelineParts:
    """The parts of a `RagPipeline`."""

    model: RagForGeneration
    retriever: RagRetriever
    encoder: TextEncoder
    confidence: CalibratedConfidence = UNCALIBRATED


@dataclass(frozen=True, slots=True)
class _IndexSource:
    """How to make the retriever's index once the model's search defaults are known."""

    base: KnowledgeBase | None
    search: SearchSettings | None
    reranker: PassageScorer | None

    def index(self, defaults: SearchSettings) -> KnowledgeBaseIndex | NoPassages:
        if self.base is None:
            return NoPassages()
        return self.base.as_index(self.search, defaults=defaults, reranker=self.reranker)


def load_parts(
    name_or_path: str | Path,
    knowledge_base: str | Path | KnowledgeBase | None,
    *,
    formulation: AnswerFormulation | None,
    search: SearchSettings | None,
    reranker: str | Path | PassageScorer | None,
    adapter: bool,
    dtype: GeneratorDtype,
    device: str | None,
    placement: Mapping[str, Any],
    answer_style: AnswerStyle | None = None,
    calibration: Path | None = None,
) -> PipelineParts:
    """Load the parts; arguments and errors as in `RagPipeline.from_pretrained`."""
    if formulation is not None:
        model_class(formulation)  # refuse an unknown formulation before a model is loaded
    name = str(name_or_path)
    shipped = (embedded.ADAPTER if name == EMBEDDED and adapter else Path(name)) / FILE_NAME
    if calibration is None and shipped.is_file():
        calibration = shipped
    confidence = UNCALIBRATED if calibration is None else CalibratedConfidence.load(calibration)
    if isinstance(knowledge_base, (str, Path)):
        knowledge_base = KnowledgeBase.open(knowledge_base)
    if isinstance(reranker, (str, Path)):
        from ragweave.encoders.late_interaction import load_reranker  # most questions need none

        reranker = None if knowledge_base is None else load_reranker(reranker, device=device)
    source = _IndexSource(knowledge_base, search, reranker)
    torch_dtype = compute_dtype("float32" if dtype == "int8" else dtype, device)
    if name != EMBEDDED and not _is_rag_model(name):
        if placement and device is not None:
            raise ConfigurationError(f"Choose either device or {' and '.join(placement)}.")
        parts = _causal_parts(name, source, formulation, torch_dtype, device, answer_style, placement)
    elif placement:
        raise ConfigurationError(
            f"'{name}' is not a causal language model, which {' and '.join(placement)} needs. Use dtype and device."
        )
    elif answer_style is not None:
        raise ConfigurationError(f"'{name}' answers as it was trained to: leave the answer style out.")
    elif name == EMBEDDED:
        parts = _embedded_parts(source, formulation, torch_dtype, device, adapter=adapter)
    else:
        parts = _saved_parts(name, source, formulation, torch_dtype, device)
    if dtype == "int8":
        quantize_int8(parts.model.generator)
    return replace(parts, confidence=confidence)


def with_knowledge_base(pipeline: P, knowledge_base: str | Path | KnowledgeBase) -> P:
    """A pipeline of the same networks over another knowledge base, which is searched in the same way.

    Raises:
        ConfigurationError: The pipeline has no knowledge base.
        KnowledgeBaseError: There is no such knowledge base, or it is damaged.
        EncoderMismatchError: It was embedded with another encoder.
    """
    current, other = pipeline.knowledge_base, copy(pipeline)
    base = knowledge_base if isinstance(knowledge_base, KnowledgeBase) else KnowledgeBase.open(knowledge_base)
    if base.manifest.encoder != current.manifest.encoder:
        base.check_encoder(pipeline.encoder)
    other.retriever = copy(pipeline.retriever)
    other.retriever.index = cast(KnowledgeBaseIndex, pipeline.retriever.index).over(base)
    return other


def passage_cache_sizes(text: int | str | None) -> tuple[int | None, int | None]:
    """The budgets of a passage cache and, after a "+", of its tier in host memory; ``None`` for the default.

    Raises:
        ConfigurationError: One is not a size.
    """
    if text is None:
        return None, None
    first, plus, second = str(text).partition("+")
    return parse_size(first), parse_size(second) if plus else None


def make_passage_cache(parts: PipelineParts, sizes: tuple[int | None, int | None]) -> PassageCache | None:
    """The passage cache of a causal generator, over the passages that are stored beside the knowledge base."""
    generator, index = parts.model.generator, parts.retriever.index
    budget = default_budget(generator.device) if sizes[0] is None else sizes[0]
    if not budget or not parts.model.config.generator_is_causal:
        return None
    host = store = None
    if generator.device.type != "cpu":
        host = PassageCache(default_budget() if sizes[1] is None else sizes[1])
    path = index.base.path if isinstance(index, KnowledgeBaseIndex) else None
    if isinstance(path, Path) and PassageStore.supports(generator):
        store = PassageStore(Layout(path).states, generator)
    cache = PassageCache(budget, host=host, store=store)
    cache.keep_for(generator.parameters())
    return cache


def model_class(formulation: AnswerFormulation) -> type[RagForGeneration]:
    """The model class of a formulation; "concat", one prompt of all passages, uses that of RAG-Token.

    Raises:
        ConfigurationError: It is unknown.
    """
    if formulation not in ANSWER_FORMULATIONS:
        raise ConfigurationError(
            f"formulation is {formulation!r}; choose one of: {', '.join(ANSWER_FORMULATIONS)}."
        )
    if formulation == "sequence":
        return ragweave.RagSequenceForGeneration
    return PcedForGeneration if formulation == "pced" else RagTokenForGeneration


def load_embedded_encoder(base: KnowledgeBase | None, device: str | None) -> TextEncoder:
    """The embedded encoder, with the prompts and the size of vectors of a knowledge base that it embedded.

    Raises:
        EncoderMismatchError: Another encoder embedded the knowledge base.
    """
    if base is not None and base.manifest.encoder.name == EMBEDDED_ENCODER:
        encoder = base.manifest.encoder.load(device=device)
    else:
        encoder = TextEncoder.from_pretrained(EMBEDDED, device=device)
    if base is not None:
        base.check_encoder(encoder)
    return encoder


def _embedded_parts(
    source: _IndexSource,
    formulation: AnswerFormulation | None,
    dtype: torch.dtype,
    device: str | None,
    *,
    adapter: bool,
) -> PipelineParts:
    index = source.index(EMBEDDED_SEARCH)
    encoder = load_embedded_encoder(index.base if isinstance(index, KnowledgeBaseIndex) else None, device)
    generator = embedded.load_generator(dtype=dtype, adapter=adapter)
    config = RagConfig.from_question_encoder_generator_configs(
        encoder.model.config,
        generator.config,
        question_encoder_dim=encoder.dim,
        question_encoder_prompt=encoder.question_prompt,
        **embedded.CONTEXT_FIELDS,
    )
    tokenizer = AutoTokenizer.from_pretrained(embedded.generator_path())
    return _combined(config, encoder, generator, tokenizer, index, formulation, device)


def _causal_parts(
    name: str,
    source: _IndexSource,
    formulation: AnswerFormulation | None,
    dtype: torch.dtype,
    device: str | None,
    style: AnswerStyle | None,
    placement: Mapping[str, Any],
) -> PipelineParts:
    """Use any causal language model as the generator, with the knowledge base's encoder."""
    if source.base is None:
        raise ConfigurationError(
            f"'{name}' is a generator alone: name a knowledge base, whose encoder encodes the questions."
        )
    generator, tokenizer = load_causal(name, dtype, **placement)
    encoder = source.base.encoder
    if placement:
        encoder.model.to(generator.device)
    retriever = source.base.retriever(source.search, encoder=encoder, reranker=source.reranker)
    with reading_model("generator", name, "choose another model"):
        config = RagConfig.from_question_encoder_generator_configs(
            encoder.model.config,
            generator.config,
            retrieval_vector_size=encoder.dimension,
            question_encoder_pooling=encoder.pooling,
            question_encoder_normalize=encoder.normalize,
            question_encoder_dim=encoder.dim,
            question_encoder_prompt=encoder.question_prompt,
            doc_score_scale=retriever.doc_score_scale,
            **prompt_fields(generator, tokenizer, style),
        )
    return _combined(config, encoder, generator, tokenizer, retriever.index, formulation, device)


def _combined(
    config: RagConfig,
    encoder: TextEncoder,
    generator: Any,
    tokenizer: Any,
    index: Index,
    formulation: AnswerFormulation | None,
    device: str | None,
) -> PipelineParts:
    """A model of two networks that were trained separately; RAG-Token by default."""
    model = model_class(formulation or "token")(config, encoder.model, generator).eval()
    if device is not None:
        model.to(device)
    return PipelineParts(model, RagRetriever(config, encoder.tokenizer, tokenizer, index=index), encoder)


def _is_rag_model(name: str) -> bool:
    """Whether a folder or hub name refers to a RAG model."""
    if name.endswith(".gguf") or is_adapter(name):
        return False
    with reading_model("RAG model", name, ADVICE):
        return bool(RagConfig.get_config_dict(name)[0].get("model_type") == RagConfig.model_type)


def _saved_parts(
    name: str,
    source: _IndexSource,
    formulation: AnswerFormulation | None,
    dtype: torch.dtype,
    device: str | None,
) -> PipelineParts:
    with reading_model("RAG model", name, ADVICE):
        config = RagConfig.from_pretrained(name)
        index = source.index(SearchSettings(config.retrieval, dense_weight=config.dense_weight))
        _check_passage_encoder(name, config, index)
        passage_prompt = _adopt_prompts(config, index)
        tokenizer = ragweave.RagTokenizer.from_pretrained(name, config=config)
        if formulation is None:
            architectures = config.architectures or []
            formulation = "sequence" if "RagSequenceForGeneration" in architectures else "token"
        model, loading = model_class(formulation).from_pretrained(
            name, config=config, output_loading_info=True
        )
    _check_complete(name, model, loading)
    check_weights(model, name)
    model.eval().rag.generator.to(dtype)
    if device is not None:
        model.to(device)
    encoder = TextEncoder(
        model=model.question_encoder,
        tokenizer=tokenizer.question_encoder,
        name=name,
        pooling=model.rag.question_pooling,
        normalize=config.question_encoder_normalize,
        question_prompt=config.question_encoder_prompt or "",
        passage_prompt=passage_prompt,
        dim=config.question_encoder_dim,
    )
    # Training may change the question encoder and keep the passages' encoder: only the sizes must agree.
    if isinstance(index, KnowledgeBaseIndex) and encoder.dimension != index.base.manifest.dimension:
        raise KnowledgeBaseError(
            f"The question encoder of '{name}' makes vectors of dimension {encoder.dimension}, but the knowledge "
            f"base holds {index.base.manifest.dimension}: build it with the passage encoder of this model."
        )
    retriever = RagRetriever(config, encoder.tokenizer, tokenizer.generator, index=index)
    return PipelineParts(model, retriever, encoder)


def _check_passage_encoder(name: str, config: RagConfig, index: KnowledgeBaseIndex | NoPassages) -> None:
    """Check that a knowledge base was embedded by the encoder whose passages the model was trained to search.

    Raises:
        EncoderMismatchError: Another encoder embedded it.
    """
    expected = config.passage_encoder_fingerprint
    if expected is None or not isinstance(index, KnowledgeBaseIndex):
        return
    actual = index.base.manifest.encoder
    if actual.fingerprint != expected:
        raise EncoderMismatchError(
            f"The model '{name}' was trained to search passages of the encoder with fingerprint {expected[:12]}, but "
            f"the knowledge base at {index.base.path} was embedded by {actual.name} (fingerprint "
            f"{actual.fingerprint[:12]}): embed it again with this model's passage encoder ('ragweave reembed'). If "
            "that encoder was trained too, it is the model's folder document-encoder."
        )


def _adopt_prompts(config: RagConfig, index: KnowledgeBaseIndex | NoPassages) -> str:
    """Encode questions as the knowledge base's encoder does, unless the model sets its prompts.

    Returns:
        The prompt of passages.
    """
    if not isinstance(index, KnowledgeBaseIndex):
        return ""
    record = index.base.manifest.encoder
    config.question_encoder_dim = config.question_encoder_dim or record.dim
    if config.question_encoder_prompt is None:
        config.question_encoder_prompt = record.question_prompt
    return record.passage_prompt


def _check_complete(name: str, model: Any, loading: dict[str, Any]) -> None:
    """Check that the files of a model hold all its weights.

    Args:
        name: Folder or name of the model.
        model: The model; weights that are not in its files are random.
        loading: The loading info of transformers.

    Raises:
        ModelNotFoundError: Weights are missing.
    """
    weights = [*model.named_parameters(remove_duplicate=False)]
    # A tied weight has several names; one of them is enough.
    loaded = {id(weight) for key, weight in weights if key not in loading["missing_keys"]}
    missing = [key for key, weight in weights if id(weight) not in loaded]
    if model.rag.question_pooling != "pooler":
        # Only pooler pooling uses the pooler's weights; many checkpoints lack them.
        missing = [
            key for key in missing if not key.startswith("rag.question_encoder.") or ".pooler." not in key
        ]
    if any(".lora_" in key for key in loading["unexpected_keys"]):
        advice = (
            "it is a checkpoint of a run with an adapter. Resume that run (ragweave train --resume), or use the "
            "run's own folder, which holds the merged model once the run has ended"
        )
    else:
        advice = "save the model again with save_pretrained, or copy all of its files"
    check_complete(missing, name, "a RAG model", advice)

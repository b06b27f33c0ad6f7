"""Putting a pipeline's parts together from a name and a knowledge base."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragweave.encoders.cross_encoder import Reranker
from ragweave.encoders.text_encoder import TextEncoder, compute_dtype
from ragweave.errors import ConfigurationError, EncoderMismatchError, KnowledgeBaseError, ModelNotFoundError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.modeling.quantization import quantize_int8
from ragweave.retrieval.no_passages import NoPassages
from ragweave.types import SearchSettings

if TYPE_CHECKING:
    import torch

    from ragweave.configuration import RagConfig
    from ragweave.modeling.generation import MixtureGeneration
    from ragweave.pipeline.rag_pipeline import Formulation, GeneratorDtype
    from ragweave.retrieval.index_protocol import PassageScorer
    from ragweave.retrieval.rag_retriever import RagRetriever

Parts = tuple["MixtureGeneration", "RagRetriever", TextEncoder]
IndexMaker = Callable[[SearchSettings], KnowledgeBaseIndex | NoPassages]


def load_pipeline_parts(
    name_or_path: str | Path,
    knowledge_base: str | Path | KnowledgeBase | None,
    *,
    formulation: Formulation | None,
    search: SearchSettings | None,
    reranker: str | Path | PassageScorer | None,
    adapter: bool,
    dtype: GeneratorDtype,
    device: str | None,
) -> Parts:
    """Model, retriever and question encoder for `RagPipeline.from_pretrained`; arguments and errors as there."""
    from ragweave.pipeline import embedded

    if formulation is not None:
        model_class(formulation)  # an unknown word is told at once, not after a model was loaded
    index = _index_maker(knowledge_base, search, reranker, device)
    own = partial(_embedded_parts, adapter=adapter)
    load = own if str(name_or_path) == embedded.NAME else _saved_parts
    if dtype != "int8":
        return load(str(name_or_path), index, formulation, compute_dtype(dtype, device), device)
    parts = load(str(name_or_path), index, formulation, compute_dtype("float32", device), device)
    quantize_int8(parts[0].generator)
    return parts


def _index_maker(
    knowledge_base: str | Path | KnowledgeBase | None,
    search: SearchSettings | None,
    reranker: str | Path | PassageScorer | None,
    device: str | None,
) -> IndexMaker:
    """What makes the index, of the way in which the model searches where nobody says."""
    if knowledge_base is None:
        return lambda _: NoPassages()
    if not isinstance(knowledge_base, KnowledgeBase):
        knowledge_base = KnowledgeBase.open(knowledge_base)
    if isinstance(reranker, (str, Path)):
        reranker = Reranker.from_pretrained(reranker, device=device)
    return lambda otherwise: knowledge_base.as_index(search, otherwise=otherwise, reranker=reranker)


def _embedded_parts(
    name: str,
    index_of: IndexMaker,
    formulation: Formulation | None,
    dtype: torch.dtype,
    device: str | None,
    *,
    adapter: bool,
) -> Parts:
    from transformers import AutoTokenizer

    from ragweave.configuration import RagConfig
    from ragweave.pipeline import embedded
    from ragweave.retrieval.rag_retriever import RagRetriever

    index = index_of(embedded.SEARCH)
    encoder = TextEncoder.from_pretrained(embedded.encoder_path(), device=device, name=embedded.ENCODER)
    if isinstance(index, KnowledgeBaseIndex):
        index.base.check_encoder(encoder)
    generator = embedded.load_generator(dtype=dtype, adapter=adapter)
    config = RagConfig.from_question_encoder_generator_configs(
        encoder.model.config, generator.config, **embedded.CONTEXT_FIELDS
    )
    model = model_class(formulation or "token")(config, encoder.model, generator).eval()
    if device is not None:
        model.to(device)
    tokenizer = AutoTokenizer.from_pretrained(embedded.generator_path())
    return model, RagRetriever(config, encoder.tokenizer, tokenizer, index=index), encoder


def _saved_parts(
    name: str,
    index_of: IndexMaker,
    formulation: Formulation | None,
    dtype: torch.dtype,
    device: str | None,
) -> Parts:
    from ragweave.configuration import RagConfig
    from ragweave.retrieval.rag_retriever import RagRetriever
    from ragweave.tokenization import RagTokenizer

    try:
        if RagConfig.get_config_dict(name)[0].get("model_type") != RagConfig.model_type:
            raise ValueError("there is no configuration of a RAG model")
        config = RagConfig.from_pretrained(name)
        index = index_of(SearchSettings(config.retrieval, dense_weight=config.dense_weight))
        _check_passage_encoder(name, config, index)
        tokenizer = RagTokenizer.from_pretrained(name, config=config)
        if formulation is None:
            formulation = (
                "sequence" if "RagSequenceForGeneration" in (config.architectures or []) else "token"
            )
        model, found = model_class(formulation).from_pretrained(name, config=config, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"No RAG model could be loaded from '{name}': give 'embedded', a folder with a RAG model and its "
            f"tokenizers, or a name on the hub ({str(error).splitlines()[0]})."
        ) from error
    _check_whole(name, model, found)
    model.eval().rag.generator.to(dtype)
    if device is not None:
        model.to(device)
    encoder = TextEncoder(
        model=model.question_encoder,
        tokenizer=tokenizer.question_encoder,
        name=name,
        pooling=model.rag.question_pooling,
        normalize=config.question_encoder_normalize,
    )
    # A question encoder may have been trained while the passages' stayed as it was: only the size must agree.
    if isinstance(index, KnowledgeBaseIndex) and encoder.dimension != index.base.manifest.dimension:
        raise KnowledgeBaseError(
            f"The question encoder of '{name}' makes vectors of dimension {encoder.dimension}, but the knowledge "
            f"base holds {index.base.manifest.dimension}: build it with the passage encoder of this model."
        )
    return model, RagRetriever(config, encoder.tokenizer, tokenizer.generator, index=index), encoder


def _check_passage_encoder(name: str, config: RagConfig, index: KnowledgeBaseIndex | NoPassages) -> None:
    """Check that a knowledge base was embedded by the encoder whose passages a model was trained to search.

    Raises:
        EncoderMismatchError: It was not.
    """
    expected = config.passage_encoder_fingerprint
    if expected is None or not isinstance(index, KnowledgeBaseIndex):
        return
    found = index.base.manifest.encoder
    if found.fingerprint != expected:
        raise EncoderMismatchError(
            f"The model '{name}' was trained to search passages of the encoder with fingerprint {expected[:12]}, but "
            f"the knowledge base at {index.base.path} was embedded by {found.name} (fingerprint "
            f"{found.fingerprint[:12]}): build the knowledge base with the passage encoder of this model, as "
            "'ragweave reembed' does; where it was trained too, that is the model's folder document-encoder."
        )


def _check_whole(name: str, model: Any, found: dict[str, Any]) -> None:
    """Check that all weights of a model were in its files.

    Args:
        name: Where it was loaded from.
        model: The model, whose lacking weights are random.
        found: What transformers says of the loading.

    Raises:
        ModelNotFoundError: Some were not.
    """
    weights = [*model.named_parameters(remove_duplicate=False)]
    # A weight that is tied has several names, of which one is enough.
    loaded = {id(weight) for own, weight in weights if own not in found["missing_keys"]}
    missing = [own for own, weight in weights if id(weight) not in loaded]
    if model.rag.question_pooling != "pooler":
        # Only that pooling reads the pooler's weights; many checkpoints come without them.
        missing = [
            own for own in missing if not own.startswith("rag.question_encoder.") or ".pooler." not in own
        ]
    if not missing:
        return
    if any(".lora_" in own for own in found["unexpected_keys"]):
        advice = (
            "it is a checkpoint of a run with an adapter. Go on with that run (ragweave train --resume), or take the "
            "run's folder, which has the merged model when it has ended"
        )
    else:
        advice = "save the model again with save_pretrained, or copy all of its files"
    raise ModelNotFoundError(
        f"'{name}' is no whole model: its files lack {len(missing)} weights, such as '{missing[0]}'; {advice}."
    )


def model_class(formulation: Formulation) -> Any:
    """The class of models of a formulation.

    Raises:
        ConfigurationError: It is neither "token" nor "sequence".
    """
    from ragweave.modeling.sequence import RagSequenceForGeneration
    from ragweave.modeling.token import RagTokenForGeneration

    if formulation not in ("token", "sequence"):
        raise ConfigurationError(f"formulation is {formulation!r}; choose 'token' or 'sequence'.")
    return RagTokenForGeneration if formulation == "token" else RagSequenceForGeneration

"""What RAG models of torch and of TensorFlow share apart from their networks. Imports neither framework."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from transformers import GenerationConfig

from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError
from ragweave.modeling.arguments import missing_contexts, take_prefixed
from ragweave.modeling.special_tokens import SpecialTokens
from ragweave.outputs import RetrievedContexts
from ragweave.types import Pooling


class Retriever(Protocol):
    """What a model asks of its retriever; `ragweave.RagRetriever` is the usual one."""

    def __call__(
        self,
        question_input_ids: Any,
        question_hidden_states: np.ndarray,
        prefix: str | None = None,
        n_docs: int | None = None,
        return_tensors: str | None = None,
    ) -> Any:
        """Retrieve passages for B questions and make the generator's contexts from them."""
        ...


def resolve_config(
    config: RagConfig | None,
    question_encoder: Any,
    generator: Any,
    **kwargs: Any,
) -> RagConfig:
    """The caller's configuration, or one made from the two models.

    Raises:
        ConfigurationError: There is neither, or it is none of ours.
    """
    if config is None:
        if question_encoder is None or generator is None:
            raise ConfigurationError("Give a RagConfig, or both a question_encoder and a generator.")
        return RagConfig.from_question_encoder_generator_configs(
            question_encoder.config, generator.config, **kwargs
        )
    if getattr(config, "model_type", None) != RagConfig.model_type:
        raise ConfigurationError(f"config is a {type(config).__name__}; give a RagConfig.")
    return config


def load_parts(
    names: Mapping[str, Any], kwargs: dict[str, Any], load: Callable[[str, str, dict[str, Any]], Any]
) -> dict[str, Any]:
    """Load the two networks of a RAG model and make their configuration.

    Args:
        names: Name or folder of "question_encoder" and of "generator"; None where there is a model.
        kwargs: Arguments of ``from_pretrained_question_encoder_generator``.
        load: Loads a network from its part's name, its own name and its arguments.

    Returns:
        ``question_encoder``, ``generator`` and ``config``, as a model's constructor takes them.

    Raises:
        ConfigurationError: A part has neither a name nor a model.
    """
    parts = {}
    for part, name in names.items():
        arguments = take_prefixed(kwargs, f"{part}_", except_for=RagConfig.__dataclass_fields__)
        network = arguments.pop("model", None)
        if network is None:
            if name is None:
                raise ConfigurationError(
                    f"Give {part}_pretrained_model_name_or_path, or a model as {part}_model."
                )
            network = load(part, name, arguments)
        parts[part] = network
    config = kwargs.pop("config", None)
    return {**parts, "config": resolve_config(config, **parts, **({} if config is not None else kwargs))}


class RagParts:
    """Base of `RagModel` and `TFRagModel`: access to their parts, and where contexts come from."""

    config: RagConfig
    question_encoder: Any
    generator: Any
    retriever: Retriever | None
    # Both depend on the framework.
    retrieve: Callable[..., RetrievedContexts]
    _checked_contexts: Callable[[Any, Any, Any, int | None], RetrievedContexts]

    def set_retriever(self, retriever: Retriever) -> None:
        """Let the model call another retriever."""
        self.retriever = retriever

    @property
    def special_tokens(self) -> SpecialTokens:
        """The generator's special tokens, as the configuration names them."""
        return SpecialTokens(self.config)

    @property
    def question_pooling(self) -> Pooling:
        """How the question encoder's states become one vector."""
        if self.config.question_encoder_pooling is not None:
            return self.config.question_encoder_pooling
        return "pooler" if self.question_encoder.config.model_type == "dpr" else "cls"

    def contexts_for(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        context_input_ids: Any = None,
        context_attention_mask: Any = None,
        doc_scores: Any = None,
        n_docs: int | None = None,
        question_strings: Sequence[str] | None = None,
        **flags: bool | None,
    ) -> RetrievedContexts:
        """The caller's own contexts where given, retrieved ones otherwise.

        Raises:
            MissingContextError: Contexts are given in part, or neither they nor a retriever and a question are.
            ShapeError: The contexts, their mask and their scores disagree.
        """
        if context_input_ids is None and self.retriever is not None and input_ids is not None:
            return self.retrieve(
                input_ids, attention_mask, n_docs=n_docs, question_strings=question_strings, **flags
            )
        if context_input_ids is None or context_attention_mask is None or doc_scores is None:
            raise missing_contexts(
                context_input_ids=context_input_ids,
                context_attention_mask=context_attention_mask,
                doc_scores=doc_scores,
            )
        return self._checked_contexts(context_input_ids, context_attention_mask, doc_scores, n_docs)


class RagWrapper:
    """Base of the models for generation, which wrap a `RagParts`: access to the parts inside."""

    config: RagConfig
    generation_config: GenerationConfig
    rag: Any

    @property
    def retriever(self) -> Retriever | None:
        """The retriever that the model calls."""
        return self.rag.retriever

    @property
    def question_encoder(self) -> Any:
        """The question encoder."""
        return self.rag.question_encoder

    @property
    def generator(self) -> Any:
        """The generator."""
        return self.rag.generator

    def set_retriever(self, retriever: Retriever) -> None:
        """Let the model call another retriever."""
        self.rag.set_retriever(retriever)

    def _merged_generation_config(
        self, config: GenerationConfig | None, *defaults: GenerationConfig
    ) -> GenerationConfig:
        """A new configuration of the caller's values, then this model's, then its networks', then the defaults'."""
        merged, special = copy.deepcopy(self.generation_config), self.rag.special_tokens
        tokens = {
            "decoder_start_token_id": special.decoder_start,
            "bos_token_id": special.bos,
            "eos_token_id": self.config.eos_token_id or getattr(self.config.generator, "eos_token_id", None),
            "pad_token_id": special.filler,
        }
        for values in (tokens, *(default.to_dict() for default in defaults)):
            merged.update(**values, defaults_only=True)
        if config is not None:
            merged.update(**{name: value for name, value in config.to_dict().items() if value is not None})
        return merged

"""What the RAG models of torch and TensorFlow share apart from their networks. Imports neither framework."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol, Self

import numpy as np
from transformers import GenerationConfig

from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError
from ragweave.modeling.arguments import missing_contexts, pop_prefixed
from ragweave.outputs import RetrievedContexts
from ragweave.types import Pooling


class RetrieverProtocol(Protocol):
    """What a model calls to retrieve; usually a `ragweave.RagRetriever`."""

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
    config: RagConfig | None, question_encoder: Any, generator: Any, **kwargs: Any
) -> RagConfig:
    """The caller's configuration, or one made from the two models.

    Raises:
        ConfigurationError: There is neither, or the configuration is not a RagConfig.
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
        names: Name or folder of "question_encoder" and of "generator"; None if ``kwargs`` contains the model.
        kwargs: Arguments of ``from_pretrained_question_encoder_generator``.
        load: Loads a network from its part's name, its own name and its arguments.

    Returns:
        ``question_encoder``, ``generator`` and ``config``, as a model's constructor takes them.

    Raises:
        ConfigurationError: A part has neither a name nor a model.
    """
    parts = {}
    for part, name in names.items():
        arguments = pop_prefixed(kwargs, f"{part}_", except_for=RagConfig.__annotations__)
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


@dataclass(frozen=True)
class SpecialTokens:
    """The generator's special tokens: those that RagConfig defines, and its generator's for the others.

    Attributes:
        pad: The pad token; ``None`` if the generator has none.
        bos: The beginning-of-sequence token.
        ends: All tokens that end an answer.
        pad_or_eos: The token that pads sequences: the pad token, else the end-of-sequence token, else 0.
        decoder_start: The first token of the decoder; a placeholder for causal generators.
    """

    pad: int | None
    bos: int | None
    ends: list[int]
    pad_or_eos: int
    decoder_start: int

    @classmethod
    def from_config(cls, config: RagConfig) -> Self:
        """Read the special tokens of a configuration."""

        def ids(name: str) -> list[int]:
            return as_list(getattr(config, name)) or as_list(getattr(config.generator, name, None))

        pad, bos, ends = ids("pad_token_id"), ids("bos_token_id"), ids("eos_token_id")
        pad_or_eos = (pad or ends or [0])[0]
        start = (ids("decoder_start_token_id") or bos or pad or [pad_or_eos])[0]
        return cls(next(iter(pad), None), next(iter(bos), None), ends, pad_or_eos, start)

    @property
    def eos(self) -> int | None:
        """The end-of-sequence token (the first, if there are several)."""
        return next(iter(self.ends), None)


def as_list(tokens: int | Sequence[int] | None) -> list[int]:
    """Token ids as a list, whichever way a configuration writes them."""
    if tokens is None:
        return []
    return [tokens] if isinstance(tokens, int) else [int(token) for token in tokens]


class RagParts:
    """Base of `RagModel` and `TFRagModel`: access to their parts, and the choice of contexts."""

    config: RagConfig
    question_encoder: Any
    generator: Any
    retriever: RetrieverProtocol | None
    # Both depend on the framework.
    retrieve: Callable[..., RetrievedContexts]
    _checked_contexts: Callable[[Any, Any, Any, int | None], RetrievedContexts]

    def set_retriever(self, retriever: RetrieverProtocol) -> None:
        """Set the retriever that the model calls."""
        self.retriever = retriever

    @property
    def special_tokens(self) -> SpecialTokens:
        """The generator's special tokens, as the configuration defines them."""
        return SpecialTokens.from_config(self.config)

    @property
    def question_pooling(self) -> Pooling:
        """How the question encoder's states become one vector."""
        if self.config.question_encoder_pooling is not None:
            return self.config.question_encoder_pooling
        return "pooler" if self.question_encoder.config.model_type == "dpr" else "cls"

    def prepare_contexts(
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
        """The caller's contexts, or retrieved ones if there are none. Arguments as for `RagModel.forward`.

        Raises:
            MissingContextError: Contexts are incomplete, or there are none and no retriever and question either.
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
    """Base of the models for generation, which wrap a `RagParts` in ``rag``."""

    config: RagConfig
    generation_config: GenerationConfig
    rag: Any

    # Public names of transformers' RAG classes.
    retriever = property(attrgetter("rag.retriever"), doc="The retriever that the model calls.")
    question_encoder = property(attrgetter("rag.question_encoder"), doc="The question encoder.")
    generator = property(attrgetter("rag.generator"), doc="The generator.")

    def set_retriever(self, retriever: RetrieverProtocol) -> None:
        """Set the retriever that the model calls."""
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
            "pad_token_id": special.pad_or_eos,
        }
        for values in (tokens, *(default.to_dict() for default in defaults)):
            merged.update(**values, defaults_only=True)
        if config is not None:
            merged.update(**{name: value for name, value in config.to_dict().items() if value is not None})
        return merged

"""What a RAG model is made of besides its networks: a configuration, and a retriever. No framework here."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError


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
    """The configuration given, or one made from the two models.

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

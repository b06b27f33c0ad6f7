"""RagPreTrainedModel, the base of all RAG models: configuration, loading, and access to the generator."""

from __future__ import annotations

from os import PathLike
from typing import Any, ClassVar, Self

from torch import nn
from transformers import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError
from ragweave.model_files import check_config, refuse_code
from ragweave.modeling.parts import RetrieverProtocol, load_parts

# Layers whose state is not a cache of keys and values that can be repeated, masked and reordered.
RECURRENT_LAYERS = frozenset({"conv", "linear_attention", "mamba", "recurrent"})


class RagPreTrainedModel(PreTrainedModel):
    """Base of the RAG models."""

    config_class = RagConfig
    config: RagConfig
    base_model_prefix = "rag"
    _supports_sdpa = True
    _supports_flash_attn = True
    supports_gradient_checkpointing = True
    # Trainer passes ``num_items_in_batch``, and the loss becomes a scalar.
    accepts_loss_kwargs = True
    # Checkpoints of end-to-end training contain the context encoder, which generation does not need.
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"^(rag\.)?ctx_encoder\."]
    generator: PreTrainedModel

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str] | None,
        *model_args: Any,
        retriever: RetrieverProtocol | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a model as transformers does, and set its retriever.

        Args:
            pretrained_model_name_or_path: Folder or name on the hub.
            *model_args: Passed to transformers.
            retriever: Retriever that the model calls.
            **kwargs: Passed to transformers.

        Returns:
            The model, in evaluation mode; with ``output_loading_info``, a tuple as in transformers.

        Raises:
            ConfigurationError: An argument or the configuration asks for code of the model.
        """
        refuse_code(kwargs)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        if retriever is not None:
            # Not passed to transformers, which copies its arguments in depth: an index may be of any size.
            (loaded[0] if isinstance(loaded, tuple) else loaded).set_retriever(retriever)
        return loaded

    @classmethod
    def from_pretrained_question_encoder_generator(
        cls,
        question_encoder_pretrained_model_name_or_path: str | None = None,
        generator_pretrained_model_name_or_path: str | None = None,
        retriever: RetrieverProtocol | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a RAG model from two pretrained models.

        Args:
            question_encoder_pretrained_model_name_or_path: Name or folder of the question encoder.
            generator_pretrained_model_name_or_path: Name or folder of the generator, seq2seq or causal.
            retriever: Retriever that the model calls.
            **kwargs: ``question_encoder_...`` and ``generator_...`` are passed, without the prefix, to the loading of
                these models (``question_encoder_model`` and ``generator_model`` are models that are loaded already);
                ``config`` is a whole RagConfig; all others are fields of RagConfig.

        Returns:
            The model, in evaluation mode.

        Raises:
            ConfigurationError: A part has neither a name nor a model.

        Example:
            ```python
            model = RagTokenForGeneration.from_pretrained_question_encoder_generator(
                "facebook/dpr-question_encoder-single-nq-base", "facebook/bart-large", retriever=retriever
            )
            ```
        """
        names = {
            "question_encoder": question_encoder_pretrained_model_name_or_path,
            "generator": generator_pretrained_model_name_or_path,
        }
        parts = load_parts(names, kwargs, _load)
        model = cls(**parts, retriever=retriever)
        # A generation configuration may have more end tokens than its model's (Llama's and Gemma's end of turn).
        ends = getattr(parts["generator"].generation_config, "eos_token_id", None)
        if model.can_generate() and parts["config"].eos_token_id is None and ends is not None:
            model.generation_config.eos_token_id = ends
        return model.eval()

    def set_context_encoder_for_training(self, ctx_encoder: PreTrainedModel) -> None:
        """Encode retrieved passages with ``ctx_encoder`` to score them, so that it is trained as well.

        The retriever must return tokenised passages: call its ``set_ctx_encoder_tokenizer`` first.
        """
        self.base_model.ctx_encoder = ctx_encoder
        self.base_model.context_encoder_training = True

    # The token embeddings of a RAG model are its generator's.

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Resize the generator's embeddings with its own method (BART's also resizes a bias)."""
        embeddings = self.generator.resize_token_embeddings(*args, **kwargs)
        self.config.generator = self.generator.config
        return embeddings

    def get_input_embeddings(self) -> nn.Module:
        """The generator's input embeddings."""
        return self.generator.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the generator's input embeddings."""
        self.generator.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """The generator's language-model head."""
        return self.generator.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the generator's language-model head."""
        self.generator.set_output_embeddings(new_embeddings)


def generator_class(config: Any) -> Any:
    """The Auto class of a generator's configuration, seq2seq or causal."""
    if (
        getattr(config, "is_encoder_decoder", False)
        and type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    ):
        return AutoModelForSeq2SeqLM
    return AutoModelForCausalLM


def _load(part: str, name: str, kwargs: dict[str, Any]) -> PreTrainedModel:
    """Load a question encoder or a generator."""
    kwargs["trust_remote_code"] = False  # by default, transformers asks on the terminal
    if "config" not in kwargs:
        config, kwargs = AutoConfig.from_pretrained(name, **kwargs, return_unused_kwargs=True)
        kwargs.update(config=config, trust_remote_code=False)
    check_config(kwargs["config"])
    loader = generator_class(kwargs["config"]) if part == "generator" else AutoModel
    return loader.from_pretrained(name, **kwargs)


def check_generator(generator: PreTrainedModel) -> None:
    """Reject generators that no wrapper supports.

    Raises:
        ConfigurationError: It has recurrent or convolutional layers, or an encoder and a mixture of experts.
    """
    config = generator.config
    recurrent = RECURRENT_LAYERS.intersection(getattr(config, "layer_types", None) or ())
    # `_is_stateful` is private; it covers models that do not list their layers in the configuration.
    stateful = bool(recurrent) or getattr(generator, "_is_stateful", False)
    # Outputs of a mixture of experts contain the router's logits, at other positions.
    experts = config.is_encoder_decoder and bool(getattr(config, "num_experts", None))
    if not (stateful or experts):
        return
    reason = "mixes experts and has an encoder" if experts else "keeps a recurrent or convolutional state"
    raise ConfigurationError(
        f"A generator of type '{config.model_type}' {reason}, which is not supported; choose one whose layers are "
        "attention and dense, such as 'bart', 't5', 'llama' or 'qwen3'."
    )

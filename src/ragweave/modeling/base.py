"""What every RAG model shares: how it is put together, and where its parts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

from ragweave.configuration import RagConfig
from ragweave.modeling.parts import RagWrapper, Retriever, load_parts, resolve_config

if TYPE_CHECKING:
    from os import PathLike

    from ragweave.modeling.rag import RagModel


class RagPreTrainedModel(PreTrainedModel):
    """Base of the RAG models: configuration class, loading and saving."""

    config_class = RagConfig
    config: RagConfig
    base_model_prefix = "rag"
    _supports_sdpa = True
    _supports_flash_attn = True
    supports_gradient_checkpointing = True
    # The loss is a mean over questions, whatever their answers' lengths: Trainer divides it by its accumulation.
    accepts_loss_kwargs = False
    # A folder saved in the midst of training holds the document encoder too, which answering does not need.
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"^(rag\.)?ctx_encoder\."]
    generator: PreTrainedModel

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Resize the generator's embeddings its own way (BART has a bias as long as its vocabulary)."""
        embeddings = self.generator.resize_token_embeddings(*args, **kwargs)
        self.config.generator = self.generator.config
        return embeddings

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str] | None,
        *model_args: Any,
        retriever: Retriever | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a model as transformers does, and let it call a retriever.

        Args:
            pretrained_model_name_or_path: Folder or name on the hub.
            *model_args: Handed on to transformers.
            retriever: Retriever that the model calls.
            **kwargs: Handed on to transformers.

        Returns:
            The model, in evaluation mode; with ``output_loading_info`` what transformers returns beside it too.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        if retriever is not None:
            # Not handed on: transformers copies its arguments in depth, and an index may be of any size.
            (loaded[0] if isinstance(loaded, tuple) else loaded).set_retriever(retriever)
        return loaded

    @classmethod
    def from_pretrained_question_encoder_generator(
        cls,
        question_encoder_pretrained_model_name_or_path: str | None = None,
        generator_pretrained_model_name_or_path: str | None = None,
        retriever: Retriever | None = None,
        **kwargs: Any,
    ) -> Self:
        """Put a RAG model together from two pretrained models.

        Args:
            question_encoder_pretrained_model_name_or_path: Name or folder of the question encoder.
            generator_pretrained_model_name_or_path: Name or folder of the generator, seq2seq or causal.
            retriever: Retriever that the model calls.
            **kwargs: ``question_encoder_...`` and ``generator_...`` go, without that prefix, to the loading of
                the one or the other (``question_encoder_model`` and ``generator_model`` are models that are
                there already); ``config`` is a whole RagConfig; the rest are fields of RagConfig.

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
        config, generator = parts["config"], parts["generator"]
        model = cls(**parts, retriever=retriever)
        # The model beside the configuration may end answers at more tokens (Llama's, Gemma's end of turn).
        ends = getattr(generator.generation_config, "eos_token_id", None)
        if model.can_generate() and config.eos_token_id is None and ends is not None:
            model.generation_config.eos_token_id = ends
        return model.eval()


class RagForGeneration(RagWrapper, RagPreTrainedModel):
    """A model that wraps `RagModel` and marginalises what it returns: access to the parts inside.

    Args:
        config: Configuration; made from the two models' where left out.
        question_encoder: Question encoder; built from the configuration where left out.
        generator: Generator; built from the configuration where left out.
        retriever: Retriever that the model calls.
        **kwargs: Fields of RagConfig, where ``config`` is left out.
    """

    def __init__(
        self,
        config: RagConfig | None = None,
        question_encoder: PreTrainedModel | None = None,
        generator: PreTrainedModel | None = None,
        retriever: Retriever | None = None,
        **kwargs: Any,
    ) -> None:
        from ragweave.modeling.rag import RagModel

        config = resolve_config(config, question_encoder, generator, **kwargs)
        super().__init__(config)
        self.rag: RagModel = RagModel(
            config=config, question_encoder=question_encoder, generator=generator, retriever=retriever
        )
        self.post_init()

    def set_context_encoder_for_training(self, ctx_encoder: PreTrainedModel) -> None:
        """Score passages with vectors computed anew by ``ctx_encoder``, so that it is trained too."""
        self.rag.set_context_encoder_for_training(ctx_encoder)

    def get_input_embeddings(self) -> nn.Module:
        """The generator's input embeddings."""
        return self.rag.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the generator's input embeddings."""
        self.rag.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """The generator's language-model head."""
        return self.generator.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the generator's language-model head."""
        self.generator.set_output_embeddings(new_embeddings)

    def shift_tokens_right(self, input_ids: Tensor, start_token_id: int | None = None) -> Tensor:
        """Decoder input for labels: the start token, then every label but the last.

        Args:
            input_ids: Labels, (B, T); -100 becomes the padding token.
            start_token_id: First decoder token; the model's own where left out.

        Returns:
            Decoder input, (B, T).
        """
        start = self.rag.decoder_start_token_id if start_token_id is None else start_token_id
        shifted = input_ids.new_full(input_ids.shape, start)
        shifted[:, 1:] = input_ids[:, :-1]
        return shifted.masked_fill(shifted < 0, self.rag.filler_token_id)


def build_question_encoder(config: RagConfig) -> PreTrainedModel:
    """A question encoder with fresh weights."""
    return AutoModel.from_config(config.question_encoder)


def build_generator(config: RagConfig) -> PreTrainedModel:
    """A generator with fresh weights, seq2seq or causal as its configuration says."""
    return _generator_class(config.generator).from_config(config.generator)


def _generator_class(config: Any) -> Any:
    if (
        getattr(config, "is_encoder_decoder", False)
        and type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    ):
        return AutoModelForSeq2SeqLM
    return AutoModelForCausalLM


def _load(part: str, name: str, kwargs: dict[str, Any]) -> PreTrainedModel:
    if "config" not in kwargs:
        config, kwargs = AutoConfig.from_pretrained(name, **kwargs, return_unused_kwargs=True)
        kwargs["config"] = config
    loader = _generator_class(kwargs["config"]) if part == "generator" else AutoModel
    return loader.from_pretrained(name, **kwargs)

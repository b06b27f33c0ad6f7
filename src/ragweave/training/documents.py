"""The document encoder in training: which one it is, and how it reads what was retrieved."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ragweave.encoders.text_encoder import TextEncoder, with_title
from ragweave.errors import ConfigurationError, EncoderMismatchError, ModelNotFoundError

if TYPE_CHECKING:
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.modeling.generation import RagForGeneration


class PassageTokenizer:
    """Tokenises retrieved passages in the way in which the knowledge base's were, when they were embedded.

    Args:
        encoder: The document encoder.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def __call__(self, titles: Sequence[str], texts: Sequence[str], **options: Any) -> Any:
        """Tokenise passages, a title to a text; options are those of a tokenizer of transformers."""
        texts = [with_title(title, text) for title, text in zip(titles, texts, strict=True)]
        return self.encoder.tokenizer(texts, max_length=self.encoder.max_length, **options)


def document_encoder(
    base: KnowledgeBase, question_encoder: TextEncoder, name: str | None = None
) -> TextEncoder:
    """An encoder of its own weights that is the one that embedded the passages.

    Args:
        base: The knowledge base.
        question_encoder: The encoder of the questions; a copy is made where it embedded the passages too.
        name: Folder or hub name of the document encoder; that which the knowledge base names where left out.

    Raises:
        ModelNotFoundError: It cannot be loaded.
        EncoderMismatchError: It is not the one that embedded the passages.
    """
    record = base.manifest.encoder
    if name is None and question_encoder.fingerprint == record.fingerprint:
        model = copy.deepcopy(question_encoder.model).requires_grad_(True)
        return TextEncoder(
            model=model,
            tokenizer=question_encoder.tokenizer,
            name=record.name,
            pooling=question_encoder.pooling,
            normalize=question_encoder.normalize,
            max_length=record.max_length,  # questions may be read further than passages were
        )
    try:
        encoder = TextEncoder.from_pretrained(name or record.name, max_length=record.max_length)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"The encoder of the knowledge base, '{name or record.name}', could not be loaded: name its folder "
            "with --document-encoder (document_encoder=...)."
        ) from error
    try:
        base.check_encoder(encoder)
    except EncoderMismatchError as error:
        raise EncoderMismatchError(
            f"{error} In training, --document-encoder (document_encoder=...) names the encoder of the passages."
        ) from error
    return encoder


def train_documents(model: RagForGeneration, retriever: Any, encoder: TextEncoder) -> None:
    """Let a model score what it retrieves with vectors computed anew, so that their encoder is trained too.

    Args:
        model: The model.
        retriever: Its retriever.
        encoder: The document encoder, whose weights become the model's.

    Raises:
        ConfigurationError: The two encoders make their vectors in different ways.
    """
    ways = (model.rag.question_pooling, model.config.question_encoder_normalize)
    if ways != (encoder.pooling, encoder.normalize):
        raise ConfigurationError(
            f"The question encoder pools by '{ways[0]}' {'with' if ways[1] else 'without'} normalisation, the "
            f"document encoder by '{encoder.pooling}' {'with' if encoder.normalize else 'without'}: training both "
            "needs encoders that make their vectors alike."
        )
    model.set_context_encoder_for_training(encoder.model.to(model.device))
    retriever.set_ctx_encoder_tokenizer(PassageTokenizer(encoder))

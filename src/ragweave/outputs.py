"""Outputs of RAG models.

Notation used for tensor shapes
    B questions, K passages per question, R beams or samples per question, S context tokens, T target tokens,
    V vocabulary, D vector size, H size of a state.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import transformers
from transformers.utils import ModelOutput

# For type checkers only: ragweave.tf returns these too, and works without torch.
if TYPE_CHECKING:
    from torch import Tensor
    from transformers.cache_utils import Cache


# The name of caches in the installed transformers, which renamed ``past_key_values`` in version 5.24. (The fields of
# its outputs have the name too, but they import torch.)
CACHE = "cache" if tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 24) else "past_key_values"


def pop_cache(past_key_values: Cache | None, kwargs: dict[str, Any]) -> Cache | None:
    """The cache under its old name or, taken from the other arguments, under its new one."""
    return kwargs.pop("cache", None) if past_key_values is None else past_key_values


@dataclass
class RetrievAugLMOutput(ModelOutput):
    """Output of `RagModel`: the generator's output under every passage, before marginalisation.

    Attributes:
        logits: Generator logits, (B*K, T, V).
        doc_scores: Scaled passage scores, (B, K); -inf for no passage.
        cache: The generator's cache; ``past_key_values`` before transformers 5.24.
        retrieved_doc_embeds: Passage vectors, (B, K, D); with ``output_retrieved``.
        retrieved_doc_ids: Rows of the passages in the index, (B, K), -1 for none; with ``output_retrieved``.
        context_input_ids: Contexts, (B*K, S); with ``output_retrieved``.
        context_attention_mask: Their mask, (B*K, S); with ``output_retrieved``.
        question_encoder_last_hidden_state: Question vectors, (B, D).
        question_enc_hidden_states: Hidden states of the question encoder; with ``output_hidden_states``.
        question_enc_attentions: Attentions of the question encoder; with ``output_attentions``.
        generator_enc_last_hidden_state: Encoder states of a seq2seq generator, (B*K, S, H).
        generator_enc_hidden_states: Hidden states of the generator's encoder, layer by layer.
        generator_enc_attentions: Attentions of the generator's encoder.
        generator_dec_hidden_states: Hidden states of the decoder (for a causal generator: of the model).
        generator_dec_attentions: Attentions of the decoder (for a causal generator: of the model).
        generator_cross_attentions: Cross attentions of a seq2seq generator's decoder.
    """

    logits: Tensor | None = None
    doc_scores: Tensor | None = None
    # The loops of ``generate`` look for the installed version's name.
    if CACHE == "cache":
        cache: Cache | None = None
    else:
        past_key_values: Cache | None = None
    retrieved_doc_embeds: Tensor | None = None
    retrieved_doc_ids: Tensor | None = None
    context_input_ids: Tensor | None = None
    context_attention_mask: Tensor | None = None
    question_encoder_last_hidden_state: Tensor | None = None
    question_enc_hidden_states: tuple[Tensor, ...] | None = None
    question_enc_attentions: tuple[Tensor, ...] | None = None
    generator_enc_last_hidden_state: Tensor | None = None
    generator_enc_hidden_states: tuple[Tensor, ...] | None = None
    generator_enc_attentions: tuple[Tensor, ...] | None = None
    generator_dec_hidden_states: tuple[Tensor, ...] | None = None
    generator_dec_attentions: tuple[Tensor, ...] | None = None
    generator_cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class _Loss(ModelOutput):
    """A separate base, so that the loss is the first field, which callers expect when they unpack the output."""

    loss: Tensor | None = None


@dataclass
class RetrievAugLMMarginOutput(RetrievAugLMOutput, _Loss):
    """Output of the two models for generation: `RetrievAugLMOutput` and a loss.

    ``logits`` are the generator's, (B*K, T, V), or, from RAG-Token with ``do_marginalize``, log-probabilities of the
    mixture, (B, T, V).

    Attributes:
        loss: -log p(y|x), with ``labels``: (B,), whose ``backward`` computes the gradient of the sum, or a scalar if
            the loss is reduced.
    """


@dataclass
class RagSequenceGenerateOutput(ModelOutput):
    """Output of `RagSequenceForGeneration.generate` with ``return_dict_in_generate``.

    Attributes:
        sequences: Token ids, (B*num_return_sequences, T), best first for every question.
        sequences_scores: log p(y|x) of each under RAG-Sequence, (B*num_return_sequences,); -inf for rows of padding,
            if a question has fewer distinct hypotheses.
        passage_log_probs: log p(y_t | x, z, y_<t) of all tokens but the first, (B*num_return_sequences, K, T-1); NaN
            where decoding did not need it.
        doc_scores: Scaled passage scores, (B, K).
        context_input_ids: Contexts, (B*K, S).
        context_attention_mask: Their mask, (B*K, S).
        retrieved_doc_ids: Rows of the passages in the index, (B, K), if the model retrieved them.
    """

    sequences: Tensor | None = None
    sequences_scores: Tensor | None = None
    passage_log_probs: Tensor | None = None
    doc_scores: Tensor | None = None
    context_input_ids: Tensor | None = None
    context_attention_mask: Tensor | None = None
    retrieved_doc_ids: Tensor | None = None


@dataclass(frozen=True)
class RetrievedContexts:
    """Contexts of B questions for the generator: the interface between retrieval and generation."""

    context_input_ids: Tensor  # contexts, (B*K, S)
    context_attention_mask: Tensor  # their mask, (B*K, S)
    doc_scores: Tensor  # scaled passage scores, (B, K); -inf for no passage
    # Passage vectors, (B, K, D); these and all fields below only for retrieved contexts.
    retrieved_doc_embeds: Tensor | None = None
    retrieved_doc_ids: Tensor | None = None  # rows in the index, (B, K), -1 for none
    question_encoder_last_hidden_state: Tensor | None = None  # question vectors, (B, D)
    question_enc_hidden_states: tuple[Tensor, ...] | None = None  # hidden states of the question encoder
    question_enc_attentions: tuple[Tensor, ...] | None = None  # attentions of the question encoder

    def for_generate(self) -> dict[str, Tensor]:
        """Fields for the output of ``generate``, without those that are ``None``."""
        names = ("doc_scores", "context_input_ids", "context_attention_mask", "retrieved_doc_ids")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def for_forward(self, *, retrieved: bool) -> dict[str, Any]:
        """Fields for the output of ``forward``: the question's and, with ``retrieved``, the passages'."""
        names = [field.name for field in fields(self) if field.name != "doc_scores"]
        return {name: getattr(self, name) for name in names if retrieved or name.startswith("question_enc")}

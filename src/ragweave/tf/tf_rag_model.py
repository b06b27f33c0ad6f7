"""TFRagModel: question encoder, retriever and generator as one network, not yet marginalised.

The counterpart of `ragweave.modeling.rag`.

Notation used for tensor shapes
    B questions, K passages per question, R rows (beams, samples, hypotheses) per question and passage,
    S context tokens, T target tokens, V vocabulary, D vector size, H size of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError, MissingContextError
from ragweave.model_files import check_dim
from ragweave.modeling import parts
from ragweave.outputs import CACHE, RetrievedContexts, pop_cache
from ragweave.tf.graph_retrieval import call_retriever
from ragweave.tf.keras_backend import Tensor, dtype_policy, is_traced
from ragweave.tf.layers import Encoded, Tensors, at_least_float32
from ragweave.tf.tf_outputs import TFRetrievAugLMOutput
from ragweave.tf.tf_pretrained import TFRagPreTrainedModel, build_network, takes_dictionary
from ragweave.tf.transformer_layer import DecoderCache
from ragweave.types import Pooling


class TFRagModel(parts.RagParts, TFRagPreTrainedModel):
    """Question encoder, retriever and generator as one network (Lewis et al. 2020, section 2).

    It returns the generator's logits under every passage; `TFRagSequenceForGeneration` and
    `TFRagTokenForGeneration` marginalise them.

    Args:
        config: Configuration; made from the two networks' by default.
        question_encoder: A question encoder of `ragweave.tf`; built from the configuration by default.
        generator: A generator of `ragweave.tf`; built from the configuration by default.
        retriever: Retriever that the model calls; without one, every call needs contexts.
        dtype: A dtype policy of Keras, such as "mixed_bfloat16"; the global one by default.
        **kwargs: Fields of RagConfig, if there is no ``config``.

    Raises:
        ConfigurationError: `ragweave.tf` has no such network; the message lists those that it has.
    """

    def __init__(
        self,
        config: RagConfig | None = None,
        question_encoder: Any = None,
        generator: Any = None,
        retriever: parts.RetrieverProtocol | None = None,
        *,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        config = parts.resolve_config(config, question_encoder, generator, **kwargs)
        super().__init__(config)
        with dtype_policy(dtype):
            if question_encoder is None:
                question_encoder = build_network("question_encoder", config.question_encoder)
            if generator is None:
                generator = build_network("generator", config.generator)
        self.question_encoder, self.generator = question_encoder, generator
        self.retriever = retriever

    @property
    def rag(self) -> TFRagModel:
        """The model itself: the network without marginalisation."""
        return self

    def encode_question(
        self, input_ids: Tensor, attention_mask: Tensor = None, **flags: bool
    ) -> tuple[Tensor, Encoded]:
        """Question vectors, (B, D), and the encoder's whole output. Arguments as for `RagModel.encode_question`."""
        if attention_mask is None:
            attention_mask = ops.ones_like(input_ids)
        encoded = self.question_encoder(input_ids, attention_mask, **flags)
        config = self.config
        normalize, dim = config.question_encoder_normalize, config.question_encoder_dim
        return pool(encoded, self.question_pooling, normalize, dim), encoded

    def score_passages(
        self,
        question_vectors: Tensor,
        passage_vectors: Tensor,
        doc_ids: Tensor = None,
        *,
        weights: Tensor = None,
        offsets: Tensor = None,
    ) -> Tensor:
        """Passage scores, the logits of p(z|x). Arguments as for `RagModel.score_passages`."""
        passage_vectors = ops.cast(passage_vectors, question_vectors.dtype)
        scores = ops.sum(question_vectors[:, None] * passage_vectors, axis=-1) * self.config.doc_score_scale
        if weights is not None:
            scores = ops.cast(weights, scores.dtype) * scores
        if offsets is not None:
            scores = scores + ops.cast(offsets, scores.dtype)
        return scores if doc_ids is None else ops.where(doc_ids < 0, float("-inf"), scores)

    def retrieve(
        self,
        input_ids: Tensor,
        attention_mask: Tensor = None,
        *,
        n_docs: int | None = None,
        question_strings: Sequence[str] | None = None,
        **flags: bool,
    ) -> RetrievedContexts:
        """Encode B questions, retrieve K passages for each and score them.

        Gradient reaches the question encoder through the scores. Arguments as for `RagModel.retrieve`.

        Raises:
            ConfigurationError: A graph is being built that cannot call a retriever.
            MissingContextError: There is no retriever, or no question.
        """
        if self.retriever is None or input_ids is None:
            raise parts.missing_contexts(context_input_ids=None, context_attention_mask=None, doc_scores=None)
        input_ids = ops.convert_to_tensor(input_ids)
        vectors, encoded = self.encode_question(input_ids, attention_mask, **flags)
        retrieved = call_retriever(
            lambda: self.retriever,
            input_ids,
            vectors,
            n_docs=n_docs if n_docs is not None else self.config.n_docs,
            prefix=self.config.prefix or getattr(self.config.generator, "prefix", None),
            question_strings=question_strings,
        )
        scores = self.score_passages(
            vectors,
            retrieved.retrieved_doc_embeds,
            retrieved.doc_ids,
            weights=retrieved.doc_score_weights,
            offsets=retrieved.doc_score_offsets,
        )
        _check_scores(scores)
        return RetrievedContexts(
            context_input_ids=retrieved.context_input_ids,
            context_attention_mask=retrieved.context_attention_mask,
            doc_scores=scores,
            retrieved_doc_embeds=retrieved.retrieved_doc_embeds,
            retrieved_doc_ids=retrieved.doc_ids,
            question_encoder_last_hidden_state=vectors,
            question_enc_hidden_states=encoded.hidden_states,
            question_enc_attentions=encoded.attentions,
        )

    def _checked_contexts(
        self, input_ids: Tensor, attention_mask: Tensor, doc_scores: Tensor, n_docs: int | None
    ) -> RetrievedContexts:
        ids, mask, scores = map(ops.convert_to_tensor, (input_ids, attention_mask, doc_scores))
        if len(ids.shape) == len(mask.shape) == 3:  # (B, K, S): Keras' data sets need B rows everywhere
            ids, mask = (ops.reshape(tensor, (-1, ops.shape(tensor)[2])) for tensor in (ids, mask))
        parts.check_contexts(ids, mask, scores, n_docs)
        _check_scores(scores)
        return RetrievedContexts(ids, mask, scores)

    def encode_contexts(self, contexts: RetrievedContexts, **flags: bool) -> Encoded:
        """Encode B*K contexts, trimmed to the longest, with the generator; flags as for `call`.

        In a graph they are not trimmed, so that its shapes are known before it runs.
        """
        ids, mask = contexts.context_input_ids, contexts.context_attention_mask
        if not is_traced(ids, mask):
            longest = parts.longest_context(np.asarray(ops.convert_to_numpy(mask)))
            ids, mask = ids[:, :longest], mask[:, :longest]
        return self.generator.encode(ids, mask, **flags)

    @takes_dictionary
    def call(  # noqa: D417  # `RagModel.forward` describes the other arguments
        self,
        input_ids: Any = None,
        attention_mask: Tensor = None,
        encoder_outputs: Encoded | Tensors | None = None,
        decoder_input_ids: Tensor = None,
        decoder_attention_mask: Tensor = None,
        past_key_values: DecoderCache | None = None,
        doc_scores: Tensor = None,
        context_input_ids: Tensor = None,
        context_attention_mask: Tensor = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_retrieved: bool | None = None,
        n_docs: int | None = None,
        question_strings: Sequence[str] | None = None,
        training: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score decoder tokens under every passage.

        Arguments as for `RagModel.forward`, and:

        Args:
            input_ids: Question tokens, (B, S); or a dictionary of all arguments.
            encoder_outputs: What `encode_contexts` returned, or the encoder's states, (B*K, S, H), first in a tuple.
            context_input_ids: Contexts, (B*K, S) or (B, K, S).
            context_attention_mask: Their mask, of the same shape.
            training: Whether to apply dropout.

        Returns:
            `TFRetrievAugLMOutput` with logits (B*K*R, T, V).

        Raises:
            MissingContextError: There are neither contexts nor a retriever and a question.
            ShapeError: Arguments disagree about B or K.
        """
        return_dict = kwargs.pop("return_dict", True)
        past_key_values = pop_cache(past_key_values, kwargs)
        parts.warn_unknown(kwargs)
        flags = {
            "output_attentions": parts.resolve_flag(output_attentions, self.config.output_attentions),
            "output_hidden_states": parts.resolve_flag(
                output_hidden_states, self.config.output_hidden_states
            ),
        }
        contexts: RetrievedContexts | None = None
        rows: Tensor = None
        if encoder_outputs is not None:
            if doc_scores is None:
                raise parts.missing_contexts(doc_scores=doc_scores)
            encoded = self._encoded(encoder_outputs, context_attention_mask, doc_scores, n_docs)
        else:
            contexts = self.prepare_contexts(
                input_ids,
                attention_mask,
                context_input_ids,
                context_attention_mask,
                doc_scores,
                n_docs,
                question_strings,
                **flags,
            )
            doc_scores = contexts.doc_scores
            if decoder_input_ids is None:
                rows = self._decoder_input_from(contexts.context_input_ids)
            encoded = self.encode_contexts(contexts, **flags)
        if rows is None:
            if decoder_input_ids is None:
                raise MissingContextError(
                    "decoder_input_ids not given: pass them, or labels to a model for generation."
                )
            rows = decoder_rows(decoder_input_ids, doc_scores, "decoder_input_ids")
        if decoder_attention_mask is not None:
            decoder_attention_mask = decoder_rows(
                decoder_attention_mask, doc_scores, "decoder_attention_mask"
            )
        if past_key_values is None:
            cross = self.generator.cross_keys_values(encoded.last_hidden_state)
        else:
            cross = past_key_values.cross
            encoded.attention_mask = _mask_of_width(encoded.attention_mask, ops.shape(cross[0][0])[2])
            past_key_values = past_key_values.with_room_for(ops.shape(rows)[1])
        decoded = self.generator.decode(
            cross,
            encoded.attention_mask,
            rows,
            decoder_attention_mask=decoder_attention_mask,
            past=past_key_values,
            use_cache=parts.resolve_flag(use_cache, self.config.use_cache),
            **flags,
        )
        retrieved = parts.resolve_flag(output_retrieved, self.config.output_retrieved)
        # Contexts are trimmed before they are encoded; what is returned with them has their width.
        width = None if contexts is None else ops.shape(contexts.context_input_ids)[1]
        output = TFRetrievAugLMOutput(
            logits=decoded.logits,
            doc_scores=doc_scores,
            **{CACHE: decoded.cache},
            **({} if contexts is None else contexts.for_forward(retrieved=retrieved)),
            generator_enc_last_hidden_state=pad_to_width(encoded.last_hidden_state, width, (1,)),
            generator_enc_hidden_states=pad_to_width(encoded.hidden_states, width, (1,)),
            generator_enc_attentions=pad_to_width(encoded.attentions, width, (-2, -1)),
            generator_dec_hidden_states=decoded.hidden_states,
            generator_dec_attentions=decoded.attentions,
            generator_cross_attentions=pad_to_width(decoded.cross_attentions, width, (-1,)),
        )
        return output if return_dict is not False else output.to_tuple()

    def _decoder_input_from(self, context_input_ids: Tensor) -> Tensor:
        """BART's default decoder input, (B*K, S): the contexts, shifted right after its start token."""
        if self.generator.config.model_type != "bart":
            return None
        start = ops.full_like(context_input_ids[:, :1], self.special_tokens.decoder_start)
        return ops.concatenate([start, context_input_ids[:, :-1]], axis=1)

    def _encoded(self, encoder_outputs: Any, mask: Tensor, doc_scores: Tensor, n_docs: int | None) -> Encoded:
        """Contexts encoded earlier, in any form that ``encoder_outputs`` may have."""
        if isinstance(encoder_outputs, Encoded):
            states, mask = encoder_outputs.last_hidden_state, encoder_outputs.attention_mask
        else:
            states = encoder_outputs[0]
        parts.check_n_docs(n_docs, doc_scores, states.shape[0])
        if mask is None:
            mask = ops.ones(ops.shape(states)[:2], "int32")
        mask = mask[:, : ops.shape(states)[1]]  # the states may have been trimmed
        parts.check_mask(mask, *states.shape[:2])
        return Encoded(mask, states)


def pool(encoded: Encoded, pooling: Pooling, normalize: bool, dim: int | None = None) -> Tensor:
    """A question encoder's output as vectors, (B, D), float32 at least; see `ragweave.encoders.pooling.pool`."""
    if pooling == "pooler":
        if encoded.pooled is None:
            raise ConfigurationError("This encoder has no pooler output: set the pooling to 'cls' or 'mean'.")
        vectors = at_least_float32(encoded.pooled)
    elif encoded.last_hidden_state is None:
        raise ConfigurationError(
            f"The pooling '{pooling}' needs the states of all tokens, but this encoder returns one vector per text "
            "(DPR does): set the pooling to 'pooler'."
        )
    elif pooling == "cls":
        vectors = at_least_float32(encoded.last_hidden_state[:, 0])
    else:
        states = at_least_float32(encoded.last_hidden_state)
        mask = ops.cast(encoded.attention_mask, states.dtype)[..., None]  # (B, S, 1)
        vectors = ops.sum(states * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)
    if dim is not None:
        check_dim(dim, pooling, vectors.shape[-1])
        vectors = vectors[:, :dim]
    if normalize:
        square = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
        vectors = vectors * ops.rsqrt(ops.maximum(square, 1e-24))
    return vectors


def decoder_rows(tokens: Tensor, doc_scores: Tensor, name: str) -> Tensor:
    """Decoder input for every passage: (B*R, T) to (B*K*R, T), rows of one passage next to each other."""
    tokens = ops.convert_to_tensor(tokens)
    parts.check_decoder_rows(tokens, doc_scores, name)
    n_questions, n_docs = ops.shape(doc_scores)
    length = ops.shape(tokens)[1]
    rows = ops.reshape(tokens, (n_questions, 1, -1, length))  # (B, 1, R, T)
    return ops.reshape(ops.repeat(rows, n_docs, axis=1), (-1, length))


def pad_to_width(state: Any, width: Any, axes: tuple[int, ...]) -> Any:
    """Pad a tensor, or a tuple of them, on the right to S along some axes; unchanged if ``width`` is none."""
    if isinstance(state, tuple):
        return tuple(pad_to_width(layer, width, axes) for layer in state)
    if state is None or width is None or is_traced(state):  # graphs do not trim contexts
        return state
    paddings = [(0, 0)] * len(state.shape)
    for axis in axes:
        paddings[axis] = (0, width - state.shape[axis])
    return ops.pad(state, paddings) if paddings[axes[-1]] != (0, 0) else state


def _mask_of_width(mask: Tensor, width: Any) -> Tensor:
    """A mask, (N, S), for S keys of contexts that another call trimmed differently."""
    if is_traced(mask) or width == mask.shape[1]:
        return mask
    return ops.pad(mask, ((0, 0), (0, max(width - mask.shape[1], 0))))[:, :width]


def _check_scores(doc_scores: Tensor) -> None:
    if not is_traced(doc_scores):
        parts.check_scores(np.asarray(ops.convert_to_numpy(doc_scores)))

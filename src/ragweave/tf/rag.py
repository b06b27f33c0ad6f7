"""TFRagModel: question encoder, retriever and generator as one network, not yet marginalised.

It is to be read beside `ragweave.modeling.rag`, and says the same in Keras.

Notation used for tensor shapes
    B questions, K passages per question, R rows (beams, samples, hypotheses) per question and passage,
    S context tokens, T target tokens, V vocabulary, D vector size, H size of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from ragweave.configuration import RagConfig
from ragweave.errors import MissingContextError, ShapeError
from ragweave.modeling.arguments import chosen, refuse_unknown
from ragweave.modeling.arguments import check_mask, missing_contexts, resolve_n_docs
from ragweave.modeling.parts import Retriever, resolve_config
from ragweave.modeling.special_tokens import SpecialTokens
from ragweave.tf.backend import layers_of
from ragweave.tf.base import TFRagPreTrainedModel, takes_dictionary
from ragweave.tf.contexts import EncodedContexts, check_scores, trim_right
from ragweave.tf.networks import DecoderCache, build_generator, build_question_encoder
from ragweave.tf.outputs import RetrievedContexts, TFRetrievAugLMOutput
from ragweave.tf.pooling import pool
from ragweave.tf.retrieving import ask
from ragweave.types import Pooling

Tensor = Any

QUESTION_FIELDS = (
    "question_encoder_last_hidden_state",
    "question_enc_hidden_states",
    "question_enc_attentions",
)
RETRIEVED_FIELDS = (
    "retrieved_doc_embeds",
    "retrieved_doc_ids",
    "context_input_ids",
    "context_attention_mask",
)


class TFRagModel(TFRagPreTrainedModel):
    """Question encoder, retriever and generator as one network (Lewis et al. 2020, section 2).

    It returns the generator's logits under every passage; `TFRagSequenceForGeneration` and
    `TFRagTokenForGeneration` marginalise them.

    Args:
        config: Configuration; made from the two networks' where left out.
        question_encoder: A question encoder of `ragweave.tf`; built from the configuration where left out.
        generator: A generator of `ragweave.tf`; built from the configuration where left out.
        retriever: Retriever that the model calls; without one, every call gives contexts.
        dtype: A dtype policy of Keras, such as "mixed_bfloat16"; the global one where left out.
        **kwargs: Fields of RagConfig, where ``config`` is left out.

    Raises:
        ConfigurationError: `ragweave.tf` has no such network; the message lists those that it has.
    """

    def __init__(
        self,
        config: RagConfig | None = None,
        question_encoder: Any = None,
        generator: Any = None,
        retriever: Retriever | None = None,
        *,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        config = resolve_config(config, question_encoder, generator, **kwargs)
        super().__init__(config)
        with layers_of(dtype):
            self.question_encoder = (
                build_question_encoder(config.question_encoder)
                if question_encoder is None
                else question_encoder
            )
            self.generator = build_generator(config.generator) if generator is None else generator
        self._retriever = retriever
        self.built = True

    @property
    def rag(self) -> TFRagModel:
        """Itself: the network without marginalisation."""
        return self

    @property
    def retriever(self) -> Retriever | None:
        """The retriever that the model calls."""
        return self._retriever

    def set_retriever(self, retriever: Retriever) -> None:
        """Let the model call another retriever."""
        self._retriever = retriever

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

    def encode_question(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **flags: bool
    ) -> tuple[Tensor, Any]:
        """Encode B questions.

        Args:
            input_ids: Question tokens, (B, S).
            attention_mask: Their mask, (B, S).
            **flags: ``output_attentions``, ``output_hidden_states``.

        Returns:
            Question vectors, (B, D), pooled as the configuration says, and the encoder's whole output.
        """
        if attention_mask is None:
            attention_mask = ops.ones_like(input_ids)
        output = self.question_encoder(input_ids, attention_mask, **flags)
        vectors = pool(output, attention_mask, self.question_pooling, self.config.question_encoder_normalize)
        return vectors, output

    def score_passages(
        self,
        question_vectors: Tensor,
        passage_vectors: Tensor,
        doc_ids: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> Tensor:
        """Passage scores, the logits of p(z|x): scaled inner products, and what else the retriever scores by.

        Args:
            question_vectors: (B, D).
            passage_vectors: (B, K, D).
            doc_ids: (B, K); a passage whose id is below 0 is not there and gets -inf.
            weights: How much the inner products count, (B, K); 1 where left out.
            offsets: What is added to them, (B, K); 0 where left out.

        Returns:
            Scores, (B, K).
        """
        passage_vectors = ops.cast(passage_vectors, question_vectors.dtype)
        scores = ops.sum(question_vectors[:, None] * passage_vectors, axis=-1) * self.config.doc_score_scale
        if weights is not None:
            scores = ops.cast(weights, scores.dtype) * scores
        if offsets is not None:
            scores = scores + ops.cast(offsets, scores.dtype)
        return scores if doc_ids is None else ops.where(doc_ids < 0, float("-inf"), scores)

    def retrieve(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        *,
        n_docs: int | None = None,
        question_strings: Sequence[str] | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> RetrievedContexts:
        """Encode B questions, retrieve K passages for each and score them.

        Gradient reaches the question encoder through the scores.

        Args:
            input_ids: Question tokens, (B, S).
            attention_mask: Their mask, (B, S).
            n_docs: K; ``config.n_docs`` where left out.
            question_strings: The questions as the user wrote them; decoded from their tokens where left out.
            output_attentions: Return the question encoder's attentions too.
            output_hidden_states: Return the question encoder's hidden states too.

        Raises:
            ConfigurationError: A graph is being built that cannot hold a retriever.
            MissingContextError: There is no retriever, or no question.
        """
        if self._retriever is None or input_ids is None:
            raise missing_contexts(context_input_ids=None, context_attention_mask=None, doc_scores=None)
        input_ids = ops.convert_to_tensor(input_ids)
        vectors, encoder_output = self.encode_question(
            input_ids,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        found = ask(
            lambda: self._retriever,
            input_ids,
            vectors,
            n_docs=n_docs if n_docs is not None else self.config.n_docs,
            prefix=self.config.prefix or getattr(self.config.generator, "prefix", None),
            question_strings=question_strings,
        )
        scores = self.score_passages(
            vectors, found.vectors, found.doc_ids, weights=found.weights, offsets=found.offsets
        )
        check_scores(scores)
        return RetrievedContexts(
            context_input_ids=found.context_input_ids,
            context_attention_mask=found.context_attention_mask,
            doc_scores=scores,
            retrieved_doc_embeds=found.vectors,
            retrieved_doc_ids=found.doc_ids,
            question_encoder_last_hidden_state=vectors,
            question_enc_hidden_states=encoder_output.hidden_states,
            question_enc_attentions=encoder_output.attentions,
        )

    def contexts_for(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        doc_scores: Tensor | None = None,
        n_docs: int | None = None,
        question_strings: Sequence[str] | None = None,
        **flags: bool,
    ) -> RetrievedContexts:
        """The caller's own contexts where given, retrieved ones otherwise.

        Raises:
            MissingContextError: Contexts are given in part, or neither they nor a retriever and a question are.
            ShapeError: The given contexts, mask and scores disagree.
        """
        if context_input_ids is None and self._retriever is not None and input_ids is not None:
            return self.retrieve(
                input_ids, attention_mask, n_docs=n_docs, question_strings=question_strings, **flags
            )
        if context_input_ids is None or context_attention_mask is None or doc_scores is None:
            raise missing_contexts(
                context_input_ids=context_input_ids,
                context_attention_mask=context_attention_mask,
                doc_scores=doc_scores,
            )
        ids, mask, scores = map(
            ops.convert_to_tensor, (context_input_ids, context_attention_mask, doc_scores)
        )
        if len(ids.shape) == len(mask.shape) == 3:  # (B, K, S), as data sets of questions have them
            ids, mask = (ops.reshape(own, (-1, ops.shape(own)[2])) for own in (ids, mask))
        if len(ids.shape) != 2:
            raise ShapeError(
                f"context_input_ids has shape {tuple(ids.shape)}; expected (B*K, S) or (B, K, S)."
            )
        if None not in ids.shape and None not in scores.shape:
            resolve_n_docs(n_docs, self.config.n_docs, scores, ids.shape[0])
            check_mask(mask, *ids.shape)
        check_scores(scores)
        return RetrievedContexts(ids, mask, scores)

    def read(self, contexts: RetrievedContexts, **flags: bool) -> EncodedContexts:
        """Let the generator read B*K contexts, trimmed to the longest.

        Args:
            contexts: The contexts.
            **flags: ``output_attentions``, ``output_hidden_states``.
        """
        input_ids, mask = trim_right(contexts.context_input_ids, contexts.context_attention_mask)
        encoded = self.generator.encode(input_ids, mask, **flags)
        return EncodedContexts(mask, encoded.last_hidden_state, encoded.hidden_states, encoded.attentions)

    @takes_dictionary
    def call(
        self,
        input_ids: Any = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: EncodedContexts | tuple[Tensor, ...] | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: DecoderCache | None = None,
        doc_scores: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
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

        Args:
            input_ids: Question tokens, (B, S), which need a retriever; or a dictionary of all arguments.
            attention_mask: Their mask, (B, S).
            encoder_outputs: Contexts that the generator has read already, with ``doc_scores``: what `read` returned,
                or the encoder's states, (B*K, S, H), first in a tuple.
            decoder_input_ids: Decoder input, (B, T), shared by the K passages; or (B*R, T), R per question.
            decoder_attention_mask: Its mask, same shape.
            past_key_values: Cache of earlier decoder tokens, as an earlier call returned it; contexts are given
                as before.
            doc_scores: Scaled passage scores, (B, K), with ``context_input_ids``; -inf for no passage.
            context_input_ids: Contexts, (B*K, S) or (B, K, S).
            context_attention_mask: Their mask, of the same shape.
            use_cache: Return a cache.
            output_attentions: Return attentions of all parts.
            output_hidden_states: Return hidden states of all parts.
            output_retrieved: Return passages' ids, vectors and contexts.
            n_docs: K; taken from ``doc_scores`` where given, from the configuration otherwise.
            question_strings: The questions of ``input_ids`` as the user wrote them; see `retrieve`.
            training: Whether there is dropout.
            **kwargs: ``return_dict``; anything else is not known here.

        Returns:
            `TFRetrievAugLMOutput` with logits (B*K*R, T, V).

        Raises:
            MissingContextError: Neither contexts nor a retriever and a question are there.
            ShapeError: Arguments disagree about B or K.
        """
        return_dict = kwargs.pop("return_dict", True)
        refuse_unknown(kwargs)
        flags = {
            "output_attentions": chosen(output_attentions, self.config.output_attentions),
            "output_hidden_states": chosen(output_hidden_states, self.config.output_hidden_states),
        }
        if decoder_input_ids is None:
            raise MissingContextError(
                "decoder_input_ids not given: pass them, or labels to a model for generation."
            )
        contexts: RetrievedContexts | None = None
        if encoder_outputs is not None:
            if doc_scores is None:
                raise missing_contexts(doc_scores=doc_scores)
            encoded = self._encoded(encoder_outputs, context_attention_mask, doc_scores, n_docs)
        else:
            contexts = self.contexts_for(
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
            encoded = self.read(contexts, **flags)
        if decoder_attention_mask is not None:
            decoder_attention_mask = decoder_rows(
                decoder_attention_mask, doc_scores, "decoder_attention_mask"
            )
        rows = decoder_rows(decoder_input_ids, doc_scores, "decoder_input_ids")
        if past_key_values is None:
            cross = self.generator.cross_keys_values(encoded.last_hidden_state)
        else:
            cross = (past_key_values.cross_keys, past_key_values.cross_values)
            past_key_values = past_key_values.with_room_for(ops.shape(rows)[1])
        decoded = self.generator.decode(
            cross,
            encoded.attention_mask,
            rows,
            decoder_attention_mask=decoder_attention_mask,
            past=past_key_values,
            use_cache=chosen(use_cache, self.config.use_cache),
            **flags,
        )
        show_retrieved = chosen(output_retrieved, self.config.output_retrieved)
        shown = QUESTION_FIELDS + (RETRIEVED_FIELDS if show_retrieved else ())
        output = TFRetrievAugLMOutput(
            logits=decoded.logits,
            doc_scores=doc_scores,
            past_key_values=decoded.cache,
            **({} if contexts is None else {name: getattr(contexts, name) for name in shown}),
            generator_enc_last_hidden_state=encoded.last_hidden_state,
            generator_enc_hidden_states=encoded.hidden_states,
            generator_enc_attentions=encoded.attentions,
            generator_dec_hidden_states=decoded.hidden_states,
            generator_dec_attentions=decoded.attentions,
            generator_cross_attentions=decoded.cross_attentions,
        )
        return output if return_dict is not False else output.to_tuple()

    def _encoded(
        self, encoder_outputs: Any, mask: Tensor | None, doc_scores: Tensor, n_docs: int | None
    ) -> EncodedContexts:
        """Contexts read earlier, in whatever form the caller kept them."""
        if isinstance(encoder_outputs, EncodedContexts):
            states, mask = encoder_outputs.last_hidden_state, encoder_outputs.attention_mask
        else:
            states = encoder_outputs[0]
        resolve_n_docs(n_docs, self.config.n_docs, doc_scores, states.shape[0])
        if mask is None:
            mask = ops.ones(ops.shape(states)[:2], "int32")
        mask = mask[:, : ops.shape(states)[1]]  # the states may have been trimmed
        check_mask(mask, *states.shape[:2])
        return EncodedContexts(mask, states)


def decoder_rows(tokens: Tensor, doc_scores: Tensor, name: str) -> Tensor:
    """Decoder input for every passage: (B*R, T) to (B*K*R, T), rows of one passage next to each other.

    Raises:
        ShapeError: There are not R rows for each of B questions.
    """
    tokens = ops.convert_to_tensor(tokens)
    rows, questions = tokens.shape[0], doc_scores.shape[0]
    if rows is not None and questions is not None and rows % questions:
        raise ShapeError(f"{name} has {rows} rows, but there are {questions} questions; expected B rows.")
    n_questions, n_docs = ops.shape(doc_scores)
    length = ops.shape(tokens)[1]
    apart = ops.reshape(tokens, (n_questions, 1, -1, length))  # (B, 1, R, T)
    return ops.reshape(ops.repeat(apart, n_docs, axis=1), (-1, length))

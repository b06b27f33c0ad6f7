"""RagModel: question encoder, retriever and generator as one network, before marginalisation.

Notation used for tensor shapes
    B questions, K passages per question, R rows (beams, samples, hypotheses) per question and passage,
    S context tokens, T target tokens, V vocabulary, D vector size, H size of a hidden state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoModel, Cache, PreTrainedModel

from ragweave.configuration import RagConfig
from ragweave.encoders.linear import fast_linear
from ragweave.encoders.pooling import pool
from ragweave.errors import MissingContextError
from ragweave.modeling import parts
from ragweave.modeling.contexts import EncodedContexts, trim_right
from ragweave.modeling.generators import DecodeOptions, GeneratorWrapper, wrap_generator
from ragweave.modeling.passage_cache import PassageReuse
from ragweave.modeling.pretrained import RagPreTrainedModel, check_generator, generator_class
from ragweave.outputs import RetrievAugLMOutput, RetrievedContexts, pop_cache
from ragweave.retrieval.retriever import passage_scores


class RagModel(parts.RagParts, RagPreTrainedModel):
    """Question encoder, retriever and generator as one network (Lewis et al. 2020, section 2).

    It returns the generator's logits under every passage; `RagSequenceForGeneration` and
    `RagTokenForGeneration` marginalise them.

    Args:
        config: Configuration; by default it is made from the two models.
        question_encoder: Any encoder of transformers whose vectors match the index; by default it is built from the
            configuration, as is the generator.
        generator: Any seq2seq or causal model of transformers with a language-model head.
        retriever: Retriever that the model calls; without one, every call needs contexts.
        **kwargs: Fields of RagConfig, if there is no ``config``.
    """

    def __init__(
        self,
        config: RagConfig | None = None,
        question_encoder: PreTrainedModel | None = None,
        generator: PreTrainedModel | None = None,
        retriever: parts.RetrieverProtocol | None = None,
        **kwargs: Any,
    ) -> None:
        config = parts.resolve_config(config, question_encoder, generator, **kwargs)
        super().__init__(config)
        if question_encoder is None:
            question_encoder = AutoModel.from_config(config.question_encoder)
        if generator is None:
            generator = generator_class(config.generator).from_config(config.generator)
        check_generator(generator)
        self.question_encoder = question_encoder
        self.generator = generator
        self.retriever = retriever
        self.ctx_encoder: PreTrainedModel | None = None
        # Whether vectors of the context encoder, with gradient, replace those of the index.
        self.context_encoder_training = False
        self.post_init()

    @property
    def wrapped_generator(self) -> GeneratorWrapper:
        """The generator with one interface for seq2seq and causal models."""
        return wrap_generator(self.generator)

    def encode_question(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **flags: bool | None
    ) -> tuple[Tensor, Any]:
        """Encode B questions.

        Args:
            input_ids: Question tokens, (B, S).
            attention_mask: Their mask, (B, S).
            **flags: ``output_attentions``, ``output_hidden_states``.

        Returns:
            Question vectors, (B, D), pooled as configured, and the encoder's whole output.
        """
        with fast_linear(self.question_encoder):
            output = self.question_encoder(
                input_ids, attention_mask=attention_mask, return_dict=True, **flags
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self._pooled(output, mask), output

    def _pooled(self, output: Any, mask: Tensor) -> Tensor:
        config = self.config
        normalize, dim = config.question_encoder_normalize, config.question_encoder_dim
        return pool(output, mask, self.question_pooling, normalize, dim)

    def score_passages(
        self,
        question_vectors: Tensor,
        passage_vectors: Tensor,
        doc_ids: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> Tensor:
        """Passage scores, the logits of p(z|x); see `passage_scores`.

        Args:
            question_vectors: (B, D).
            passage_vectors: (B, K, D).
            doc_ids: (B, K); -1 where the index has fewer than K passages, whose score is -inf.
            weights: Weights of the inner products, (B, K); 1 by default. See `Hits`.
            offsets: Added to the scores, (B, K); 0 by default.

        Returns:
            Scores, (B, K).
        """
        scores: Tensor = passage_scores(
            question_vectors,
            passage_vectors.to(question_vectors),
            self.config.doc_score_scale,
            *(None if terms is None else terms.to(question_vectors) for terms in (weights, offsets)),
        )
        return scores if doc_ids is None else scores.masked_fill(doc_ids < 0, float("-inf"))

    def retrieve(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        *,
        n_docs: int | None = None,
        question_strings: Sequence[str] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> RetrievedContexts:
        """Encode B questions, retrieve K passages for each and score them.

        Gradients reach the question encoder (and the context encoder, if there is one) through the scores.

        Args:
            input_ids: Question tokens, (B, S).
            attention_mask: Their mask, (B, S).
            n_docs: K; ``config.n_docs`` by default.
            question_strings: The questions as the user wrote them; by default they are decoded from their tokens,
                which may have lost upper case.
            output_attentions: Also return the question encoder's attentions.
            output_hidden_states: Also return the question encoder's hidden states.

        Raises:
            MissingContextError: There is no retriever, or no question.
        """
        if self.retriever is None or input_ids is None:
            raise parts.missing_contexts(context_input_ids=None, context_attention_mask=None, doc_scores=None)
        n_docs = n_docs if n_docs is not None else self.config.n_docs
        vectors, encoder_output = self.encode_question(
            input_ids,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        retrieved = self.retriever(
            input_ids,
            vectors.detach().to(device="cpu", dtype=torch.float32).numpy(),
            prefix=self.config.prefix or getattr(self.generator.config, "prefix", None),
            n_docs=n_docs,
            return_tensors="pt",
            # Left out if there are none: retrievers of other libraries do not have this argument.
            **({} if question_strings is None else {"question_strings": question_strings}),
        )
        passage_vectors = self._passage_vectors(retrieved, n_docs, vectors)
        doc_ids = retrieved["doc_ids"].to(input_ids.device)
        scores = self.score_passages(
            vectors,
            passage_vectors,
            doc_ids,
            weights=retrieved.get("doc_score_weights"),
            offsets=retrieved.get("doc_score_offsets"),
        )
        parts.check_scores(scores)
        return RetrievedContexts(
            context_input_ids=retrieved["context_input_ids"].to(input_ids),
            context_attention_mask=retrieved["context_attention_mask"].to(input_ids),
            doc_scores=scores,
            retrieved_doc_embeds=passage_vectors,
            retrieved_doc_ids=doc_ids,
            question_encoder_last_hidden_state=vectors,
            question_enc_hidden_states=encoder_output.hidden_states,
            question_enc_attentions=encoder_output.attentions or None,  # sdpa returns none
        )

    def _passage_vectors(self, retrieved: Any, n_docs: int, question_vectors: Tensor) -> Tensor:
        """Vectors of the retrieved passages, (B, K, D): the index's, or the context encoder's with gradient."""
        if self.ctx_encoder is None or not self.context_encoder_training:
            return retrieved["retrieved_doc_embeds"].to(question_vectors)
        if "tokenized_doc_ids" not in retrieved:
            raise MissingContextError(
                "The retriever returns no tokenised passages: call its set_ctx_encoder_tokenizer(...) before "
                "training with a context encoder."
            )
        input_ids, mask = (
            retrieved[name].to(question_vectors.device)
            for name in ("tokenized_doc_ids", "tokenized_doc_attention_mask")
        )
        with fast_linear(self.ctx_encoder):
            output = self.ctx_encoder(input_ids, attention_mask=mask, return_dict=True)
        vectors = self._pooled(output, mask)
        return vectors.view(-1, n_docs, vectors.shape[-1])  # (B, K, D)

    def _checked_contexts(
        self, input_ids: Tensor, attention_mask: Tensor, doc_scores: Tensor, n_docs: int | None
    ) -> RetrievedContexts:
        parts.check_contexts(input_ids, attention_mask, doc_scores, n_docs)
        parts.check_scores(doc_scores)
        return RetrievedContexts(input_ids, attention_mask, doc_scores)

    def encode_contexts(
        self,
        contexts: RetrievedContexts,
        *,
        reuse: bool = False,
        options: DecodeOptions | None = None,
        passages: PassageReuse | None = None,
    ) -> EncodedContexts:
        """Encode B*K contexts with the generator, trimmed to the longest; see `GeneratorWrapper.encode`."""
        input_ids, mask = trim_right(contexts.context_input_ids, contexts.context_attention_mask)
        return self.wrapped_generator.encode(
            input_ids, mask, reuse=reuse, options=options or DecodeOptions(), passages=passages
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: EncodedContexts | tuple[Tensor, ...] | dict[str, Tensor] | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        doc_scores: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_retrieved: bool | None = None,
        n_docs: int | None = None,
        question_strings: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> RetrievAugLMOutput:
        """Score decoder tokens under every passage.

        Args:
            input_ids: Question tokens, (B, S); needs a retriever.
            attention_mask: Their mask, (B, S).
            encoder_outputs: Contexts that the generator has encoded, with ``doc_scores``: `EncodedContexts`, or the
                encoder's states (B*K, S, H) of a seq2seq generator, as a tuple or an output of transformers.
            decoder_input_ids: Decoder input, (B, T), shared by the K passages; or (B*R, T), R per question.
            decoder_attention_mask: Its mask, same shape.
            past_key_values: Cache of earlier decoder tokens from an earlier call; pass the same contexts again.
            doc_scores: Scaled passage scores, (B, K), with ``context_input_ids``; -inf for no passage.
            context_input_ids: Contexts, (B*K, S).
            context_attention_mask: Their mask, (B*K, S).
            use_cache: Return a cache.
            output_attentions: Return attentions of all parts.
            output_hidden_states: Return hidden states of all parts.
            output_retrieved: Return passages' ids, vectors and contexts.
            n_docs: K; by default that of ``doc_scores``, or the configuration's if there are no scores.
            question_strings: The questions of ``input_ids`` as the user wrote them; see `retrieve`.
            **kwargs: ``return_dict``; others are ignored with a warning.

        Returns:
            `RetrievAugLMOutput` with logits (B*K*R, T, V).

        Raises:
            MissingContextError: There are neither contexts nor a retriever and a question.
            ShapeError: Arguments disagree about B or K.
        """
        return_dict = kwargs.pop("return_dict", True)
        past_key_values = pop_cache(past_key_values, kwargs)
        parts.warn_unknown(kwargs)
        options = DecodeOptions(
            use_cache=parts.resolve_flag(use_cache, self.config.use_cache),
            output_attentions=parts.resolve_flag(output_attentions, self.config.output_attentions),
            output_hidden_states=parts.resolve_flag(output_hidden_states, self.config.output_hidden_states),
        )
        question_and_passages: dict[str, Any] = {}
        rows: Tensor | None = None
        width: int | None = None  # S of the contexts, which are trimmed before they are encoded
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
                output_attentions=options.output_attentions,
                output_hidden_states=options.output_hidden_states,
            )
            doc_scores = contexts.doc_scores
            if decoder_input_ids is None:
                rows = self._decoder_input_from(contexts.context_input_ids)
            encoded = self.encode_contexts(contexts, options=options)
            question_and_passages = contexts.for_forward(
                retrieved=parts.resolve_flag(output_retrieved, self.config.output_retrieved)
            )
            width = contexts.context_input_ids.shape[1]
        repeats = 1
        if rows is None:
            if decoder_input_ids is None:
                raise MissingContextError(
                    "decoder_input_ids not given: pass them, or labels to a model for generation."
                )
            repeats = doc_scores.shape[0] * doc_scores.shape[1] // len(encoded)
            rows = _decoder_rows(decoder_input_ids, doc_scores[::repeats], "decoder_input_ids")
        if decoder_attention_mask is not None:
            decoder_attention_mask = _decoder_rows(
                decoder_attention_mask, doc_scores[::repeats], "decoder_attention_mask"
            )
        if options.use_cache and past_key_values is None:
            past_key_values = self.wrapped_generator.new_cache(*doc_scores[::repeats].shape)
        decoded = self.wrapped_generator.decode(
            encoded,
            rows,
            decoder_attention_mask=decoder_attention_mask,
            past_key_values=past_key_values,
            options=options,
        )
        if repeats > 1:
            decoded["logits"] = _passages_last(decoded["logits"], doc_scores, repeats)
        output = RetrievAugLMOutput(
            doc_scores=doc_scores,
            **question_and_passages,
            **_as_wide_as_contexts(
                width,
                generator_enc_last_hidden_state=encoded.last_hidden_state,
                generator_enc_hidden_states=encoded.hidden_states,
                generator_enc_attentions=encoded.attentions,
                generator_cross_attentions=decoded.pop("generator_cross_attentions", None),
            ),
            **decoded,
        )
        return output if return_dict is not False else output.to_tuple()

    def _decoder_input_from(self, context_input_ids: Tensor) -> Tensor | None:
        """BART's default decoder input, (B*K, S): the contexts, shifted right after its start token."""
        if self.generator.config.model_type != "bart":
            return None
        shifted = context_input_ids.roll(1, dims=1)
        shifted[:, 0] = self.special_tokens.decoder_start
        return shifted

    def _encoded(
        self, encoder_outputs: Any, mask: Tensor | None, doc_scores: Tensor, n_docs: int | None
    ) -> EncodedContexts:
        """Contexts that an earlier call encoded, as `EncodedContexts`."""
        if isinstance(encoder_outputs, EncodedContexts):
            # Under beam search, transformers repeats the scores of a question for its beams: (B*R, K).
            repeats = max(doc_scores.shape[0] * doc_scores.shape[1] // len(encoder_outputs), 1)
            parts.check_n_docs(n_docs, doc_scores[::repeats], len(encoder_outputs))
            return encoder_outputs
        states = encoder_outputs[0]  # (B*K, S, H)
        parts.check_n_docs(n_docs, doc_scores, len(states))
        if mask is None:
            mask = states.new_ones(states.shape[:2], dtype=torch.long)
        mask = mask[:, : states.shape[1]]  # the states may have been trimmed
        parts.check_mask(mask, *states.shape[:2])
        return EncodedContexts(attention_mask=mask, last_hidden_state=states)


def _decoder_rows(tokens: Tensor, doc_scores: Tensor, name: str) -> Tensor:
    """Decoder input for every passage: (B*R, T) to (B*K*R, T), rows of one passage next to each other."""
    parts.check_decoder_rows(tokens, doc_scores, name)
    n_questions, n_docs = doc_scores.shape
    rows = tokens.view(n_questions, 1, -1, tokens.shape[-1])  # (B, 1, R, T)
    return rows.expand(-1, n_docs, -1, -1).reshape(-1, tokens.shape[-1])  # (B*K*R, T)


def _passages_last(logits: Tensor, doc_scores: Tensor, repeats: int) -> Tensor:
    """Rows in transformers' order, in which the passages of a beam are neighbours: (B*K*R, T, V) to (B*R*K, T, V)."""
    questions, n_docs = doc_scores.shape[0] // repeats, doc_scores.shape[1]
    rows = logits.view(questions, n_docs, repeats, *logits.shape[1:])  # (B, K, R, T, V)
    return rows.transpose(1, 2).reshape(logits.shape)


def _as_wide_as_contexts(width: int | None, **states: Any) -> dict[str, Any]:
    """Pad the generator's states of trimmed contexts to the S of the contexts that are returned with them.

    Args:
        width: S; ``None`` leaves everything as it is.
        **states: Encoder states, (B*K, S, H), and attentions, whose last dimension is S; the encoder's self-attention
            has another S before it.
    """

    def padded(name: str, state: Any) -> Any:
        if width is None or state is None:
            return state
        if isinstance(state, tuple):
            return tuple(padded(name, layer) for layer in state)
        sizes = [0, 0] if "hidden_state" in name else []
        sizes += [0, width - state.shape[-2 if sizes else -1]]
        if name == "generator_enc_attentions":
            sizes += sizes
        return pad(state, sizes) if sizes[-1] > 0 else state

    return {name: padded(name, state) for name, state in states.items()}

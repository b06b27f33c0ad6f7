"""RagModel: question encoder, retriever and generator as one network, not yet marginalised.

Notation used for tensor shapes
    B questions, K passages per question, R rows (beams, samples, hypotheses) per question and passage,
    S context tokens, T target tokens, V vocabulary, D vector size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from ragweave.configuration import RagConfig
from ragweave.encoders.linear import fast_linear
from ragweave.encoders.pooling import pool
from ragweave.errors import MissingContextError
from ragweave.modeling.arguments import (
    check_contexts,
    check_decoder_rows,
    check_mask,
    check_scores,
    chosen,
    missing_contexts,
    refuse_unknown,
    resolve_n_docs,
)
from ragweave.modeling.base import RagPreTrainedModel, build_generator, build_question_encoder
from ragweave.modeling.contexts import EncodedContexts, trim_right
from ragweave.modeling.generators import DecodeOptions, GeneratorAdapter, adapter_for, check_generator
from ragweave.modeling.parts import RagParts, Retriever, resolve_config
from ragweave.outputs import RetrievAugLMOutput, RetrievedContexts


class RagModel(RagParts, RagPreTrainedModel):
    """Question encoder, retriever and generator as one network (Lewis et al. 2020, section 2).

    It returns the generator's logits under every passage; `RagSequenceForGeneration` and
    `RagTokenForGeneration` marginalise them.

    Args:
        config: Configuration; made from the two models' where left out.
        question_encoder: Any encoder of transformers whose vectors match the index.
        generator: Any seq2seq or causal model of transformers with a language-model head.
        retriever: Retriever that the model calls; without one, every call gives contexts.
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
        config = resolve_config(config, question_encoder, generator, **kwargs)
        super().__init__(config)
        self.question_encoder = (
            question_encoder if question_encoder is not None else build_question_encoder(config)
        )
        self.generator = generator if generator is not None else build_generator(config)
        check_generator(self.generator)
        self.retriever = retriever
        self.ctx_encoder: PreTrainedModel | None = None
        self.post_init()

    def set_context_encoder_for_training(self, ctx_encoder: PreTrainedModel) -> None:
        """Score passages with vectors computed anew by ``ctx_encoder``, so that it is trained too.

        The retriever has to return tokenised passages: call its ``set_ctx_encoder_tokenizer`` first.
        """
        self.ctx_encoder = ctx_encoder

    @property
    def context_encoder_training(self) -> bool:
        """Whether passages are scored with vectors computed anew."""
        return self.ctx_encoder is not None

    def get_input_embeddings(self) -> nn.Module:
        """The generator's input embeddings."""
        return self.generator.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the generator's input embeddings."""
        self.generator.set_input_embeddings(value)

    @property
    def adapter(self) -> GeneratorAdapter:
        """How this model talks to its generator."""
        return adapter_for(self.generator)

    @property
    def pad_token_id(self) -> int | None:
        """The generator's padding token."""
        return self.special_tokens.pad

    @property
    def eos_token_id(self) -> int | None:
        """The generator's end-of-sequence token (the first, where there are several)."""
        return self.special_tokens.eos

    @property
    def bos_token_id(self) -> int | None:
        """The generator's beginning-of-sequence token."""
        return self.special_tokens.bos

    @property
    def filler_token_id(self) -> int:
        """A token to fill positions with that nothing looks at."""
        return self.special_tokens.filler

    @property
    def decoder_start_token_id(self) -> int:
        """The token that a decoder begins with; for causal generators, a placeholder."""
        return self.special_tokens.decoder_start

    def encode_question(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **flags: bool | None
    ) -> tuple[Tensor, Any]:
        """Encode B questions.

        Args:
            input_ids: Question tokens, (B, S).
            attention_mask: Their mask, (B, S).
            **flags: ``output_attentions``, ``output_hidden_states``.

        Returns:
            Question vectors, (B, D), pooled as the configuration says, and the encoder's whole output.
        """
        with fast_linear(self.question_encoder):
            output = self.question_encoder(
                input_ids, attention_mask=attention_mask, return_dict=True, **flags
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        return pool(
            output, attention_mask, self.question_pooling, self.config.question_encoder_normalize
        ), output

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

        Written as a sum, since autocast would turn a matrix product into half precision.

        Args:
            question_vectors: (B, D).
            passage_vectors: (B, K, D).
            doc_ids: (B, K); a passage whose id is below 0 is not there and gets -inf.
            weights: How much the inner products count, (B, K); 1 where left out. See `Hits`.
            offsets: What is added to them, (B, K); 0 where left out.

        Returns:
            Scores, (B, K).
        """
        scores = (question_vectors.unsqueeze(1) * passage_vectors.to(question_vectors)).sum(-1)
        scores = self.config.doc_score_scale * scores
        if weights is not None:
            scores = weights.to(scores) * scores
        if offsets is not None:
            scores = scores + offsets.to(scores)
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

        Gradient reaches the question encoder (and the context encoder, where one is set) through the scores.

        Args:
            input_ids: Question tokens, (B, S).
            attention_mask: Their mask, (B, S).
            n_docs: K; ``config.n_docs`` where left out.
            question_strings: The questions as the user wrote them; decoded from their tokens where left out, which
                may have lost their capitals.
            output_attentions: Return the question encoder's attentions too.
            output_hidden_states: Return the question encoder's hidden states too.

        Raises:
            MissingContextError: There is no retriever, or no question.
        """
        if self.retriever is None or input_ids is None:
            raise missing_contexts(context_input_ids=None, context_attention_mask=None, doc_scores=None)
        n_docs = n_docs if n_docs is not None else self.config.n_docs
        vectors, encoder_output = self.encode_question(
            input_ids,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        found = self.retriever(
            input_ids,
            vectors.detach().to(device="cpu", dtype=torch.float32).numpy(),
            prefix=self.config.prefix or getattr(self.generator.config, "prefix", None),
            n_docs=n_docs,
            return_tensors="pt",
            # Not handed on where there are none: a retriever of another make need not know the argument.
            **({} if question_strings is None else {"question_strings": question_strings}),
        )
        passage_vectors = self._passage_vectors(found, n_docs, vectors)
        doc_ids = found["doc_ids"].to(input_ids.device)
        scores = self.score_passages(
            vectors,
            passage_vectors,
            doc_ids,
            weights=found.get("doc_score_weights"),
            offsets=found.get("doc_score_offsets"),
        )
        check_scores(scores)
        return RetrievedContexts(
            context_input_ids=found["context_input_ids"].to(input_ids),
            context_attention_mask=found["context_attention_mask"].to(input_ids),
            doc_scores=scores,
            retrieved_doc_embeds=passage_vectors,
            retrieved_doc_ids=doc_ids,
            question_encoder_last_hidden_state=vectors,
            question_enc_hidden_states=encoder_output.hidden_states,
            question_enc_attentions=encoder_output.attentions,
        )

    def _checked_contexts(
        self, input_ids: Tensor, attention_mask: Tensor, doc_scores: Tensor, n_docs: int | None
    ) -> RetrievedContexts:
        check_contexts(input_ids, attention_mask, doc_scores, n_docs, self.config.n_docs)
        check_scores(doc_scores)
        return RetrievedContexts(input_ids, attention_mask, doc_scores)

    def read(
        self, contexts: RetrievedContexts, *, reuse: bool = False, options: DecodeOptions | None = None
    ) -> EncodedContexts:
        """Let the generator read B*K contexts, trimmed to the longest; see `GeneratorAdapter.read`."""
        input_ids, mask = trim_right(contexts.context_input_ids, contexts.context_attention_mask)
        return self.adapter.read(input_ids, mask, reuse=reuse, options=options or DecodeOptions())

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
            encoder_outputs: Contexts that the generator has read already, with ``doc_scores``: the encoder's
                states (B*K, S, H) of a seq2seq generator, as a tuple or an output of transformers.
            decoder_input_ids: Decoder input, (B, T), shared by the K passages; or (B*R, T), R per question.
            decoder_attention_mask: Its mask, same shape.
            past_key_values: Cache of earlier decoder tokens, as an earlier call returned it; contexts are given
                as before.
            doc_scores: Scaled passage scores, (B, K), with ``context_input_ids``; -inf for no passage.
            context_input_ids: Contexts, (B*K, S).
            context_attention_mask: Their mask, (B*K, S).
            use_cache: Return a cache.
            output_attentions: Return attentions of all parts.
            output_hidden_states: Return hidden states of all parts.
            output_retrieved: Return passages' ids, vectors and contexts.
            n_docs: K; taken from ``doc_scores`` where given, from the configuration otherwise.
            question_strings: The questions of ``input_ids`` as the user wrote them; see `retrieve`.
            **kwargs: ``return_dict``; anything else is not known here.

        Returns:
            `RetrievAugLMOutput` with logits (B*K*R, T, V).

        Raises:
            MissingContextError: Neither contexts nor a retriever and a question are there.
            ShapeError: Arguments disagree about B or K.
        """
        return_dict = kwargs.pop("return_dict", True)
        refuse_unknown(kwargs)
        options = DecodeOptions(
            use_cache=chosen(use_cache, self.config.use_cache),
            output_attentions=chosen(output_attentions, self.config.output_attentions),
            output_hidden_states=chosen(output_hidden_states, self.config.output_hidden_states),
        )
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
                output_attentions=options.output_attentions,
                output_hidden_states=options.output_hidden_states,
            )
            doc_scores = contexts.doc_scores
            encoded = self.read(contexts, options=options)
        if decoder_attention_mask is not None:
            decoder_attention_mask = _decoder_rows(
                decoder_attention_mask, doc_scores, "decoder_attention_mask"
            )
        if options.use_cache and past_key_values is None:
            past_key_values = self.adapter.new_cache(
                n_questions=doc_scores.shape[0], n_docs=doc_scores.shape[1]
            )
        decoded = self.adapter.decode(
            encoded,
            _decoder_rows(decoder_input_ids, doc_scores, "decoder_input_ids"),
            decoder_attention_mask=decoder_attention_mask,
            past_key_values=past_key_values,
            options=options,
        )
        retrieved = chosen(output_retrieved, self.config.output_retrieved)
        output = RetrievAugLMOutput(
            logits=decoded.logits,
            doc_scores=doc_scores,
            past_key_values=decoded.past_key_values,
            **({} if contexts is None else contexts.for_forward(retrieved=retrieved)),
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
            resolve_n_docs(n_docs, self.config.n_docs, doc_scores, len(encoder_outputs))
            return encoder_outputs
        states = encoder_outputs[0]
        resolve_n_docs(n_docs, self.config.n_docs, doc_scores, states.shape[0])
        if mask is None:
            mask = states.new_ones(states.shape[:2], dtype=torch.long)
        mask = mask[:, : states.shape[1]]  # the states may have been trimmed
        check_mask(mask, *states.shape[:2])
        return EncodedContexts(attention_mask=mask, last_hidden_state=states)

    def _passage_vectors(self, found: Any, n_docs: int, question_vectors: Tensor) -> Tensor:
        """Vectors of the retrieved passages, (B, K, D): the index's, or the context encoder's with gradient."""
        if self.ctx_encoder is None:
            return found["retrieved_doc_embeds"].to(question_vectors)
        if "tokenized_doc_ids" not in found:
            raise MissingContextError(
                "The retriever returns no tokenised passages: call its set_ctx_encoder_tokenizer(...) before "
                "training with a context encoder."
            )
        mask = found["tokenized_doc_attention_mask"].to(question_vectors.device)
        with fast_linear(self.ctx_encoder):
            output = self.ctx_encoder(
                found["tokenized_doc_ids"].to(question_vectors.device), attention_mask=mask, return_dict=True
            )
        vectors = pool(output, mask, self.question_pooling, self.config.question_encoder_normalize)
        return vectors.view(-1, n_docs, vectors.shape[-1])


def _decoder_rows(tokens: Tensor, doc_scores: Tensor, name: str) -> Tensor:
    """Decoder input for every passage: (B*R, T) to (B*K*R, T), rows of one passage next to each other."""
    check_decoder_rows(tokens, doc_scores, name)
    n_questions, n_docs = doc_scores.shape
    rows = tokens.view(n_questions, 1, -1, tokens.shape[-1])  # (B, 1, R, T)
    return rows.expand(-1, n_docs, -1, -1).reshape(-1, tokens.shape[-1])

"""One interface to all generators: encode contexts once, then decode answers under them.

`Seq2SeqGenerator` and `CausalGenerator` hide the only difference that matters here: where the context goes. The
other modules see decoder input of T tokens, the first of them a start token, and logits at T positions.

Notation used for tensor shapes
    B questions, K passages per question, R rows per context (beams, samples, hypotheses), S context tokens, T target
    tokens, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import Cache, DynamicCache, DynamicLayer, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ragweave.encoders.linear import fast_linear
from ragweave.errors import ConfigurationError, MissingContextError
from ragweave.modeling.attention import (
    ROOM,
    GrowingLayer,
    MixtureCache,
    PromptLayer,
    is_plain,
    repeated_cache,
    share_keys,
)
from ragweave.modeling.contexts import (
    EncodedContexts,
    align_right,
    context_ends,
    length_groups,
    takes_position_ids,
    token_positions,
    trim_right,
)
from ragweave.modeling.passage_cache import PassageReuse, passage_states, read_apart
from ragweave.outputs import CACHE


@dataclass(frozen=True)
class DecodeOptions:
    """The outputs that a generator returns.

    Attributes:
        use_cache: The cache.
        output_attentions: Attentions.
        output_hidden_states: Hidden states.
        logits_at: Restricts the logits to these positions, bool, (B*K*R, T), which saves much of the head's work; the
            M positions then make up logits of (1, M, V), in the order of rows.
    """

    use_cache: bool = False
    output_attentions: bool = False
    output_hidden_states: bool = False
    logits_at: Tensor | None = None


class GeneratorWrapper(ABC):
    """A generator as RAG models use it.

    Args:
        generator: A model of transformers with a language-model head.
    """

    def __init__(self, generator: PreTrainedModel) -> None:
        self.generator = generator

    @abstractmethod
    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        reuse: bool,
        options: DecodeOptions,
        passages: PassageReuse | None = None,
    ) -> EncodedContexts:
        """Encode B*K contexts.

        Args:
            input_ids: Contexts, (B*K, S).
            attention_mask: Their mask, (B*K, S).
            reuse: Whether they will be decoded from more than once, which makes a prefill worthwhile.
            options: What to return.
            passages: Where passages end, for a causal generator, which reads each once for all its contexts; seq2seq
                generators read passage and question together and ignore it.
        """

    @abstractmethod
    def decode(
        self,
        contexts: EncodedContexts,
        decoder_input_ids: Tensor,
        *,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        options: DecodeOptions,
    ) -> dict[str, Any]:
        """Decode R rows under each context.

        Args:
            contexts: B*K encoded contexts.
            decoder_input_ids: Decoder input, (B*K*R, T), rows of a context next to each other.
            decoder_attention_mask: Mask over the decoder input, (B*K*R, T).
            past_key_values: Cache of earlier decoder tokens.
            options: What to return.

        Returns:
            The fields of `RetrievAugLMOutput` from the decoder; logits are (B*K*R, T, V).
        """

    def new_cache(self, n_questions: int, n_docs: int) -> MixtureCache:
        """An empty cache for step-by-step decoding of a mixture; the contexts enter it at the first step."""
        return MixtureCache(self._new_cache(), n_questions=n_questions, n_docs=n_docs)

    def _new_cache(self) -> DynamicCache:
        return DynamicCache()

    @property
    def reads_drafts(self) -> bool:
        """Whether rejected draft tokens can stay in a cache: a mask hides them, and positions do not count them."""
        return False


def wrap_generator(generator: PreTrainedModel) -> GeneratorWrapper:
    """Wrap a generator: seq2seq if it has an encoder, causal if it has none."""
    return Seq2SeqGenerator(generator) if generator.config.is_encoder_decoder else CausalGenerator(generator)


@contextmanager
def _head_input(generator: PreTrainedModel, logits_at: Tensor | None) -> Iterator[None]:
    """Restrict the states that reach a generator's head to some positions, bool, (B*K*R, T), and copy them.

    Causal generators slice the last T positions, which is not contiguous. PyTorch would multiply it row by row, and
    copy the weights for each: a quarter of a training step of a small model (``benchmarks/training_step.py``).
    """

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = inputs[0].contiguous() if logits_at is None else inputs[0][logits_at][None]  # (1, M, H)
        return (states, *inputs[1:])

    handle = generator.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


class Seq2SeqGenerator(GeneratorWrapper):
    """A generator with an encoder (BART, T5, Pegasus, mBART, ...): the encoder reads the context."""

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        reuse: bool,
        options: DecodeOptions,
        passages: PassageReuse | None = None,
    ) -> EncodedContexts:
        """Encode B*K contexts, those of similar length together, which saves padding; ``reuse`` has no effect."""
        # In training, each group would have a gradient of the size of the embeddings, which costs more than padding.
        embeddings = self.generator.get_input_embeddings().weight
        trained = torch.is_grad_enabled() and embeddings.requires_grad
        all_layers = options.output_attentions or options.output_hidden_states
        groups = length_groups(context_ends(attention_mask), whole=trained or all_layers)
        encoder, columns = self.generator.get_encoder(), input_ids.shape[1]
        outputs = []
        with fast_linear(self.generator):
            for rows in groups:
                ids, mask = trim_right(input_ids[rows], attention_mask[rows])
                output = encoder(
                    input_ids=ids,
                    attention_mask=mask,
                    output_attentions=options.output_attentions,
                    output_hidden_states=options.output_hidden_states,
                    return_dict=True,
                )
                outputs.append(output)
        parts = [output.last_hidden_state for output in outputs]
        states = torch.cat([pad(part, (0, 0, 0, columns - part.shape[1])) for part in parts])  # (B*K, S, H)
        return EncodedContexts(
            attention_mask=attention_mask,
            last_hidden_state=states[torch.cat(groups).argsort()] if len(groups) > 1 else states,
            hidden_states=outputs[0].hidden_states,  # there is one group if they are requested
            attentions=outputs[0].attentions,
        )

    def decode(
        self,
        contexts: EncodedContexts,
        decoder_input_ids: Tensor,
        *,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        options: DecodeOptions,
    ) -> dict[str, Any]:
        """Run the decoder; the R rows of a context share its keys if the attention supports it."""
        times = decoder_input_ids.shape[0] // len(contexts)  # R
        shared = times > 1 and share_keys(self.generator)
        states, mask = contexts.repeated_states(1 if shared else times)
        with _head_input(self.generator, options.logits_at), fast_linear(self.generator):
            output = self.generator(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=mask,
                decoder_input_ids=decoder_input_ids,
                decoder_attention_mask=decoder_attention_mask,
                use_cache=options.use_cache,
                output_attentions=options.output_attentions,
                output_hidden_states=options.output_hidden_states,
                return_dict=True,
                **{CACHE: past_key_values},
            )
        return {
            "logits": output.logits,
            CACHE: output.get(CACHE),
            "generator_dec_hidden_states": output.decoder_hidden_states,
            "generator_dec_attentions": output.decoder_attentions,
            "generator_cross_attentions": output.cross_attentions,
        }


class CausalGenerator(GeneratorWrapper):
    """A generator without an encoder (Llama, Qwen, GPT-2, ...): the context is the prompt.

    The prompt's last token acts as the decoder's start token, because the answer's first token follows it. The first
    decoder token of a caller is a placeholder, which each row's last prompt token replaces, and the prefill ends one
    token early. Contexts may be padded on either side. They are moved to the right end, so that no padding separates
    prompt and answer (a sliding window would count it); padding is masked, and positions count real tokens.
    """

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        reuse: bool,
        options: DecodeOptions,
        passages: PassageReuse | None = None,
    ) -> EncodedContexts:
        """Align B*K prompts on the right; with ``reuse``, run the model over them once.

        With ``passages``, the model runs over each passage once and then over the questions alone.
        """
        if reuse and passages is not None and not torch.is_grad_enabled() and self.reads_apart:
            if passages.cache is not None:
                passages.cache.keep_for(self.generator.parameters())
            return read_apart(self._fill, self._read, self._new_cache, input_ids, attention_mask, passages)
        input_ids, mask = align_right(input_ids, attention_mask)
        contexts = EncodedContexts(attention_mask=mask, input_ids=input_ids)
        if reuse:
            contexts.prompt_cache, contexts.first_logits = self._prefill(input_ids, mask)
        return contexts

    @property
    def reads_apart(self) -> bool:
        """Whether keys and values of a passage serve all its contexts: no layer has a sliding window."""
        return is_plain(self._new_cache())

    @torch.no_grad()
    def passage_states(self, passages: Sequence[Tensor]) -> list[Tensor | None]:
        """Keys and values of passages, given by their tokens, (L, 2, h, P, d) each; see `passage_cache`."""
        return passage_states(self._fill, self._new_cache, passages)

    @property
    def reads_drafts(self) -> bool:
        """Whether every layer attends under the mask, and the caller counts positions."""
        return self.reads_apart and takes_position_ids(self.generator.__class__.forward)

    def _new_cache(self) -> DynamicCache:
        cache = DynamicCache(config=self.generator.config)
        cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
        return cache

    def _prefill(self, input_ids: Tensor, mask: Tensor) -> tuple[Cache, Tensor | None]:
        """Run the model over prompts, (B*K, S), those of similar length together, which saves padding.

        With sliding windows, over all but the last token, since their caches cannot drop it again.
        """
        cache = self._new_cache()
        if not is_plain(cache):
            return self._fill(cache, input_ids[:, :-1], mask[:, :-1]), None
        groups = length_groups(mask.ne(0).sum(1), whole=torch.is_grad_enabled())
        if len(groups) == 1:
            return cache, self._read(cache, input_ids, mask)
        logits = []
        for rows in groups:
            group_cache = self._new_cache()
            logits.append(self._read(group_cache, *align_right(input_ids[rows], mask[rows])))
            for layer, group_layer in zip(cache.layers, group_cache.layers, strict=True):
                parts = group_layer.keys, group_layer.values
                if not layer.is_initialized:
                    shape = (len(mask), parts[0].shape[1], mask.shape[1] + ROOM)
                    keys, values = (part.new_zeros(*shape, part.shape[3]) for part in parts)
                    layer.occupy(keys, values, mask.shape[1])  # (B*K, heads, S, d)
                for whole, part in zip((layer.keys, layer.values), parts, strict=True):
                    whole[rows, :, -part.shape[2] :] = part
        return cache, torch.cat(logits)[torch.cat(groups).argsort()]

    def _fill(self, cache: Cache, input_ids: Tensor, mask: Tensor) -> Cache:
        """Run the model without its head over the last columns of prompts, which fills a cache."""
        self._run(self.generator.base_model, cache, input_ids, mask)
        return cache

    def _read(self, cache: Cache, input_ids: Tensor, mask: Tensor) -> Tensor:
        """The same with its head: the logits after the prompts, (N, 1, V)."""
        with _head_input(self.generator, None):
            logits: Tensor = self._run(self.generator, cache, input_ids, mask, logits_to_keep=1).logits
        return logits

    def _run(self, model: nn.Module, cache: Cache, input_ids: Tensor, mask: Tensor, **options: Any) -> Any:
        share_keys(self.generator)
        positions = token_positions(mask)[:, -input_ids.shape[1] :]
        options |= {CACHE: cache, "use_cache": True, "return_dict": True, **self._position_ids(positions)}
        with fast_linear(self.generator):
            return model(input_ids=input_ids, attention_mask=mask, **options)

    def decode(
        self,
        contexts: EncodedContexts,
        decoder_input_ids: Tensor,
        *,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        options: DecodeOptions,
    ) -> dict[str, Any]:
        """Continue R rows per prompt; the prefill computed the logits after the first token, the prompt's last."""
        if contexts.input_ids is None:
            raise MissingContextError(
                "A causal generator needs context_input_ids; encoder_outputs cannot replace them."
            )
        times = decoder_input_ids.shape[0] // len(contexts)  # R
        mask = contexts.attention_mask[:, :-1].repeat_interleave(times, dim=0)  # (B*K*R, S-1)
        past, first_logits = self._continued_cache(contexts, past_key_values, times, options)
        output: Any = {}
        if first_logits is not None:
            first_logits = first_logits.repeat_interleave(times, dim=0)
            decoder_input_ids = decoder_input_ids[:, 1:]
        if decoder_input_ids.shape[1]:
            prompts = contexts.input_ids.repeat_interleave(times, dim=0)
            output = self._continue(prompts, mask, past, decoder_input_ids, decoder_attention_mask, options)
        return {
            "logits": _joined_logits(first_logits, output.get("logits"), options.logits_at),
            CACHE: past_key_values if options.use_cache else None,
            "generator_dec_hidden_states": output.get("hidden_states"),
            "generator_dec_attentions": output.get("attentions"),
        }

    def _continue(
        self,
        prompts: Tensor,
        mask: Tensor,
        past: Cache | None,
        decoder_input_ids: Tensor,
        decoder_attention_mask: Tensor | None,
        options: DecodeOptions,
    ) -> Any:
        """Run the model after a cache, or over prompts, (B*K*R, S), and answers; the mask is (B*K*R, S-1)."""
        # Number of the answer's tokens in the cache.
        done = 0 if past is None else max(past.get_seq_length() - mask.shape[1], 0)
        if done == 0:
            decoder_input_ids = torch.cat([prompts[:, -1:], decoder_input_ids[:, 1:]], dim=1)
        length = decoder_input_ids.shape[1]
        if decoder_attention_mask is None or decoder_attention_mask.shape[1] != done + length:
            decoder_attention_mask = mask.new_ones(mask.shape[0], done + length)
        input_ids = decoder_input_ids
        position_ids = mask.sum(-1, keepdim=True) + token_positions(decoder_attention_mask)[:, done:]
        if past is None:
            input_ids = torch.cat([prompts[:, :-1], decoder_input_ids], dim=1)  # (B*K*R, S-1+T)
            position_ids = torch.cat([token_positions(mask), position_ids], dim=1)
        logits_at = None if options.logits_at is None else options.logits_at[:, -length:]
        with _head_input(self.generator, logits_at), fast_linear(self.generator):
            return self.generator(
                input_ids=input_ids,
                attention_mask=torch.cat([mask, decoder_attention_mask.to(mask)], dim=1),
                use_cache=past is not None,
                logits_to_keep=length,
                output_attentions=options.output_attentions,
                output_hidden_states=options.output_hidden_states,
                return_dict=True,
                **{CACHE: past},
                **self._position_ids(position_ids),
            )

    def _continued_cache(
        self, contexts: EncodedContexts, past_key_values: Cache | None, times: int, options: DecodeOptions
    ) -> tuple[Cache | None, Tensor | None]:
        """The cache to decode with, and the logits after the first token if it is in there.

        The cache is the caller's, a new one that continues the prompts, or none.
        """
        if not isinstance(past_key_values, MixtureCache | None):
            raise ConfigurationError(
                f"past_key_values is a {type(past_key_values).__name__}; a causal generator continues from the cache "
                "that a call with use_cache=True returned."
            )
        mixture = past_key_values
        if mixture is not None and mixture.self_attention_cache.get_seq_length() > 0:
            return mixture.self_attention_cache, None
        if mixture is not None and contexts.prompt_cache is None and contexts.input_ids is not None:
            read = self.encode(contexts.input_ids, contexts.attention_mask, reuse=True, options=options)
            contexts.prompt_cache, contexts.first_logits = read.prompt_cache, read.first_logits
        prompts, first_logits = contexts.prompt_cache, contexts.first_logits
        if prompts is None:
            return None, None
        if first_logits is not None and (options.output_attentions or options.output_hidden_states):
            prompts, first_logits = repeated_cache(prompts, 1), None  # the first token is read again
            prompts.crop(-1)
        if times > 1 and is_plain(prompts) and share_keys(self.generator):
            continued = Cache(layers=[PromptLayer(layer.keys, layer.values) for layer in prompts.layers])
        else:
            continued = repeated_cache(prompts, times)
        if mixture is not None:
            mixture.self_attention_cache = continued
        return continued, first_logits

    def _position_ids(self, position_ids: Tensor) -> dict[str, Any]:
        return {"position_ids": position_ids} if takes_position_ids(self.generator.__class__.forward) else {}


def _joined_logits(first: Tensor | None, others: Tensor | None, logits_at: Tensor | None) -> Tensor:
    """Logits of the first position, (N, 1, V), and those of the others, at some positions or at all, (N, T)."""
    if first is None or logits_at is None:
        return torch.cat([part for part in (first, others) if part is not None], dim=1)
    is_first = logits_at.nonzero()[:, 1] == 0  # (M,)
    joined = first.new_empty(len(is_first), first.shape[-1])
    joined[is_first] = first[logits_at[:, 0], 0]
    if others is not None:
        joined[~is_first] = others[0]
    return joined[None]

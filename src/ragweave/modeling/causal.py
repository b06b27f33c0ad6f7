"""Generators without an encoder (Llama, Qwen, GPT-2, ...): the context is the prompt.

The prompt's last token plays the part of the decoder's start token: what follows it is the answer's first
token. So the first decoder token that a caller passes is a placeholder, replaced here by each row's own last
prompt token, and the prompt read ahead ends one token early. Contexts may be padded on either side: they are
moved to the right end here, so that no padding stands between prompt and answer (a sliding window would count
it), padding is masked, and positions count real tokens only.
"""

from __future__ import annotations

import copy
import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from ragweave.encoders.linear import fast_linear
from ragweave.errors import ConfigurationError, MissingContextError
from ragweave.modeling.attention import share_prompts
from ragweave.modeling.caches import MixtureCache, PromptLayer
from ragweave.modeling.contexts import EncodedContexts, length_groups
from ragweave.modeling.generators import Decoded, DecodeOptions, head_input


class CausalAdapter:
    """Reads contexts as prompts; decodes answers as their continuation.

    Args:
        generator: Any causal language model of transformers.
    """

    def __init__(self, generator: PreTrainedModel) -> None:
        self.generator = generator
        generator_class: Any = type(generator)
        self._takes_positions = _takes_positions(generator_class)

    def read(
        self,
        context_input_ids: Tensor,
        context_attention_mask: Tensor,
        *,
        reuse: bool,
        options: DecodeOptions,
    ) -> EncodedContexts:
        """Keep B*K prompts; with ``reuse``, run the model over them once. See `GeneratorAdapter.read`."""
        input_ids, mask = _moved_right(context_input_ids, context_attention_mask)
        contexts = EncodedContexts(attention_mask=mask, input_ids=input_ids)
        if reuse:
            contexts.prompt_cache = self._read_ahead(input_ids[:, :-1], mask[:, :-1])
        return contexts

    def _read_ahead(self, input_ids: Tensor, mask: Tensor) -> Cache:
        """Run the model over prompts, those of like length together, so that little of the work is padding."""
        cache = DynamicCache(config=self.generator.config)
        plain = _is_plain(cache)
        groups = length_groups(mask.ne(0).sum(1), whole=not plain or torch.is_grad_enabled())
        if len(groups) == 1:
            return self._prompts(input_ids, mask, cache)
        for rows in groups:
            part = self._prompts(
                *_moved_right(input_ids[rows], mask[rows]), DynamicCache(config=self.generator.config)
            )
            for layer, own in zip(cache.layers, part.layers, strict=True):
                if not layer.is_initialized:
                    shape = (len(mask), own.keys.shape[1], mask.shape[1])
                    layer.lazy_initialization(own.keys, own.values)
                    layer.keys = own.keys.new_zeros(*shape, own.keys.shape[3])
                    layer.values = own.values.new_zeros(*shape, own.values.shape[3])
                layer.keys[rows, :, -own.keys.shape[2] :] = own.keys
                layer.values[rows, :, -own.values.shape[2] :] = own.values
        return cache

    def _prompts(self, input_ids: Tensor, mask: Tensor, cache: Cache) -> Cache:
        """Run the model over prompts once, filling a cache."""
        with fast_linear(self.generator):
            self.generator.base_model(
                input_ids=input_ids,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                return_dict=True,
                **self._positions(_positions_of(mask)),
            )
        return cache

    def decode(
        self,
        contexts: EncodedContexts,
        decoder_input_ids: Tensor,
        *,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        options: DecodeOptions,
    ) -> Decoded:
        """Continue R rows per prompt; see `GeneratorAdapter.decode`."""
        if contexts.input_ids is None:
            raise MissingContextError(
                "A causal generator needs context_input_ids; encoder_outputs cannot replace them."
            )
        times = decoder_input_ids.shape[0] // len(contexts)
        mask = contexts.attention_mask[:, :-1].repeat_interleave(times, dim=0)  # (N, S-1)
        past = self._cache(contexts, past_key_values, times, options)
        # How many tokens of the answer the cache holds.
        done = 0 if past is None else max(past.get_seq_length() - mask.shape[1], 0)
        if done == 0:
            starts = contexts.input_ids[:, -1].repeat_interleave(times)
            decoder_input_ids = torch.cat([starts[:, None], decoder_input_ids[:, 1:]], dim=1)
        length = decoder_input_ids.shape[1]
        if decoder_attention_mask is None or decoder_attention_mask.shape[1] != done + length:
            decoder_attention_mask = mask.new_ones(mask.shape[0], done + length)
        input_ids = decoder_input_ids
        position_ids = mask.sum(-1, keepdim=True) + torch.arange(done, done + length, device=mask.device)
        if past is None:
            prompt = contexts.input_ids[:, :-1].repeat_interleave(times, dim=0)
            input_ids = torch.cat([prompt, decoder_input_ids], dim=1)
            position_ids = torch.cat([_positions_of(mask), position_ids], dim=1)
        with (
            head_input(self.generator.get_output_embeddings(), options.logits_at),
            fast_linear(self.generator),
        ):
            output = self.generator(
                input_ids=input_ids,
                attention_mask=torch.cat([mask, decoder_attention_mask.to(mask)], dim=1),
                past_key_values=past,
                use_cache=past is not None,
                logits_to_keep=length,
                output_attentions=options.output_attentions,
                output_hidden_states=options.output_hidden_states,
                return_dict=True,
                **self._positions(position_ids),
            )
        return Decoded(
            logits=output.logits,
            past_key_values=past_key_values if options.use_cache else None,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def new_cache(self, *, n_questions: int, n_docs: int) -> MixtureCache:
        """An empty cache; the prompt's keys and values enter it at the first step."""
        return MixtureCache(
            DynamicCache(config=self.generator.config), n_questions=n_questions, n_docs=n_docs
        )

    def _cache(
        self, contexts: EncodedContexts, past_key_values: Cache | None, times: int, options: DecodeOptions
    ) -> Cache | None:
        """The cache to run with: the caller's, one begun from the prompt, or none."""
        if not isinstance(past_key_values, MixtureCache | None):
            raise ConfigurationError(
                f"past_key_values is a {type(past_key_values).__name__}; a causal generator continues from the cache "
                "that a call with use_cache=True returned."
            )
        mixture = past_key_values
        if mixture is not None and mixture.self_attention_cache.get_seq_length() > 0:
            return mixture.self_attention_cache
        if mixture is not None and contexts.prompt_cache is None and contexts.input_ids is not None:
            contexts.prompt_cache = self.read(
                contexts.input_ids, contexts.attention_mask, reuse=True, options=options
            ).prompt_cache
        if contexts.prompt_cache is None:
            return None
        begun = self._begun(contexts.prompt_cache, times)
        if mixture is not None:
            mixture.self_attention_cache = begun
        return begun

    def _begun(self, prompts: Cache, times: int) -> Cache:
        """A cache of R rows for each of the prompts, which may grow on its own."""
        if _is_plain(prompts) and share_prompts(self.generator):
            return Cache(layers=[PromptLayer(layer.keys, layer.values) for layer in prompts.layers])
        return _repeated(prompts, times)

    def _positions(self, position_ids: Tensor) -> dict[str, Any]:
        return {"position_ids": position_ids} if self._takes_positions else {}


@cache
def _takes_positions(generator_class: type[PreTrainedModel]) -> bool:
    """Whether a class of generators is told the positions; asked at every step, so remembered."""
    return "position_ids" in inspect.signature(generator_class.forward).parameters


def _is_plain(cache: Cache) -> bool:
    """Whether all layers keep all keys and values: no sliding window."""
    return len(cache.layers) > 0 and all(type(layer) is DynamicLayer for layer in cache.layers)


def _moved_right(input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with their real tokens at the right end, as many columns as the longest needs, 2 at least."""
    if mask.shape[1] == 1:  # there has to be a prompt before the last token, were it padding
        input_ids, mask = pad(input_ids, (1, 0)), pad(mask, (1, 0))
    order = mask.ne(0).to(torch.uint8).argsort(dim=1, stable=True)
    length = max(int(mask.ne(0).sum(1).max()), 2)
    return input_ids.gather(1, order)[:, -length:], mask.gather(1, order)[:, -length:]


def _positions_of(mask: Tensor) -> Tensor:
    """Positions that count real tokens only, (N, S)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _repeated(cache: Cache, times: int) -> Cache:
    """A cache that may grow on its own, with every row repeated; tensors are shared where nothing repeats."""
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    if times > 1:
        twin.batch_repeat_interleave(times)
    return twin

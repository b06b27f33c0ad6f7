"""Attention and caches in which R rows of queries share one row of keys and values.

The beams of a passage have the same context, so its keys and values are computed, stored and moved once per passage,
not once per beam. The rows' queries are folded into the query length, (N*R, h, T, d) to (N, h, R*T, d), and one call
attends for all of them.

The cross attention of a seq2seq generator shares all of its keys. A causal generator has keys of the prompt, which
beams share (`PromptLayer` stores them), and keys of the answers, one row per beam; `prompt_attention` attends to both
at once. In the same way, the query heads that share a head of keys are folded into the query length.

The function is registered with transformers' attention interface under its own name; without shared keys it is sdpa.

Notation used for tensor shapes
    N rows of keys, which are B*K contexts here; R rows of queries for each of them; h heads, g of them per head of
    keys; T queries, S keys, d size of a head. B questions and K passages per question, as everywhere.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    Cache,
    DynamicCache,
    DynamicLayer,
    EncoderDecoderCache,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "ragweave_shared_sdpa"
# Spare columns behind the keys of a `GrowingLayer`, for those of a question and an answer.
ROOM = 64
# The attribute with which the answers' keys carry the prompts' keys and values to the attention function.
PROMPT = "ragweave_prompt"

# Model types whose cross attention takes the number of rows from the keys. Others (UMT5) take it from the queries and
# would cut a context's keys into R rows, silently if the numbers divide.
SHARING_TYPES = frozenset(
    {"bart", "blenderbot", "blenderbot-small", "m2m_100", "marian", "mbart", "mt5", "pegasus", "plbart", "t5"}
)
# Causal model types whose layers attend to everything in the cache, and pass its keys to the attention function
# unchanged: no sliding windows, soft caps or sinks.
PROMPT_SHARING_TYPES = frozenset(
    {"gemma", "gpt2", "gpt_neox", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"}
)


def shared_sdpa_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from (N*R, h, T, d) queries to (N, h, S, d) keys; an attention function of transformers.

    Args:
        module: The attention module.
        query: Queries, (N*R, h, T, d), rows that share keys next to each other.
        key: Keys, (N, h, S, d); those of a `PromptLayer` carry the prompts' keys and values.
        value: Values, (N, h, S, d).
        attention_mask: Mask, (N or 1, 1, T or 1, S).
        position_bias: T5's bias, (1, h, T, S).
        **kwargs: Passed to sdpa.

    Returns:
        The output, (N*R, T, h, d), and no weights.
    """
    prompt = getattr(key, PROMPT, None)
    if prompt is not None:
        scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
        first, second = prompt
        return prompt_attention(query, key, value, first, second, attention_mask, scaling=scaling), None
    times = query.shape[0] // key.shape[0]  # R
    if times == 1:
        return _attend(module, query, key, value, attention_mask, position_bias=position_bias, **kwargs)
    n, (_, heads, length, size) = key.shape[0], query.shape
    folded = query.view(n, times, heads, length, size).transpose(1, 2)  # (N, h, R, T, d)
    folded = folded.reshape(n, heads, times * length, size)  # (N, h, R*T, d)
    output, _ = sdpa_attention_forward(
        module,
        folded,
        key,
        value,
        _repeat_queries(attention_mask, times),
        position_bias=_repeat_queries(position_bias, times),
        **kwargs,
    )  # (N, R*T, h, d)
    return output.view(n * times, length, heads, size), None  # (N*R, T, h, d)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attend from (N, h, T, d) queries to (N, h/g, S, d) keys without copying keys for each of the g heads."""
    n, heads, length, size = query.shape
    groups = heads // key.shape[1]  # g
    if groups == 1 or attention_mask is None or kwargs["position_bias"] is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    output = scaled_dot_product_attention(
        query.reshape(n, -1, groups * length, size),
        key,
        value,
        attn_mask=_repeat_queries(attention_mask, groups),
        dropout_p=kwargs.get("dropout", 0.0),
        scale=kwargs.get("scaling"),
    )  # (N, h/g, g*T, d)
    return output.view(n, heads, length, size).transpose(1, 2).contiguous(), None


def prompt_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prompt_key: Tensor,
    prompt_value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
) -> Tensor:
    """Attend to a prompt that R rows share, and to the answer of each row.

    Args:
        query: Queries, (N*R, h, T, d).
        key: Keys of the answers, (N*R, h/g, T', d).
        value: Their values.
        prompt_key: Keys of the prompts, (N, h/g, S, d).
        prompt_value: Their values.
        attention_mask: Which keys each query sees, bool or added to the scores, (N*R, 1, T, S+T'); the prompt's
            part is the same for all rows and queries of a prompt. ``None`` if every query sees all keys.
        scaling: Factor of the scores.

    Returns:
        The output, (N*R, T, h, d).
    """
    n, key_heads, length, size = prompt_key.shape
    rows, heads, queries, _ = query.shape
    times, groups = rows // n, heads // key_heads  # R, g

    def per_row(tensor: Tensor) -> Tensor:
        """(N, h/g, R*g*T, any) to (N*R, h/g, g*T, any)."""
        split = tensor.view(n, key_heads, times, groups * queries, -1)
        return split.transpose(1, 2).reshape(rows, key_heads, groups * queries, -1)

    def per_prompt(tensor: Tensor) -> Tensor:
        """(N*R, h/g, g*T, any) to (N, h/g, R*g*T, any)."""
        split = tensor.view(n, times, key_heads, groups * queries, -1)
        return split.transpose(1, 2).reshape(n, key_heads, times * groups * queries, -1)

    scaled = (query * scaling).reshape(rows, key_heads, groups * queries, size)  # (N*R, h/g, g*T, d)
    to_prompt = (per_prompt(scaled) @ prompt_key.transpose(-1, -2)).float()  # (N, h/g, R*g*T, S)
    to_answer = (scaled @ key.transpose(-1, -2)).float()  # (N*R, h/g, g*T, T')
    if attention_mask is not None:
        mask = attention_mask.expand(rows, -1, queries, -1)
        prompt_mask = mask.view(n, times, 1, queries, -1)[:, 0, :, :1, :length]  # (N, 1, 1, S)
        to_prompt = _masked(to_prompt, prompt_mask)
        to_answer = to_answer.view(rows, key_heads, groups, queries, -1)  # (N*R, h/g, g, T, T')
        to_answer = _masked(to_answer, attention_mask[..., length:].unsqueeze(1)).flatten(2, 3)

    # One softmax over both parts: each is summed relative to the largest score of either.
    largest = torch.maximum(per_row(to_prompt.amax(-1, keepdim=True)), to_answer.amax(-1, keepdim=True))
    to_prompt = (to_prompt - per_prompt(largest)).exp_()
    to_answer = (to_answer - largest).exp_()
    total = per_row(to_prompt.sum(-1, keepdim=True)) + to_answer.sum(-1, keepdim=True)
    output = per_row(to_prompt.to(value.dtype) @ prompt_value) + to_answer.to(value.dtype) @ value
    output = output / total.to(value.dtype)  # (N*R, h/g, g*T, d)
    return output.view(rows, heads, queries, size).transpose(1, 2).contiguous()  # (N*R, T, h, d)


def share_keys(generator: PreTrainedModel) -> bool:
    """Let a generator with sdpa share the keys and values of contexts along rows.

    Returns:
        Whether it shares them now. It does not if the caller chose an attention other than sdpa, or if the model's
        type is neither in `SHARING_TYPES` nor in `PROMPT_SHARING_TYPES`.
    """
    if generator.config.model_type not in SHARING_TYPES | PROMPT_SHARING_TYPES:
        return False
    if attention_implementation(generator) == "sdpa":
        AttentionInterface.register(NAME, shared_sdpa_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        generator.set_attn_implementation(NAME)
    return attention_implementation(generator) == NAME


def attention_implementation(model: PreTrainedModel) -> str:
    """The name of a model's attention function."""
    # transformers has a public setter but no public getter. test_attention.py fails if the attribute is removed.
    # ``benchmarks/sequence_decoding.py`` measures what sharing saves.
    return str(model.config._attn_implementation)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores with the lowest number for hidden keys."""
    if mask.dtype != torch.bool:
        return scores + mask
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def _repeat_queries(mask: Tensor | None, times: int) -> Tensor | None:
    """A mask over T queries, repeated for R rows or g heads: (.., T, S) to (.., R*T, S)."""
    return mask if mask is None or mask.shape[-2] == 1 else mask.repeat(1, 1, times, 1)


class MixtureCache(EncoderDecoderCache):
    """Self-attention keys and values of B*K*R rows, reordered along beams; cross-attention is not moved.

    Rows are in the order (B, K, R): the beams of one passage are next to each other. Whatever depends on the passage
    alone (cross-attention, a causal generator's prompt) is equal along R, and beam search never has to move it.

    Args:
        self_attention_cache: Cache of the decoder's tokens (for a causal generator: prompt and answer).
        n_questions: B.
        n_docs: K.
    """

    def __init__(self, self_attention_cache: Cache, *, n_questions: int, n_docs: int) -> None:
        super().__init__(self_attention_cache, DynamicCache())
        self.n_questions = n_questions
        self.n_docs = n_docs

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Continue every question's beams from the given ones.

        Args:
            beam_idx: The beam that each of the B*R beams continues, as in transformers' beam search, (B*R,).
        """
        beams = beam_idx.view(self.n_questions, 1, -1)  # (B, 1, R)
        first_beams = torch.arange(self.n_questions, device=beams.device)[:, None, None] * beams.shape[-1]
        passages = torch.arange(self.n_docs, device=beams.device)[None, :, None]  # (1, K, 1)
        # Beam r of question b is row (b*K + k)*R + r for each passage k; beams stay within their question.
        rows = first_beams * self.n_docs + passages * beams.shape[-1] + beams - first_beams  # (B, K, R)
        for layer in self.self_attention_cache.layers:
            layer.reorder_cache(rows.flatten())

    @property
    def is_selectable(self) -> bool:
        """Whether all layers keep one row of keys and values for each context."""
        return all(isinstance(layer, DynamicLayer) for layer in self.self_attention_cache.layers)

    def select(self, questions: list[int]) -> None:
        """Forget all but some questions, given by their numbers, in a search without beams."""
        device = self.self_attention_cache.layers[0].keys.device
        rows = torch.arange(self.n_questions * self.n_docs, device=device).view(-1, self.n_docs)
        self.batch_select_indices(rows[questions].flatten())
        self.n_questions = len(questions)


class GrowingLayer(DynamicLayer):
    """One layer of keys and values with spare room, into which new ones are written without copying the others.

    A copy of a layer takes over its room; the original then allocates a new one to append.
    """

    def __init__(self) -> None:
        super().__init__()
        self._room: tuple[Tensor, Tensor] | None = None
        self._shared = 0  # columns that another layer shares

    def __copy__(self) -> GrowingLayer:
        twin = GrowingLayer()
        twin.__dict__.update(self.__dict__)
        twin._shared, self._room = self.get_seq_length(), None
        return twin

    def occupy(self, keys: Tensor, values: Tensor, length: int) -> None:
        """Take tensors, (N, h, any, d), whose first columns are keys and values and whose others are room."""
        self.lazy_initialization(keys, values)
        self._room, self._shared = (keys, values), 0
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, (N, h, T, d); return all of them."""
        if torch.is_grad_enabled():  # the gradient needs unchanged keys
            return super().update(key_states, value_states, *args, **kwargs)
        length = self.get_seq_length()
        end = length + key_states.shape[2]
        if not self._has_room(length, end):
            rooms = [
                part.new_empty(*part.shape[:2], end + ROOM, part.shape[3])
                for part in (key_states, value_states)
            ]
            if length:
                rooms[0][:, :, :length], rooms[1][:, :, :length] = self.keys, self.values
            self.occupy(rooms[0], rooms[1], length)
        keys, values = self._room or (key_states, value_states)
        keys[:, :, length:end], values[:, :, length:end] = key_states, value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def _has_room(self, length: int, end: int) -> bool:
        if self._room is None or not length or length < self._shared or end > self._room[0].shape[2]:
            return False
        # Selected or repeated rows are new tensors, and inference tensors cannot be changed outside inference mode.
        return self.keys.data_ptr() == self._room[0].data_ptr() and (
            torch.is_inference_mode_enabled() or not self._room[0].is_inference()
        )


class PromptLayer(DynamicLayer):
    """One layer of a causal generator: keys and values of N prompts, shared by R rows each, and of the answers.

    The attention function must be `shared_sdpa_attention`: others would see only the answers.

    Args:
        prompt_keys: Keys of the prompts, (N, h, S, d).
        prompt_values: Their values.
    """

    def __init__(self, prompt_keys: Tensor, prompt_values: Tensor) -> None:
        super().__init__()
        self.prompt = (prompt_keys, prompt_values)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values of answers, (N*R, h, T, d); return all of the answers', which carry the prompts'."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        setattr(keys, PROMPT, self.prompt)
        return keys, values

    def get_seq_length(self) -> int:
        """Number of tokens of prompt and answer."""
        return int(self.prompt[0].shape[-2]) + super().get_seq_length()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the answers; all beams share the prompt."""
        if super().get_seq_length():
            self.batch_select_indices(beam_idx)


def is_plain(cache: Cache) -> bool:
    """Whether all layers keep all keys and values: no sliding window."""
    return len(cache.layers) > 0 and all(type(layer) is GrowingLayer for layer in cache.layers)


def repeated_cache(cache: Cache, times: int) -> Cache:
    """An independent cache with every row repeated; it shares tensors with the first if nothing is repeated."""
    repeated = copy.copy(cache)
    repeated.layers = [copy.copy(layer) for layer in cache.layers]
    if times > 1:
        repeated.batch_repeat_interleave(times)
    return repeated

"""One way to talk to any generator: read contexts once, then decode answers under them.

`Seq2SeqAdapter` and `CausalAdapter` hide the only difference that matters here: where the context goes. The
rest of ragweave sees decoder input of T tokens, the first of them a start token, and logits of T positions,
whichever kind of generator it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from ragweave.errors import ConfigurationError
from ragweave.modeling.contexts import EncodedContexts

# Their state of earlier tokens is not a cache of keys and values, which can be repeated, masked and reordered.
RECURRENT_LAYERS = frozenset({"conv", "linear_attention", "mamba", "recurrent"})


@dataclass(frozen=True)
class DecodeOptions:
    """What the caller wants back from the generator.

    Attributes:
        use_cache: The cache.
        output_attentions: Attentions.
        output_hidden_states: Hidden states.
        logits_at: Logits of these positions alone, bool, (N, T): (1, M, V), in the order of rows. The head of a
            generator is a large part of its work.
    """

    use_cache: bool = False
    output_attentions: bool = False
    output_hidden_states: bool = False
    logits_at: Tensor | None = None


@dataclass
class Decoded:
    """What the generator said about N rows of T decoder tokens.

    Attributes:
        logits: (N, T, V); (1, M, V) with ``logits_at``.
        past_key_values: Cache to continue from, with ``use_cache``.
        hidden_states: Decoder states layer by layer, where asked for.
        attentions: Decoder attentions layer by layer, where asked for.
        cross_attentions: Cross attentions layer by layer, where asked for.
    """

    logits: Tensor
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class GeneratorAdapter(Protocol):
    """What RAG models need from a generator."""

    def read(
        self,
        context_input_ids: Tensor,
        context_attention_mask: Tensor,
        *,
        reuse: bool,
        options: DecodeOptions,
    ) -> EncodedContexts:
        """Read B*K contexts.

        Args:
            context_input_ids: Contexts, (B*K, S).
            context_attention_mask: Their mask, (B*K, S).
            reuse: Whether they will be decoded from more than once, so that reading ahead pays.
            options: What to return beside the states.
        """
        ...

    def decode(
        self,
        contexts: EncodedContexts,
        decoder_input_ids: Tensor,
        *,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        options: DecodeOptions,
    ) -> Decoded:
        """Decode R rows under each context.

        Args:
            contexts: B*K contexts that were read.
            decoder_input_ids: Decoder input, (B*K*R, T), rows of a context next to each other.
            decoder_attention_mask: Mask over the decoder input, (B*K*R, T).
            past_key_values: Cache of earlier decoder tokens.
            options: What to return beside the logits.
        """
        ...

    def new_cache(self, *, n_questions: int, n_docs: int) -> Cache:
        """An empty cache for decoding a mixture step by step."""
        ...


@contextmanager
def head_input(head: nn.Module, logits_at: Tensor | None = None) -> Iterator[None]:
    """Choose the states that a language-model head is given, while this lasts, and make them contiguous.

    A slice of a batch, as causal generators make it of the last T positions, is not contiguous, and torch then
    multiplies row by row, with a copy of the weights for each: a quarter of a training step of a small model.

    Args:
        head: The language-model head.
        logits_at: Which positions to keep, bool, (N, T); all where left out.
    """

    def chosen(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = inputs[0].contiguous() if logits_at is None else inputs[0][logits_at][None]
        return (states, *inputs[1:])

    handle = head.register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        handle.remove()


def adapter_for(generator: PreTrainedModel) -> GeneratorAdapter:
    """The adapter that fits a generator: seq2seq where it has an encoder, causal where it has none."""
    from ragweave.modeling.causal import CausalAdapter
    from ragweave.modeling.seq2seq import Seq2SeqAdapter

    return Seq2SeqAdapter(generator) if generator.config.is_encoder_decoder else CausalAdapter(generator)


def check_generator(generator: PreTrainedModel) -> None:
    """Refuse generators that no adapter fits.

    Raises:
        ConfigurationError: It keeps a recurrent or convolutional state, or mixes experts behind an encoder.
    """
    config = generator.config
    layers = RECURRENT_LAYERS.intersection(getattr(config, "layer_types", None) or ())
    # Their outputs carry the routers' logits in places of their own.
    experts = config.is_encoder_decoder and bool(getattr(config, "num_experts", None))
    if not (generator._is_stateful or layers or experts):
        return
    reason = "mixes experts behind an encoder" if experts else "keeps a recurrent or convolutional state"
    raise ConfigurationError(
        f"A generator of type '{config.model_type}' {reason}, which is not supported; choose one whose layers are "
        "attention and dense, such as 'bart', 't5', 'llama' or 'qwen3'."
    )

"""How a generator looks at passages while it is trained: its attention before the softmax, for distillation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from ragweave.training.cross_attention import recorded_cross_attention
from ragweave.training.recording import RecordedAttention
from ragweave.training.self_attention import recorded_self_attention


@contextmanager
def recorded_attention(generator: PreTrainedModel) -> Iterator[RecordedAttention]:
    """Record the attention that a generator pays to its contexts while this lasts.

    Raises:
        ConfigurationError: Its attention is of a kind that is not known.
    """
    own = recorded_cross_attention if generator.config.is_encoder_decoder else recorded_self_attention
    record = RecordedAttention()
    with own(generator, record):
        yield record

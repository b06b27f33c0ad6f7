"""The key-value cache of a mixture: K passages under each of R beams of B questions.

Rows of everything that the generator sees stand in the order (B, K, R): the beams of one passage lie next to
each other, so that what depends on the passage alone (cross-attention, a causal generator's prompt) is equal
along R and never has to move when beams are reordered.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

from ragweave.modeling.attention import PROMPT


class MixtureCache(EncoderDecoderCache):
    """Self-attention keys and values of B*K*R rows, reordered along beams; cross-attention left in place.

    Args:
        self_attention_cache: Cache of the decoder's own tokens (for a causal generator: prompt and answer).
        n_questions: B.
        n_docs: K.
    """

    def __init__(self, self_attention_cache: Cache, *, n_questions: int, n_docs: int) -> None:
        super().__init__(self_attention_cache, DynamicCache())
        self.n_questions = n_questions
        self.n_docs = n_docs

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let every question's beams continue from the given ones.

        Args:
            beam_idx: For each of the B*R beams the beam that it continues, as transformers' beam search gives it.
        """
        rows = mixture_rows(beam_idx, self.n_questions, self.n_docs)
        for layer in self.self_attention_cache.layers:
            layer.reorder_cache(rows)


class PromptLayer(DynamicLayer):
    """One layer of a causal generator: keys and values of N prompts, which R rows each share, and of the answers.

    Only an attention function that knows it (`ragweave.modeling.attention.shared_sdpa_attention`) may be given
    what `update` returns.

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
        """Append keys and values of answers, (N*R, h, T, d); returns all of the answers', and the prompts' along."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        setattr(keys, PROMPT, self.prompt)
        return keys, values

    def get_seq_length(self) -> int:
        """Number of tokens of prompt and answer."""
        return int(self.prompt[0].shape[-2]) + super().get_seq_length()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the answers; the prompt is every beam's."""
        if super().get_seq_length():
            self.batch_select_indices(beam_idx)


def mixture_rows(beam_idx: Tensor, n_questions: int, n_docs: int) -> Tensor:
    """Turn indices over B*R beams into indices over the B*K*R rows of the mixture.

    Args:
        beam_idx: Indices over beams, (B*R,); each stays within its own question.
        n_questions: B.
        n_docs: K.

    Returns:
        Indices over rows, (B*K*R,).
    """
    beams = beam_idx.view(n_questions, 1, -1)  # (B, 1, R)
    n_beams = beams.shape[-1]
    question = torch.arange(n_questions, device=beam_idx.device)[:, None, None]
    passage = torch.arange(n_docs, device=beam_idx.device)[None, :, None]
    return ((question * n_docs + passage) * n_beams + beams - question * n_beams).view(-1)

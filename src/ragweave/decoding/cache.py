"""The key-value cache of a mixture: K passages under each of R beams of B questions.

Rows of everything that the generator sees stand in the order (B, K, R): the beams of one passage lie next to
each other, so that what depends on the passage alone (cross-attention, a causal generator's prompt) is equal
along R and never has to move when beams are reordered.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache


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

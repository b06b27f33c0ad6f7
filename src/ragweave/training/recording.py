"""What is recorded of how a generator looks at passages while it is trained.

Notation used for tensor shapes: B questions, K passages per question, H heads of all layers, T answer tokens, S
context tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ragweave.errors import ConfigurationError
from ragweave.training.losses import CrossAttention


@dataclass
class RecordedAttention:
    """Scores and value norms, layer by layer, of one forward pass.

    Attributes:
        scores: Of each layer before the softmax, (B*K, H, T, S); -inf where a token was not seen.
        value_norms: Of each layer, (B*K, H, S).
        mask: Which context tokens there are, bool, (B*K, S), where the generator was shown them in another order
            than they were handed over.
        length: T, as a causal generator was told.
    """

    scores: list[Tensor] = field(default_factory=list)
    value_norms: list[Tensor] = field(default_factory=list)
    mask: Tensor | None = None
    length: int = 0

    def of_passages(self, n_docs: int, context_attention_mask: Tensor) -> CrossAttention:
        """What was recorded, by passage.

        Args:
            n_docs: K.
            context_attention_mask: Mask of the contexts, (B*K, S) or wider.

        Raises:
            ConfigurationError: Nothing was recorded: the generator computes attention in a way of its own.
        """
        if not self.scores:
            raise ConfigurationError(
                "adist has seen no attention: the generator computes it in a way of its own. Choose emdr2, pdist or "
                "loop."
            )
        scores, norms = torch.cat(self.scores, 1), torch.cat(self.value_norms, 1)
        given = context_attention_mask if self.mask is None else self.mask
        mask = given[:, : scores.shape[-1]].bool()
        return CrossAttention(*(own.unflatten(0, (-1, n_docs)) for own in (scores, norms, mask)))

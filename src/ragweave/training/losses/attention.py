"""What attention distillation needs of a generator: how it looked at the passages it read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ragweave.errors import ShapeError


@dataclass(frozen=True)
class CrossAttention:
    """Attention of a generator that read every passage as a context of its own.

    It is the cross-attention of a decoder with an encoder, and a causal generator's attention from the answer's
    positions to the prompt's (but for its last token, which is the answer's first position).

    Heads (H) are those of all layers, one layer after the other.

    Attributes:
        scores: Attention scores before the softmax, (B, K, H, T, S). Without them the logarithms of the
            attention weights may be given: see `ragweave.training.losses.adist`.
        value_norms: Euclidean norms of the value vectors, (B, K, H, S).
        mask: Which context tokens there are, bool, (B, K, S).
    """

    scores: Tensor
    value_norms: Tensor
    mask: Tensor

    def check(self, present: Tensor, scored: Tensor) -> None:
        """Check the shapes, and that every passage has a token to look at.

        Args:
            present: Which passages there are, bool, (B, K).
            scored: Which target tokens count, bool, (B, T).

        Raises:
            ShapeError: They disagree, or the mask leaves nothing of a passage.
        """
        if self.scores.dim() != 5:
            raise ShapeError(
                f"attention.scores has shape {tuple(self.scores.shape)}; expected (B, K, H, T, S)."
            )
        heads, tokens = self.scores.shape[2], self.scores.shape[4]
        for name, found, expected in (
            ("scores", self.scores, (*present.shape, heads, scored.shape[1], tokens)),
            ("value_norms", self.value_norms, (*present.shape, heads, tokens)),
            ("mask", self.mask, (*present.shape, tokens)),
        ):
            if tuple(found.shape) != expected:
                raise ShapeError(
                    f"attention.{name} has shape {tuple(found.shape)}; expected {tuple(expected)}."
                )
        empty = (present & ~self.mask.any(-1)).nonzero()
        if len(empty):
            question, passage = empty[0].tolist()
            raise ShapeError(
                f"attention.mask leaves no token of passage {passage} of question {question}; give the "
                "passage a token, or the score -inf if there is none."
            )

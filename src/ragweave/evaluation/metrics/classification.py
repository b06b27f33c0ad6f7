"""Classification by a generator that writes the label, as Lewis et al. 2020 do for FEVER."""

from __future__ import annotations

from collections.abc import Sequence

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics.checks import require_same_length

FEVER_3_WAY = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
"""FEVER's labels (Thorne et al. 2018)."""
FEVER_2_WAY = FEVER_3_WAY[:2]
"""The labels of the claims that can be decided; Lewis et al. and KILT leave the others out."""


def label_match(prediction: str, gold: str) -> float:
    """1.0 where the label that was written is the gold one, else 0.0; case and outer spaces do not count.

    Source: FEVER's scorer (Thorne et al. 2018).

    Example:
        >>> label_match(" supports", "SUPPORTS")
        1.0
    """
    return float(_plain(prediction) == _plain(gold))


def accuracy(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str] | None = None) -> float:
    """Share of the labels that are right, in [0, 1].

    Args:
        predictions: What was written for every claim. What is no label at all is wrong.
        golds: The gold label of every claim.
        labels: The labels that golds may have, such as `FEVER_2_WAY`; any when None.

    Raises:
        ConfigurationError: There are not as many golds as predictions, none at all, or a gold is none of the labels.

    Example:
        >>> accuracy(["SUPPORTS", "maybe"], ["SUPPORTS", "REFUTES"], labels=FEVER_2_WAY)
        0.5
    """
    require_same_length(predictions, golds, "predictions and golds")
    known = {_plain(label) for label in (golds if labels is None else labels)}
    if strange := next((gold for gold in golds if _plain(gold) not in known), None):
        raise ConfigurationError(
            f"The gold label {strange!r} is none of {', '.join(labels or ())}: "
            "leave such claims out, or add the label."
        )
    return sum(map(label_match, predictions, golds)) / len(golds)


def _plain(label: str) -> str:
    return label.strip().casefold()

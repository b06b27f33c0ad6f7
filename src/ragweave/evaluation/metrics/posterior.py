"""How much of the belief in passages is on the right one."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from math import fsum

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics.checks import require_golds, require_same_length

# Posteriors in bfloat16 sum to one no better than this.
_TOLERANCE = 1e-2


def gold_mass(posteriors: Sequence[float], ids: Sequence[Hashable], gold: Collection[Hashable]) -> float:
    """Share of probability that K passages have which are gold, in [0, 1].

    With p(z|x), it measures the retriever; with the posterior p(z | x, y) of an answer, what the answer was made
    from. Passages with one id, such as those of one page, have their probabilities added.

    Args:
        posteriors: Probabilities of the K passages of one question; they sum to one.
        ids: Ids of the passages, K of them.
        gold: The gold ids.

    Raises:
        ConfigurationError: The probabilities are none, are not as many as ids, or there is no gold id.

    Example:
        >>> gold_mass([0.5, 0.25, 0.25], ["a", "b", "a"], {"a"})
        0.75
    """
    require_same_length(posteriors, ids, "posteriors and ids")
    require_golds(gold, "gold")
    total = fsum(posteriors)
    # Written so that NaN fails.
    if not (all(p >= 0 for p in posteriors) and abs(total - 1) <= _TOLERANCE):
        raise ConfigurationError(
            f"posteriors must be probabilities that sum to 1, and these sum to {total:g}: give "
            "the posteriors of an answer's passages, not their scores."
        )
    wanted = set(gold)
    return fsum(p for p, own in zip(posteriors, ids, strict=True) if own in wanted) / total

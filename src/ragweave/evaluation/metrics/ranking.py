"""Ranked lists of ids against sets of gold ids.

An id that comes again in a ranked list is left out there, so that each counts once and takes one rank. A list may be
shorter than ``k``: what is missing was not found. All are for one question; means over questions are the caller's.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from math import log2

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics.checks import require_depth, require_golds


def recall_at_k(ranked: Sequence[Hashable], gold: Collection[Hashable], k: int) -> float:
    """Share of the gold ids that are among the first k, in [0, 1]. trec_eval's ``recall_k``.

    Raises:
        ConfigurationError: There is no gold id, or ``k`` is less than one.

    Example:
        >>> recall_at_k(["a", "b", "c"], {"c", "d"}, k=3)
        0.5
    """
    return sum(_hits(ranked, gold, k)) / len(set(gold))


def hit_at_k(ranked: Sequence[Hashable], gold: Collection[Hashable], k: int) -> float:
    """1.0 where a gold id is among the first k, else 0.0. trec_eval's ``success_k``.

    Raises:
        ConfigurationError: There is no gold id, or ``k`` is less than one.

    Example:
        >>> hit_at_k(["a", "b", "c"], {"c", "d"}, k=3)
        1.0
    """
    return float(any(_hits(ranked, gold, k)))


def mrr(ranked: Sequence[Hashable], gold: Collection[Hashable], k: int | None = None) -> float:
    """One over the rank of the first gold id, 0 where none was found; its mean over questions is the MRR.

    Source: Voorhees 1999 (the question answering track of TREC-8); trec_eval's ``recip_rank``.

    Args:
        ranked: Ids, best first.
        gold: The gold ids.
        k: How many ids count; all of them when None. MS-MARCO counts 10.

    Raises:
        ConfigurationError: There is no gold id, or ``k`` is less than one.

    Example:
        >>> mrr(["a", "b", "c"], {"b", "c"})
        0.5
    """
    hits = _hits(ranked, gold, max(1, len(ranked)) if k is None else k)
    return 1 / (hits.index(True) + 1) if any(hits) else 0.0


def r_precision(ranked: Sequence[Hashable], gold: Collection[Hashable]) -> float:
    """Share of gold ids among the first R, where R is the number of gold ids, in [0, 1].

    Source: Buckley and Voorhees 2000; trec_eval's ``Rprec``.

    Raises:
        ConfigurationError: There is no gold id.

    Example:
        >>> r_precision(["a", "b", "c"], {"a", "c"})
        0.5
    """
    require_golds(gold, "gold")
    return recall_at_k(ranked, gold, len(set(gold)))


def ndcg_at_k(ranked: Sequence[Hashable], gold: Collection[Hashable], k: int) -> float:
    """Normalised discounted cumulative gain of the first k, in [0, 1]; a gold id gains 1.

    A gain at rank r is divided by log2(r + 1), and the sum by that of the best possible list. Source: Järvelin and
    Kekäläinen 2002 with the discount that trec_eval's ``ndcg_cut_k`` has.

    Raises:
        ConfigurationError: There is no gold id, or ``k`` is less than one.

    Example:
        >>> ndcg_at_k(["a", "b", "c"], {"c"}, k=3)
        0.5
    """
    hits = _hits(ranked, gold, k)
    found = sum(1 / log2(rank + 2) for rank, hit in enumerate(hits) if hit)
    best = sum(1 / log2(rank + 2) for rank in range(min(k, len(set(gold)))))
    return found / best


def without_repeats(ranked: Sequence[Hashable]) -> list[Hashable]:
    """A ranked list in which every id keeps its first place.

    Raises:
        ConfigurationError: It is a string, whose letters would be taken for ids.
    """
    if isinstance(ranked, str | bytes):
        raise ConfigurationError(f"ranked is a string: give a list, such as [{ranked!r}].")
    return list(dict.fromkeys(ranked))


def _hits(ranked: Sequence[Hashable], gold: Collection[Hashable], k: int) -> list[bool]:
    """Which of the first k ids are gold."""
    require_depth(k)
    require_golds(gold, "gold")
    wanted = set(gold)
    return [found in wanted for found in without_repeats(ranked)[:k]]

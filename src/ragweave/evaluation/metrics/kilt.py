"""KILT's scores: retrieval by evidence sets, and answers that count only with their provenance.

Source: Petroni et al. 2021 and KILT's ``eval_retrieval.py`` and ``eval_downstream.py``. Ids are those of Wikipedia
pages. A question has one evidence set per gold provenance: the pages that are needed *together*; each set is enough
by itself. All scores are for one question.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

from ragweave.evaluation.metrics.checks import require_depth, require_golds
from ragweave.evaluation.metrics.ranking import r_precision, without_repeats

EvidenceSets = Collection[Collection[Hashable]]


def kilt_r_precision(ranked: Sequence[Hashable], evidence_sets: EvidenceSets) -> float:
    """R-precision with the evidence set for which it is highest, in [0, 1].

    Args:
        ranked: Pages, best first; a page that comes again counts once.
        evidence_sets: The gold pages; empty sets are passed over.

    Raises:
        ConfigurationError: There is no evidence.

    Example:
        >>> kilt_r_precision([7, 3, 9], [{3, 9}, {7}])
        1.0
    """
    return max(r_precision(ranked, evidence) for evidence in _distinct(evidence_sets))


def kilt_recall_at_k(ranked: Sequence[Hashable], evidence_sets: EvidenceSets, k: int) -> float:
    """Share of the evidence sets that are whole among the first k points, in [0, 1].

    The pages of one set are one point together, at the rank of the last of them; any other page is a point.

    Args:
        ranked: Pages, best first; a page that comes again counts once.
        evidence_sets: The gold pages; empty sets are passed over, equal ones count once.
        k: How many points count.

    Raises:
        ConfigurationError: There is no evidence, or ``k`` is less than one.

    Example:
        >>> kilt_recall_at_k([7, 3, 9], [{3, 9}, {5}], k=2)  # points: 7, then 3 and 9 together
        0.5
    """
    evidence = _distinct(evidence_sets)
    return sum(_points(ranked, evidence, k)) / len(evidence)


def kilt_success_rate_at_k(ranked: Sequence[Hashable], evidence_sets: EvidenceSets, k: int) -> float:
    """1.0 where one evidence set is whole among the first k points, as `kilt_recall_at_k` takes them; else 0.0.

    Raises:
        ConfigurationError: There is no evidence, or ``k`` is less than one.

    Example:
        >>> kilt_success_rate_at_k([7, 3, 9], [{3, 9}, {5}], k=2)
        1.0
    """
    return float(any(_points(ranked, _distinct(evidence_sets), k)))


def kilt_score(score: float, ranked: Sequence[Hashable], evidence_sets: EvidenceSets) -> float:
    """The score of an answer where the R-precision of its provenance is 1, else 0.0.

    With exact match it is KILT-EM, with F1 KILT-F1, with accuracy KILT-AC, with ROUGE-L KILT-RL (KILT's script
    takes that of the package ``rouge``, which splits at spaces and heeds case).

    Args:
        score: What the answer has by itself.
        ranked: Pages that the answer is said to come from, best first.
        evidence_sets: The gold pages.

    Raises:
        ConfigurationError: There is no evidence.

    Example:
        >>> kilt_score(1.0, [3], [{3}]), kilt_score(1.0, [7, 3], [{3}])
        (1.0, 0.0)
    """
    return score if kilt_r_precision(ranked, evidence_sets) == 1 else 0.0


def _points(ranked: Sequence[Hashable], evidence: list[frozenset[Hashable]], k: int) -> list[bool]:
    """Which of the first k points are whole evidence sets.

    A page of several sets makes a point in each of them, as in KILT's script.
    """
    require_depth(k)
    missing = [set(own) for own in evidence]
    points: list[int | None] = []  # the number of an evidence set, or None for a page of no set
    for page in without_repeats(ranked):
        own = [number for number, pages in enumerate(missing) if page in pages]
        for number in own:
            missing[number].discard(page)
            if number in points:  # the set moves down to this page
                points.remove(number)
            points.append(number)
        if not own:
            points.append(None)
    return [point is not None and not missing[point] for point in points[:k]]


def _distinct(evidence_sets: EvidenceSets) -> list[frozenset[Hashable]]:
    evidence = list(dict.fromkeys(frozenset(own) for own in evidence_sets if own))
    require_golds(evidence, "evidence_sets")
    return evidence

"""Ranked passages against gold passages: ranking metrics, KILT's scores and DPR's answer recall.

All functions score one question. A repeated id is removed, so every id counts once and takes one rank. A list may be
shorter than ``k``. Without a gold id, and with a ``k`` below 1, they raise a `ConfigurationError`.

KILT's scores are those of Petroni et al. 2021, ``eval_retrieval.py`` and ``eval_downstream.py``. Ids are Wikipedia
pages. A question has one evidence set per gold provenance: the pages that are needed *together*. Each set is
sufficient. Empty sets are ignored, and equal ones count once.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from math import log2

from ragweave.errors import ConfigurationError
from ragweave.matching import has_answer, require_golds

EvidenceSets = Collection[Collection[Hashable]]

# Not ir-measures': trec_eval takes only strings as ids and leaves out questions without results, and the conversion
# to its qrels is longer than these formulas. The tests compare the values.


def recall_at_k(ranked: Sequence[Hashable], gold: Collection[Hashable], k: int) -> float:
    """Return the share of the gold ids in the top k, in [0, 1]. trec_eval's ``recall_k``.

    Example:
        >>> recall_at_k(["a", "b", "c"], {"c", "d"}, k=3)
        0.5
    """
    return sum(_relevance(ranked, gold, k)) / len(set(gold))


def hit_at_k(ranked: Sequence[Hashable], gold: Collection[Hashable], k: int) -> float:
    """Return 1.0 if a gold id is in the top k, else 0.0. trec_eval's ``success_k``.

    Example:
        >>> hit_at_k(["a", "b", "c"], {"c", "d"}, k=3)
        1.0
    """
    return float(any(_relevance(ranked, gold, k)))


def mrr(ranked: Sequence[Hashable], gold: Collection[Hashable], k: int | None = None) -> float:
    """Return the reciprocal rank of the first gold id, 0 if there is none; its mean over questions is the MRR.

    Source: Voorhees 1999 (the question answering track of TREC-8); trec_eval's ``recip_rank``. ``k`` limits the rank;
    MS-MARCO uses 10.

    Example:
        >>> mrr(["a", "b", "c"], {"b", "c"})
        0.5
    """
    relevance = _relevance(ranked, gold, max(1, len(ranked)) if k is None else k)
    return 1 / (relevance.index(True) + 1) if any(relevance) else 0.0


def r_precision(ranked: Sequence[Hashable], gold: Collection[Hashable]) -> float:
    """Return the share of gold ids in the top R, where R is the number of gold ids, in [0, 1].

    Source: Buckley and Voorhees 2000; trec_eval's ``Rprec``.

    Example:
        >>> r_precision(["a", "b", "c"], {"a", "c"})
        0.5
    """
    require_golds(gold, "gold")
    return recall_at_k(ranked, gold, len(set(gold)))


def ndcg_at_k(ranked: Sequence[Hashable], gold: Collection[Hashable], k: int) -> float:
    """Return the normalised discounted cumulative gain of the top k, in [0, 1]; a gold id gains 1.

    A gain at rank r is divided by log2(r + 1), and the sum by that of the best possible list. Source: Järvelin and
    Kekäläinen 2002 with the discount of trec_eval's ``ndcg_cut_k``.

    Example:
        >>> ndcg_at_k(["a", "b", "c"], {"c"}, k=3)
        0.5
    """
    relevance = _relevance(ranked, gold, k)
    dcg = sum(1 / log2(rank + 2) for rank, relevant in enumerate(relevance) if relevant)
    ideal = sum(1 / log2(rank + 2) for rank in range(min(k, len(set(gold)))))
    return dcg / ideal


def answer_recall_at_k(
    texts: Sequence[str], golds: Sequence[str], k: int, *, patterns: bool = False
) -> float:
    """Return 1.0 if one of the top k passages contains a gold answer, else 0.0.

    Its mean over questions is DPR's top-k retrieval accuracy (Karpukhin et al. 2020, table 2). With ``patterns``,
    gold answers are regular expressions.

    Example:
        >>> passages = ["Lyon is on the Rhône.", "Paris is on the Seine."]
        >>> [answer_recall_at_k(passages, ["Seine"], k) for k in (1, 2)]
        [0.0, 1.0]
    """
    _require_depth(k)
    require_golds(golds)
    return float(any(has_answer(text, golds, patterns=patterns) for text in texts[:k]))


def kilt_r_precision(ranked: Sequence[Hashable], evidence_sets: EvidenceSets) -> float:
    """Return the maximum R-precision over evidence sets, in [0, 1].

    Example:
        >>> kilt_r_precision([7, 3, 9], [{3, 9}, {7}])
        1.0
    """
    return max(r_precision(ranked, evidence) for evidence in _distinct_sets(evidence_sets))


def kilt_recall_at_k(ranked: Sequence[Hashable], evidence_sets: EvidenceSets, k: int) -> float:
    """Return the share of the evidence sets that are complete in the top k entries, in [0, 1].

    The pages of one set are one entry together, at the rank of the last of them; every other page is an entry.

    Example:
        >>> kilt_recall_at_k([7, 3, 9], [{3, 9}, {5}], k=2)  # entries: 7, then 3 and 9 together
        0.5
    """
    evidence = _distinct_sets(evidence_sets)
    return sum(_complete_sets(ranked, evidence, k)) / len(evidence)


def kilt_success_rate_at_k(ranked: Sequence[Hashable], evidence_sets: EvidenceSets, k: int) -> float:
    """Return 1.0 if an evidence set is complete in the top k entries of `kilt_recall_at_k`, else 0.0.

    Example:
        >>> kilt_success_rate_at_k([7, 3, 9], [{3, 9}, {5}], k=2)
        1.0
    """
    return float(any(_complete_sets(ranked, _distinct_sets(evidence_sets), k)))


def kilt_score(score: float, ranked: Sequence[Hashable], evidence_sets: EvidenceSets) -> float:
    """Return the score of an answer if the R-precision of the pages that it cites is 1, else 0.0.

    With exact match it is KILT-EM, with F1 KILT-F1, with accuracy KILT-AC, with ROUGE-L KILT-RL (KILT's script uses
    the package ``rouge``, which splits at spaces and is case-sensitive).

    Example:
        >>> kilt_score(1.0, [3], [{3}]), kilt_score(1.0, [7, 3], [{3}])
        (1.0, 0.0)
    """
    return score if kilt_r_precision(ranked, evidence_sets) == 1 else 0.0


def _relevance(ranked: Sequence[Hashable], gold: Collection[Hashable], k: int) -> list[bool]:
    """Which of the top k ids are gold."""
    _require_depth(k)
    require_golds(gold, "gold")
    gold_ids = set(gold)
    return [name in gold_ids for name in _without_repeats(ranked)[:k]]


def _complete_sets(ranked: Sequence[Hashable], evidence: list[frozenset[Hashable]], k: int) -> list[bool]:
    """Which of the top k entries are complete evidence sets.

    A page of several sets makes an entry in each of them, as in KILT's script.
    """
    _require_depth(k)
    missing = [set(pages) for pages in evidence]
    entries: list[int | None] = []  # the number of an evidence set, or None for a page of no set
    for page in _without_repeats(ranked):
        numbers = [number for number, pages in enumerate(missing) if page in pages]
        for number in numbers:
            missing[number].discard(page)
            if number in entries:  # the set moves down to this page
                entries.remove(number)
            entries.append(number)
        if not numbers:
            entries.append(None)
    return [number is not None and not missing[number] for number in entries[:k]]


def _distinct_sets(evidence_sets: EvidenceSets) -> list[frozenset[Hashable]]:
    evidence = list(dict.fromkeys(frozenset(pages) for pages in evidence_sets if pages))
    require_golds(evidence, "evidence_sets")
    return evidence


def _without_repeats(ranked: Sequence[Hashable]) -> list[Hashable]:
    if isinstance(ranked, str | bytes):  # its letters would be taken for ids
        raise ConfigurationError(f"ranked is a string: give a list, such as [{ranked!r}].")
    return list(dict.fromkeys(ranked))


def _require_depth(k: int) -> None:
    if k < 1:
        raise ConfigurationError(f"k={k}: give 1 or more.")

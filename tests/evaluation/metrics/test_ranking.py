"""Ranking metrics by hand, and against trec_eval through ir-measures."""

from __future__ import annotations

from math import log2

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, Rprec, ScoredDoc, Success, nDCG

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import hit_at_k, mrr, ndcg_at_k, r_precision, recall_at_k

IDS = st.integers(0, 15)
RANKED = st.lists(IDS, max_size=12)
GOLD = st.sets(IDS, min_size=1, max_size=6)
DEPTHS = st.integers(1, 15)

AT_K = [recall_at_k, hit_at_k, ndcg_at_k, mrr]


@pytest.mark.parametrize(
    ("ranked", "gold", "k", "recall", "hit", "ndcg", "reciprocal"),
    [
        ("abc", "a", 1, 1.0, 1.0, 1.0, 1.0),
        ("abc", "c", 2, 0.0, 0.0, 0.0, 0.0),
        ("abc", "c", 3, 1.0, 1.0, 1 / 2, 1 / 3),
        ("abc", "bc", 3, 1.0, 1.0, (1 / log2(3) + 1 / 2) / (1 + 1 / log2(3)), 1 / 2),
        ("abc", "bd", 3, 1 / 2, 1.0, (1 / log2(3)) / (1 + 1 / log2(3)), 1 / 2),
        ("abc", "ab", 1, 1 / 2, 1.0, 1.0, 1.0),  # one place, and a gold id in it
        ("abc", "c", 99, 1.0, 1.0, 1 / 2, 1 / 3),  # a short list
        ("aabb", "b", 2, 1.0, 1.0, 1 / log2(3), 1 / 2),  # the repeat takes no rank
        ("bbbb", "bc", 4, 1 / 2, 1.0, 1 / (1 + 1 / log2(3)), 1.0),  # and counts once
        ("", "a", 3, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_at_depth(
    ranked: str, gold: str, k: int, recall: float, hit: float, ndcg: float, reciprocal: float
) -> None:
    found = [metric(list(ranked), set(gold), k) for metric in AT_K]
    assert found == pytest.approx([recall, hit, ndcg, reciprocal])


@pytest.mark.parametrize(
    ("ranked", "gold", "expected"),
    [
        ("abc", "a", 1.0),
        ("abc", "b", 0.0),
        ("abc", "bc", 0.5),
        ("a", "abc", 1 / 3),
        ("aab", "ab", 1.0),
        ("", "a", 0.0),
    ],
)
def test_r_precision(ranked: str, gold: str, expected: float) -> None:
    assert r_precision(list(ranked), set(gold)) == pytest.approx(expected)


@given(RANKED, GOLD, DEPTHS)
def test_as_trec_eval(ranked: list[int], gold: set[int], k: int) -> None:
    unique = list(dict.fromkeys(ranked)) or [99]  # trec_eval leaves questions without a result out
    qrels = {"q": {str(i): 1 for i in gold}}
    run = [ScoredDoc("q", str(i), -rank) for rank, i in enumerate(unique)]
    theirs = ir_measures.calc_aggregate([R @ k, Success @ k, nDCG @ k, RR, Rprec], qrels, run)
    assert recall_at_k(ranked, gold, k) == pytest.approx(theirs[R @ k])
    assert hit_at_k(ranked, gold, k) == theirs[Success @ k]
    assert ndcg_at_k(ranked, gold, k) == pytest.approx(theirs[nDCG @ k])
    assert mrr(ranked, gold) == pytest.approx(theirs[RR])
    assert r_precision(ranked, gold) == pytest.approx(theirs[Rprec])


@given(RANKED, GOLD, DEPTHS)
def test_bounds_and_order(ranked: list[int], gold: set[int], k: int) -> None:
    for metric in AT_K:
        score = metric(ranked, gold, k)
        assert 0 <= score <= 1
        assert metric(ranked, sorted(gold) * 2, k) == pytest.approx(score)  # golds are a set
        assert metric([*ranked, *ranked], gold, k) == pytest.approx(score)  # repeats are nothing
    for metric in (recall_at_k, hit_at_k, mrr):
        assert metric(ranked, gold, k) <= metric(ranked, gold, k + 1)  # deeper is no worse
    assert mrr(ranked, gold) == mrr(ranked, gold, 99)
    assert r_precision(ranked, gold) == recall_at_k(ranked, gold, len(gold))
    best = sorted(ranked, key=lambda i: i not in gold)
    assert ndcg_at_k(best, gold, k) >= ndcg_at_k(ranked, gold, k) - 1e-12


def test_bad_arguments() -> None:
    for metric in AT_K:
        for k in (0, -1):
            with pytest.raises(ConfigurationError, match=f"k={k} looks at nothing"):
                metric(["a"], {"a"}, k)
        with pytest.raises(ConfigurationError, match="gold is empty"):
            metric(["a"], set(), 1)
        with pytest.raises(ConfigurationError, match="gold is a string"):
            metric(["a"], "a", 1)
        with pytest.raises(ConfigurationError, match="ranked is a string"):
            metric("a", {"a"}, 1)
    with pytest.raises(ConfigurationError, match="gold is empty"):
        r_precision(["a"], [])

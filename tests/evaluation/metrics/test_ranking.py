"""Ranking metrics and KILT's scores by hand, and against trec_eval through ir-measures."""

from __future__ import annotations

from math import log2

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, Rprec, ScoredDoc, Success, nDCG

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import (
    answer_recall_at_k,
    exact_match,
    f1,
    hit_at_k,
    kilt_r_precision,
    kilt_recall_at_k,
    kilt_score,
    kilt_success_rate_at_k,
    mrr,
    ndcg_at_k,
    r_precision,
    recall_at_k,
)

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
    values = [metric(list(ranked), set(gold), k) for metric in AT_K]
    assert values == pytest.approx([recall, hit, ndcg, reciprocal])


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
    reference = ir_measures.calc_aggregate([R @ k, Success @ k, nDCG @ k, RR, Rprec], qrels, run)
    assert recall_at_k(ranked, gold, k) == pytest.approx(reference[R @ k])
    assert hit_at_k(ranked, gold, k) == reference[Success @ k]
    assert ndcg_at_k(ranked, gold, k) == pytest.approx(reference[nDCG @ k])
    assert mrr(ranked, gold) == pytest.approx(reference[RR])
    assert r_precision(ranked, gold) == pytest.approx(reference[Rprec])


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


def test_ranking_refuses_bad_arguments() -> None:
    for metric in AT_K:
        for k in (0, -1):
            with pytest.raises(ConfigurationError, match=f"k={k}: give 1 or more"):
                metric(["a"], {"a"}, k)
        with pytest.raises(ConfigurationError, match="gold is empty"):
            metric(["a"], set(), 1)
        with pytest.raises(ConfigurationError, match="gold is a string"):
            metric(["a"], "a", 1)
        with pytest.raises(ConfigurationError, match="ranked is a string"):
            metric("a", {"a"}, 1)
    with pytest.raises(ConfigurationError, match="gold is empty"):
        r_precision(["a"], [])


PAGES = st.lists(st.integers(0, 8), max_size=10)
EVIDENCE = st.lists(st.sets(st.integers(0, 8), min_size=1, max_size=3), min_size=1, max_size=3)
SHALLOW = st.integers(1, 8)


@pytest.mark.parametrize(
    ("ranked", "evidence", "expected"),
    [
        ([1, 2], [{1}], 1.0),
        ([2, 1], [{1}], 0.0),
        ([2, 1], [{1}, {2}], 1.0),  # the set for which it is highest
        ([1, 2], [{1, 2}], 1.0),
        ([1, 3, 2], [{1, 2}], 0.5),
        ([1, 3, 2], [{1, 2}, {4, 5, 6}], 0.5),
        ([1, 1, 2], [{1, 2}], 1.0),  # passages of one page are one page
        ([1], [{1}, set()], 1.0),
        ([], [{1}], 0.0),
    ],
)
def test_kilt_r_precision(ranked: list[int], evidence: list[set[int]], expected: float) -> None:
    assert kilt_r_precision(ranked, evidence) == expected


@pytest.mark.parametrize(
    ("ranked", "evidence", "k", "recall"),
    [
        ([1, 2, 3], [{2}], 1, 0.0),
        ([1, 2, 3], [{2}], 2, 1.0),
        ([1, 2, 3], [{2}, {9}], 2, 1 / 2),
        # Pages 1 and 2 are one point, at the rank of page 2: the points are 3, 1+2, 4.
        ([1, 3, 2, 4], [{1, 2}], 1, 0.0),
        ([1, 3, 2, 4], [{1, 2}], 2, 1.0),
        ([1, 3, 2, 4], [{1, 2}, {4}], 2, 1 / 2),
        ([1, 3, 2, 4], [{1, 2}, {4}], 3, 1.0),
        ([1, 2], [{1, 2}], 1, 1.0),  # one point, although two pages
        ([1, 5, 6], [{1, 2}], 3, 0.0),  # not whole
        # Page 1 is a point in two sets: the points are 1 (first set), then 1+2 (second set).
        ([1, 2], [{1}, {1, 2}], 1, 1 / 2),
        ([1, 2], [{1}, {1, 2}], 2, 1.0),
        ([1, 1, 2], [{2}], 2, 1.0),  # a page that comes again earns no point
        ([2], [{2}, {2}], 1, 1.0),  # equal sets are one
        ([], [{2}], 5, 0.0),
    ],
)
def test_recall_and_success(ranked: list[int], evidence: list[set[int]], k: int, recall: float) -> None:
    assert kilt_recall_at_k(ranked, evidence, k) == recall
    assert kilt_success_rate_at_k(ranked, evidence, k) == float(recall > 0)


@pytest.mark.parametrize(
    ("pages", "expected"),
    [([7], 1.0), ([7, 3], 1.0), ([3, 7], 0.0), ([4, 5], 1.0), ([4, 3], 0.0), ([], 0.0)],
)
def test_an_answer_counts_with_its_provenance_only(pages: list[int], expected: float) -> None:
    evidence = [{7}, {4, 5}]
    right = exact_match("the Eiffel Tower", ["Eiffel Tower"])
    assert kilt_score(right, pages, evidence) == expected
    half = f1("Eiffel", ["Eiffel Tower"])
    assert kilt_score(half, pages, evidence) == half * expected
    assert kilt_score(exact_match("Louvre", ["Eiffel Tower"]), pages, evidence) == 0.0


@given(PAGES, st.sets(st.integers(0, 8), min_size=1, max_size=4), SHALLOW)
def test_sets_of_one_page_are_plain_ranking(ranked: list[int], gold: set[int], k: int) -> None:
    evidence = [{page} for page in gold]
    assert kilt_recall_at_k(ranked, evidence, k) == pytest.approx(recall_at_k(ranked, gold, k))
    assert kilt_success_rate_at_k(ranked, evidence, k) == hit_at_k(ranked, gold, k)
    assert kilt_r_precision(ranked, [gold]) == r_precision(ranked, gold)


@given(PAGES, EVIDENCE, SHALLOW)
def test_kilt_bounds_and_order(ranked: list[int], evidence: list[set[int]], k: int) -> None:
    recall = kilt_recall_at_k(ranked, evidence, k)
    assert 0 <= recall <= 1
    assert recall <= kilt_recall_at_k(ranked, evidence, k + 1)
    assert kilt_r_precision(ranked, evidence) == kilt_r_precision(ranked, evidence[::-1])
    assert kilt_score(0.5, ranked, evidence) == 0.5 * (kilt_r_precision(ranked, evidence) == 1)
    if kilt_r_precision(ranked, evidence) == 1:  # a whole set in front
        assert kilt_success_rate_at_k(ranked, evidence, len(evidence)) == 1


def test_kilt_refuses_bad_arguments() -> None:
    for evidence in ([], [set()]):
        with pytest.raises(ConfigurationError, match="evidence_sets is empty"):
            kilt_r_precision([1], evidence)
        with pytest.raises(ConfigurationError, match="evidence_sets is empty"):
            kilt_score(1.0, [1], evidence)
    with pytest.raises(ConfigurationError, match="k=0"):
        kilt_recall_at_k([1], [{1}], 0)


def test_answer_recall_grows_with_depth() -> None:
    passages = ["nothing", "Paris is here", "so is Lyon"]
    assert [answer_recall_at_k(passages, ["Lyon", "Paris"], k) for k in (1, 2, 3, 9)] == [0.0, 1.0, 1.0, 1.0]
    assert answer_recall_at_k(passages, ["Lyon"], 2) == 0.0
    assert answer_recall_at_k(passages, [r"ly\w+"], 3, patterns=True) == 1.0
    assert answer_recall_at_k([], ["Lyon"], 3) == 0.0
    with pytest.raises(ConfigurationError, match="golds is empty"):
        answer_recall_at_k([], [], 1)
    with pytest.raises(ConfigurationError, match="k=0"):
        answer_recall_at_k(["text"], ["text"], 0)

"""KILT's scores, worked by hand from its definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragweave.errors import ConfigurationError
from ragweave.evaluation.metrics import (
    exact_match,
    f1,
    hit_at_k,
    kilt_r_precision,
    kilt_recall_at_k,
    kilt_score,
    kilt_success_rate_at_k,
    r_precision,
    recall_at_k,
)

RANKED = st.lists(st.integers(0, 8), max_size=10)
EVIDENCE = st.lists(st.sets(st.integers(0, 8), min_size=1, max_size=3), min_size=1, max_size=3)
DEPTHS = st.integers(1, 8)


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
def test_r_precision(ranked: list[int], evidence: list[set[int]], expected: float) -> None:
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
        ([1, 1, 2], [{2}], 2, 1.0),  # a page that comes again is no point
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


@given(RANKED, st.sets(st.integers(0, 8), min_size=1, max_size=4), DEPTHS)
def test_sets_of_one_page_are_plain_ranking(ranked: list[int], gold: set[int], k: int) -> None:
    evidence = [{page} for page in gold]
    assert kilt_recall_at_k(ranked, evidence, k) == pytest.approx(recall_at_k(ranked, gold, k))
    assert kilt_success_rate_at_k(ranked, evidence, k) == hit_at_k(ranked, gold, k)
    assert kilt_r_precision(ranked, [gold]) == r_precision(ranked, gold)


@given(RANKED, EVIDENCE, DEPTHS)
def test_bounds_and_order(ranked: list[int], evidence: list[set[int]], k: int) -> None:
    recall = kilt_recall_at_k(ranked, evidence, k)
    assert 0 <= recall <= 1
    assert recall <= kilt_recall_at_k(ranked, evidence, k + 1)
    assert kilt_r_precision(ranked, evidence) == kilt_r_precision(ranked, evidence[::-1])
    assert kilt_score(0.5, ranked, evidence) == 0.5 * (kilt_r_precision(ranked, evidence) == 1)
    if kilt_r_precision(ranked, evidence) == 1:  # a whole set in front
        assert kilt_success_rate_at_k(ranked, evidence, len(evidence)) == 1


def test_bad_arguments() -> None:
    for evidence in ([], [set()]):
        with pytest.raises(ConfigurationError, match="evidence_sets is empty"):
            kilt_r_precision([1], evidence)
        with pytest.raises(ConfigurationError, match="evidence_sets is empty"):
            kilt_score(1.0, [1], evidence)
    with pytest.raises(ConfigurationError, match="k=0"):
        kilt_recall_at_k([1], [{1}], 0)

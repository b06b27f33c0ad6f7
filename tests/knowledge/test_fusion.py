"""The best scores, and reciprocal rank fusion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragweave.knowledge.bm25 import best
from ragweave.knowledge.knowledge_base_index import reciprocal_rank_fusion

SCORES = st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0, 3.5]), max_size=20)
RANKINGS = st.lists(st.lists(st.integers(0, 12), unique=True, max_size=8), max_size=4)


@given(SCORES, st.integers(0, 25))
def test_best_is_a_sort_that_leaves_out_what_is_not_there(scores, n):
    order = sorted(
        (row for row, score in enumerate(scores) if score > -np.inf), key=lambda row: (-scores[row], row)
    )
    assert best(np.array(scores, dtype=np.float32), n).tolist() == order[:n]


@given(RANKINGS)
def test_reciprocal_ranks_become_log_probabilities(rankings):
    rows, scores = reciprocal_rank_fusion([np.array(own, dtype=np.int64) for own in rankings])
    fused = {
        row: sum(1 / (60 + own.index(row) + 1) for own in rankings if row in own)
        for row in {row for own in rankings for row in own}
    }
    assert rows.tolist() == sorted(fused, key=lambda row: (-round(fused[row], 12), row))
    assert np.exp(scores) == pytest.approx([fused[row] for row in rows], rel=1e-5)

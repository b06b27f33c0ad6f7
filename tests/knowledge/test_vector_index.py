"""Kinds of FAISS indexes: each is built and opened, and its recall is the one that was measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragweave.knowledge.vector_index import (
    LiveIndex,
    factory_of,
    least_recall,
    measure,
    read_index,
    search_all,
    search_live,
    write_index,
)

COUNT, DIMENSION = 12_000, 16


@pytest.fixture(scope="module")
def vectors():
    generator = np.random.default_rng(0)
    # Around some centres, as texts about some subjects are.
    centres = generator.normal(size=(200, DIMENSION))
    points = centres[generator.integers(0, 200, COUNT)] + 0.4 * generator.normal(size=(COUNT, DIMENSION))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "words", "least", "parameters"),
    [
        ("hnsw", "HNSW32", 0.95, {"efSearch": 64}),
        ("sq8", "SQ8", 0.95, {}),
        pytest.param(
            "ivfpq", "OPQ16,IVF307,PQ16", 0.6, {"nprobe": 32}, marks=pytest.mark.slow
        ),  # OPQ trains long
        ("IVF64,Flat", "IVF64,Flat", 0.9, {"nprobe": 16}),
    ],
)
def test_what_an_index_finds_is_what_was_measured_when_it_was_built(
    tmp_path, vectors, kind, words, least, parameters
):
    factory = factory_of(kind, COUNT, DIMENSION)
    assert factory == words
    recall, breadth = write_index(tmp_path / "index.faiss", vectors, factory, parameters)
    assert min(recall.values()) >= least and breadth == 1
    index = read_index(tmp_path / "index.faiss", parameters)
    questions = vectors[::97] + np.float32(0.01)
    searched = LiveIndex(index, vectors, np.ones(COUNT, dtype=bool), parameters)
    for k in (5, 50, 100):
        exact, found = search_all(questions, vectors, k)[1], searched.search(questions, k)[1]
        assert share_of(exact, found) == pytest.approx(recall[str(k)], abs=0.1)
    assert measure(index, vectors, np.ones(COUNT, dtype=bool), parameters) == (recall, 1)


def share_of(exact, found):
    """The share of rows that were found."""
    pairs = zip(exact.tolist(), found.tolist(), strict=True)
    return sum(len(set(one) & set(other)) for one, other in pairs) / exact.size


def test_a_broader_search_reaches_the_recall(tmp_path):
    """Vectors without any structure lie in all lists."""
    vectors = np.random.default_rng(0).normal(size=(6000, 64)).astype(np.float32)
    write_index(tmp_path / "index.faiss", vectors, "IVF100,Flat", {})
    index, is_live = read_index(tmp_path / "index.faiss", {}), np.arange(6000) % 10 > 0
    narrow, _ = measure(index, vectors, is_live, {})
    recall, breadth = measure(index, vectors, is_live, {}, least=0.95)
    assert min(narrow.values()) < 0.95 <= min(recall.values()) and breadth > 1
    live, questions = np.flatnonzero(is_live), vectors[::97] + np.float32(0.01)
    exact = live[search_all(questions, vectors[live], 100)[1]]
    found = LiveIndex(index, vectors, is_live, {}, breadth).search(questions, 100)[1]
    assert share_of(exact, found) == pytest.approx(recall["100"], abs=0.05)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), share=st.sampled_from([0.0, 0.001, 0.3, 0.99, 1.0]), k=st.integers(1, 40))
def test_live_rows_are_compared_in_blocks(seed, share, k):
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(700, 4)).astype(np.float32)
    is_live = generator.random(700) >= share
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ragweave.knowledge.vector_index._BLOCK", 128)
        scores, rows = search_live(points[:5], points, is_live, k)
    products = np.where(is_live, points[:5] @ points.T, -np.inf)
    expected = np.sort(products, axis=1)[:, ::-1][:, :k]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert ((rows >= 0) == np.isfinite(expected)).all() and is_live[rows[rows >= 0]].all()


@pytest.mark.parametrize(("kind", "largest"), [("sq8", 65), ("binary", 18)])
def test_compressed_vectors_are_compared_again_by_whole_ones(tmp_path, kind, largest):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(COUNT, 64)).astype(np.float32)  # without structure: the hardest case
    path, least = tmp_path / "index.faiss", least_recall(kind)
    recall, breadth = write_index(path, vectors, factory_of(kind, COUNT, 64), {}, least=least)
    assert min(recall.values()) >= 0.95
    assert (breadth > 1) == (kind == "binary")
    assert path.stat().st_size <= COUNT * largest + 64 * 64 * 4
    is_live = generator.random(COUNT) < 0.7
    questions, live = vectors[::500], np.flatnonzero(is_live)
    scores, rows = LiveIndex(read_index(path, {}), vectors, is_live, {}, breadth).search(questions, 50)
    exact, nearest = search_all(questions, np.ascontiguousarray(vectors[live]), 50)
    assert is_live[rows].all()
    assert np.mean([len(set(a) & set(b)) for a, b in zip(rows, live[nearest], strict=True)]) >= 0.94 * 50
    np.testing.assert_allclose(scores, np.einsum("bd,bkd->bk", questions, vectors[rows]), rtol=1e-5)
    assert (scores <= exact + 1e-3).all()


def test_ivfpq_compares_all_where_there_is_too_little_to_train_on():
    assert factory_of("ivfpq", 5_000, DIMENSION) == "Flat"


@pytest.fixture(
    scope="module",
    params=[
        *("hnsw", "sq8", "IVF64,Flat", "IVF32,PQ16x4,RFlat", "PCAR16,SQ8"),
        pytest.param("OPQ8,PQ8", marks=pytest.mark.slow),  # OPQ trains long
    ],
)
def index(request, tmp_path_factory, vectors):
    path = tmp_path_factory.mktemp("kind") / "index.faiss"
    write_index(path, vectors, factory_of(request.param, COUNT, DIMENSION), {})
    return read_index(path, {})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 9),
    share=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999]),
    k=st.sampled_from([1, 5, 50, 100]),
    near=st.booleans(),
)
def test_live_rows_are_found_however_many_were_deleted(index, vectors, seed, share, k, near):
    """K live rows come back, with their own scores, and nearly all of them are the nearest ones."""
    generator = np.random.default_rng(seed)
    questions = vectors[generator.integers(0, COUNT, 20)] + np.float32(0.02)
    is_live = generator.random(COUNT) >= share
    if near:  # those are deleted that would be found first
        is_live[search_all(questions, vectors, 200)[1].ravel()] = False
    live = np.flatnonzero(is_live)
    if len(live) < k:
        return
    scores, rows = LiveIndex(index, vectors, is_live, {}).search(questions, k)
    assert is_live[rows].all()
    assert all(len(set(found)) == k for found in rows.tolist())
    expected = live[search_all(questions, np.ascontiguousarray(vectors[live]), k)[1]]
    hits = [len(set(one) & set(other)) for one, other in zip(rows.tolist(), expected.tolist(), strict=True)]
    assert np.mean(hits) / k >= 0.9
    assert np.all(np.diff(scores, axis=1) <= 1e-6)

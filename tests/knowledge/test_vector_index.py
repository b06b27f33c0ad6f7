"""Kinds of FAISS indexes: each is built and opened, and its recall is the one that was measured."""

from __future__ import annotations

import numpy as np
import pytest

from ragweave.knowledge.vector_index import factory_of, read_index, search_all, write_index

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
    measured = write_index(tmp_path / "index.faiss", vectors, factory, parameters)
    assert measured >= least
    index = read_index(tmp_path / "index.faiss", parameters)
    questions = vectors[::97] + np.float32(0.01)
    exact = search_all(questions, vectors, 10)[1]
    approximate = index.search(questions, 10)[1]
    shares = [
        len(set(one) & set(other)) / 10
        for one, other in zip(exact.tolist(), approximate.tolist(), strict=True)
    ]
    assert np.mean(shares) == pytest.approx(measured, abs=0.1)


def test_ivfpq_compares_all_where_there_is_too_little_to_train_on():
    assert factory_of("ivfpq", 5_000, DIMENSION) == "Flat"

"""Indexes against transformers', on the same files: the same ids, vectors and texts.

transformers has two that still open: CustomHFIndex and LegacyIndex. Its CanonicalHFIndex needs the loading
script of wiki_dpr, which datasets runs no more; ours is held against CustomHFIndex over the same passages.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.models.rag import retrieval_rag

from ragweave import DatasetIndex
from ragweave.retrieval.canonical import CanonicalHFIndex
from ragweave.retrieval.legacy import LegacyIndex
from tests.support import indexes, retrieval
from tests.support.indexes import D

pytestmark = pytest.mark.usefixtures("quiet_transformers")


def assert_equal(theirs: Any, ours: Any, asked: np.ndarray, n_docs: int) -> None:
    ids, vectors = theirs.get_top_docs(asked, n_docs)
    own_ids, own_vectors = ours.get_top_docs(asked, n_docs)
    assert np.array_equal(own_ids, ids)
    assert np.array_equal(own_vectors, vectors)
    assert (own_ids.dtype, own_vectors.dtype, own_vectors.shape) == (ids.dtype, vectors.dtype, vectors.shape)
    for doc, own in zip(theirs.get_doc_dicts(ids), ours.get_doc_dicts(own_ids), strict=True):
        for name in ("title", "text"):
            assert own[name] == list(doc[name])


@pytest.fixture(scope="module", params=indexes.FACTORIES)
def of_passages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' index over the released files' passages, saved; ours over that; ours over the files."""
    folder = tmp_path_factory.mktemp("passages")
    snapshot = indexes.write_wiki_dpr(folder / "snapshot")
    datasets.Dataset(indexes.table(range(indexes.N))).save_to_disk(str(folder / "saved"))
    (index_path,) = (snapshot / "index").glob(f"*{request.param}*")
    paths = str(folder / "saved"), str(index_path)
    name = "exact" if request.param == "HNSW128_SQ8-IP" else "compressed"
    found = (
        retrieval_rag.CustomHFIndex.load_from_disk(D, *paths),
        DatasetIndex.load_from_disk(D, *paths),
        CanonicalHFIndex(D, dataset_name=str(snapshot), index_name=name),
        CanonicalHFIndex(D, dataset_name=paths[0], index_path=paths[1]),
    )
    for index in found:
        index.init_index()
    yield found
    shutil.rmtree(folder)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n_questions=st.integers(1, 9), n_docs=st.integers(1, 30), seed=st.integers(0, 999))
def test_of_passages(of_passages: Any, n_questions: int, n_docs: int, seed: int) -> None:
    theirs, *ours = of_passages
    asked = retrieval.questions(n_questions, seed=seed)
    for own in ours:
        assert_equal(theirs, own, asked, n_docs)


@pytest.fixture(scope="module")
def legacy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return indexes.write_legacy(tmp_path_factory.mktemp("legacy"))


@pytest.fixture
def legacy(legacy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, LegacyIndex]:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    found = retrieval_rag.LegacyIndex(D, str(legacy_folder)), LegacyIndex(D, str(legacy_folder))
    for index in found:
        index.init_index()
    return found


@pytest.mark.parametrize(("n_questions", "n_docs", "seed"), [(1, 1, 0), (3, 5, 1), (8, 20, 2), (20, 5, 3)])
def test_of_the_paper(legacy: tuple[Any, LegacyIndex], n_questions: int, n_docs: int, seed: int) -> None:
    assert_equal(*legacy, retrieval.questions(n_questions, seed=seed), n_docs)

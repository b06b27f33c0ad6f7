"""A version that was published to Milvus is read as its folder is."""

from __future__ import annotations

import numpy as np
import pytest

from ragweave import KnowledgeBase, SearchSettings
from ragweave.errors import ConfigurationError, KnowledgeBaseError

CONDITIONS = (
    "year >= 2020",
    "year == 2001",
    "year == 2001.0",
    "year != 2001",
    "not year > 1995",
    "year == 'unknown'",
    "year == None",
    "year != None",
    "lang == 'q\"\\\\'",
    "lang in ('en', 'de') and year < 2000",
    "lang not in ('en', 'de')",
    "lang in ()",
    "lang not in ()",
    "lang > 'dz'",
    "not (lang > 'dz' or 'a' in tags)",
    "'b' in tags",
    "'b' not in tags",
    "checked == True",
    "checked != True",
    "checked == 1",
    "title == 'Page 17'",
    "table_row == None",
    "line > 40 and line <= 60",
    "not line > 40",
    "page == None",
    "page != 3",
    "id == 7",
    "id != 7",
)


def names(base: KnowledgeBase, rows: np.ndarray) -> list[list[str]]:
    return [[base.passage(row).id for row in found if row >= 0] for found in rows.tolist()]


@pytest.fixture(scope="module")
def questions(folder, encoder) -> np.ndarray:
    return encoder.encode(["the capital of peru", "the danube in ulm", "number 17 of a river"])


def test_passages_and_vectors_are_those_of_the_folder(folder, published) -> None:
    assert len(published) == len(folder)
    rows = np.arange(len(folder))
    assert published.passages(rows) == folder.passages(rows)
    assert np.array_equal(published.vectors_of(rows), folder.vectors_of(rows))
    assert published.sources() == folder.sources()
    for source in folder.sources():
        assert published.storage.passage_of(source).source == source
    assert published.storage.passage_of("nowhere") is None
    assert published.document("pages.jsonl:3") == folder.document("pages.jsonl:3")
    assert published.rows_of(["17#0", "17", "nobody"]) == folder.rows_of(["17#0", "17", "nobody"])
    assert [p.id for part, _ in published.storage.shards() for p in part] == [
        p.id for p in folder.passages(rows)
    ]
    with pytest.raises(IndexError, match="There is no passage 99999"):
        published.passage(99_999)


def test_more_rows_than_milvus_returns_at_a_time(published, monkeypatch) -> None:
    names = [str(number) for number in range(500)]
    expected = published.rows_of(names)
    monkeypatch.setattr("ragweave.knowledge.milvus.reader._LIMIT", 100)
    assert published.rows_of(names) == expected
    assert all(expected.values())


@pytest.mark.parametrize("k", [1, 5, 100])
def test_search_finds_the_largest_inner_products(folder, published, questions, k: int) -> None:
    exact = np.sort(questions @ folder.vectors_of(np.arange(len(folder))).T)[:, ::-1][:, :k]
    scores, rows = published.search(questions, k)
    assert np.allclose(scores, exact, atol=1e-5)
    vectors = published.vectors_of(rows.ravel()).reshape(len(questions), k, -1)
    assert np.allclose(np.einsum("bd,bkd->bk", questions, vectors), scores, atol=1e-5)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_mean_what_they_mean_in_a_folder(folder, published, questions, condition: str) -> None:
    n = len(folder)
    expected = folder.search(questions[:1], n, where=condition)[1]
    _, rows = published.search(questions[:1], n, where=condition)
    assert sorted(names(published, rows)[0]) == sorted(names(folder, expected)[0])


@pytest.mark.parametrize(
    ("condition", "exact_rows"),
    [("year >= 1990", 0), ("lang == 'en'", 0), ("lang == 'en'", 2000), ("title == 'Page 17'", 2000)],
)
def test_the_nearest_passages_that_meet_a_condition(
    folder, uri, published, questions, condition: str, exact_rows: int, monkeypatch
) -> None:
    """Where they are few, all are compared; otherwise Milvus searches its index."""
    monkeypatch.setattr("ragweave.knowledge.milvus.reader._EXACT_ROWS", exact_rows)
    base = KnowledgeBase.open(uri)
    expected, _ = folder.search(questions, 5, where=condition)
    assert np.allclose(base.search(questions, 5, where=condition)[0], expected, atol=1e-5)
    base.close()


def test_unknown_names_in_conditions_are_refused(published, questions) -> None:
    with pytest.raises(ConfigurationError, match="No passage has the column colour"):
        published.search(questions, 5, where="colour == 'red'")


@pytest.mark.parametrize("where", [None, "lang == 'en'"])
@pytest.mark.parametrize("question", ["the capital of Peru", "river river number 17", "nothing", ""])
def test_bm25_scores_are_those_of_the_folder(folder, published, question: str, where: str | None) -> None:
    expected = folder.storage.text_scorer(k1=0.9, b=0.4, where=where)(question)
    scorer = published.storage.text_scorer(k1=0.9, b=0.4, where=where)(question)
    rows, scores = scorer.best(50)
    assert np.allclose(scores, expected.best(50)[1][: len(scores)], atol=1e-5)
    assert (expected.best(50)[1][len(scores) :] == 0).all()
    assert np.allclose(expected.of(rows), scores, atol=1e-5)
    some = np.arange(0, 900, 7)
    if where is None:
        assert np.allclose(scorer.of(some), expected.of(some), atol=1e-5)


def test_hybrid_search_and_the_index_of_the_retriever(folder, published, encoder, questions) -> None:
    settings = SearchSettings(kind="hybrid", candidates=len(folder))
    found = [
        base.as_index(settings).get_hits(
            questions, 5, questions=["capital of peru", "danube", "number 17"], doc_score_scale=1.0
        )
        for base in (folder, published)
    ]
    scores = [
        np.einsum("bd,bkd->bk", questions, hits.vectors) * hits.weights + hits.offsets for hits in found
    ]
    assert np.allclose(*scores, atol=1e-4)


def test_other_parameters_of_bm25_are_refused(published) -> None:
    with pytest.raises(ConfigurationError, match=r"for k1 0.9 and b 0.4"):
        published.search_text(["peru"], 5, k1=1.2)


def test_info_says_how_much_a_search_finds(published, uri) -> None:
    info = published.info()
    assert (info["path"], info["passages"], info["factory"]) == (uri, len(published), "HNSW32")
    assert min(info["recall"].values()) > 0.9
    assert "bytes" not in info


def test_a_published_version_is_read_only(published, uri, notes, encoder) -> None:
    for change in (
        lambda: published.add([notes], encoder=encoder),
        lambda: published.delete(ids=["17"]),
        lambda: published.compact(),
        lambda: KnowledgeBase.build([notes], uri, encoder=encoder, overwrite=True),
    ):
        with pytest.raises(KnowledgeBaseError, match="cannot be changed"):
            change()
    for action in (published.verify, published.versions):
        with pytest.raises(KnowledgeBaseError, match="is a database"):
            action()


def test_reading_creates_nothing(tmp_path) -> None:
    with pytest.raises(KnowledgeBaseError, match="There is no knowledge base at milvus://"):
        KnowledgeBase.open(f"milvus://{tmp_path}/none.db?collection=kb")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(KnowledgeBaseError, match=r"Milvus could not do this at milvus\+http://127.0.0.1:9"):
        KnowledgeBase.open("milvus+http://user:geheim@127.0.0.1:9?collection=kb")

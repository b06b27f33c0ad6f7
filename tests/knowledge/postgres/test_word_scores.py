"""BM25 and hybrid search in PostgreSQL score as in a folder."""

from __future__ import annotations

import numpy as np
import pytest

from ragweave import KnowledgeBase
from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.types import SearchSettings

QUESTIONS = ["the capital of peru", "river 4 ?", "danube danube", "漢 nothing"]


@pytest.fixture
def words(tmp_path):
    """Sixty passages with few different words."""
    chosen = ["capital", "river", "lima", "peru", "ulm", "danube", "rivers", "of"]
    generator = np.random.default_rng(0)
    lines = [f"{n},{' '.join(generator.choice(chosen, generator.integers(3, 9)))} {n}." for n in range(60)]
    (tmp_path / "words.csv").write_text("title,text\n" + "\n".join(lines) + "\n")
    return tmp_path / "words.csv"


@pytest.fixture
def both(uri, words, tiny_encoder, tmp_path):
    """The same passages in PostgreSQL and in a folder."""
    return tuple(KnowledgeBase.build([words], path, encoder=tiny_encoder) for path in (uri, tmp_path / "kb"))


def word_hits(base):
    """For each question, ids and scores of the passages that share a word, best first."""
    scores, rows = base.search_text(QUESTIONS, 60)
    assert np.isneginf(scores[rows < 0]).all()
    return [
        {base.passage(row).id: score for row, score in zip(hits, values, strict=True) if score > 0}
        for hits, values in zip(rows, scores, strict=True)
    ]


def test_scores_are_those_of_a_folder(both):
    postgres, folder = both
    expected = word_hits(folder)
    assert [bool(hits) for hits in expected] == [True, True, True, False]
    for mine, theirs in zip(word_hits(postgres), expected, strict=True):
        assert list(mine) == list(theirs)
        assert list(mine.values()) == pytest.approx(list(theirs.values()), rel=1e-4)


def test_what_was_deleted_is_not_found_and_does_not_count(both):
    postgres, folder = (base.delete(ids=["words.csv:9", "words.csv:12"]) for base in both)
    folder = folder.compact()  # which forgets the words of what was deleted
    for mine, theirs in zip(word_hits(postgres), word_hits(folder), strict=True):
        assert mine.keys() == theirs.keys()
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_what_is_added_is_found_at_once(both, tiny_encoder, tmp_path):
    postgres, _ = both
    (tmp_path / "new.txt").write_text("Zanzibar is an island.")
    postgres = postgres.add([tmp_path / "new.txt"], encoder=tiny_encoder)
    scores, rows = postgres.search_text(["islands, zanzibar"], 3)
    assert postgres.passage(rows[0, 0]).id == "new.txt#0"
    assert rows[0, 1:].tolist() == [-1, -1]
    assert scores[0, 0] > 0


@pytest.mark.parametrize(
    "settings", [{"kind": "bm25"}, {"kind": "hybrid"}, {"kind": "hybrid", "fusion": "rrf"}]
)
def test_hits_are_those_of_a_folder(both, settings, tiny_encoder):
    postgres, folder = both
    vectors = tiny_encoder.encode(QUESTIONS[:3])
    results = [
        base.as_index(SearchSettings(**settings)).get_hits(
            vectors, 3, questions=QUESTIONS[:3], doc_score_scale=3.0
        )
        for base in (postgres, folder)
    ]
    for mine, theirs in zip(*(hits.rows for hits in results), strict=True):
        first, second = postgres.passages(mine), folder.passages(theirs)
        assert [passage.id for passage in first] == [passage.id for passage in second]
    products = np.einsum("bd,bkd->bk", vectors, results[0].vectors)
    scores = results[0].weights * 3.0 * products + results[0].offsets
    assert (np.diff(scores) <= 1e-5).all()
    np.testing.assert_allclose(results[0].offsets, results[1].offsets, atol=1e-4)


def test_vectors_alone(uri, words, tiny_encoder):
    base = KnowledgeBase.build([words], uri, encoder=tiny_encoder, language=None)
    with pytest.raises(KnowledgeBaseError, match="vectors alone"):
        base.search_text(["river"], 3)
    assert (base.search(tiny_encoder.encode(["river"]), 3)[1] >= 0).all()
    assert len(base.add([words], encoder=tiny_encoder)) == 60


@pytest.mark.parametrize(("numbers", "message"), [({"k1": -1.0}, "0 or more"), ({"b": 2.0}, "from 0 to 1")])
def test_numbers_that_cannot_be(both, numbers, message):
    with pytest.raises(ConfigurationError, match=message):
        both[0].search_text(["river"], 3, **numbers)

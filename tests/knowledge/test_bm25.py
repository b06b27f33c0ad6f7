"""BM25 and its words: scores equal those of bm25s, over any division into segments and after every change."""

from __future__ import annotations

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragweave import KnowledgeBase
from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge import bm25
from ragweave.knowledge.bm25 import BM25, Analyzer, hashed
from ragweave.knowledge.layout import PostingFiles

TEXTS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12).map(" ".join), min_size=1, max_size=30)


def written(folder, texts, shard=1000):
    files = PostingFiles.in_folder(folder)
    shards = [texts[start : start + shard] for start in range(0, len(texts), shard)]
    bm25.write_postings(files, shards, Analyzer("none"), folder / "workshop")
    return bm25.Postings(files)


def peer_scores(texts, question, k1, b):
    peer = bm25s.BM25(method="lucene", k1=k1, b=b)
    peer.index([text.split() for text in texts], show_progress=False)
    known = [word for word in question.split() if word in peer.vocab_dict]
    return peer.get_scores(known) if known else np.zeros(len(texts))


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.lists(st.sampled_from("abcdefghz"), max_size=6).map(" ".join), st.integers(1, 7))
def test_scores_are_those_of_bm25s_however_the_texts_are_divided(tmp_path_factory, texts, question, segment):
    if not any(text.split() for text in texts):
        return
    parts = [
        written(tmp_path_factory.mktemp("postings"), texts[start : start + segment], shard=3)
        for start in range(0, len(texts), segment)
    ]
    scores = BM25(parts, k1=1.2, b=0.75).scores(question.split())
    assert scores == pytest.approx(peer_scores(texts, question, 1.2, 0.75), abs=1e-5)


def test_runs_are_merged_in_as_many_ranges_as_memory_wants(tmp_path, monkeypatch):
    texts = [f"word{n % 17} word{n % 5} word{n}" for n in range(200)]
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    whole = written(tmp_path / "one", texts)
    monkeypatch.setattr(bm25, "MERGED_AT_ONCE", 7)
    parts = written(tmp_path / "many", texts, shard=11)
    for name in ("words", "starts", "rows", "counts", "lengths"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
    assert not (tmp_path / "many" / "workshop").exists()


def test_words_are_found_by_their_stems_and_without_case():
    words = Analyzer("english").words
    assert words("The CAPITALS of Peru") == words("capital, Peru?")
    assert words("\uff46\uff55\uff4c\uff4c width 東京") == ["full", "width", "東", "京"]
    assert Analyzer("none").words("The capitals") == ["the", "capitals"]
    assert Analyzer("german").words("Häuser") == Analyzer("german").words("haus")
    assert len(np.unique(hashed(["a", "b", "ab", ""]))) == 4


def test_a_language_without_a_stemmer(tmp_path, sources, tiny_encoder):
    with pytest.raises(
        ConfigurationError, match=r"no stemmer for the language 'klingon'\. Choose none or one of"
    ):
        KnowledgeBase.build([sources], tmp_path / "kb", encoder=tiny_encoder, language="klingon")
    assert not (tmp_path / "kb").exists()


@pytest.fixture
def living(tmp_path, tiny_encoder):
    notes = tmp_path / "notes"
    notes.mkdir()
    for name, text in (
        ("peru", "Lima is the capital."),
        ("ulm", "Ulm lies on the Danube."),
        ("river", "The Nile."),
    ):
        (notes / f"{name}.txt").write_text(text)
    return KnowledgeBase.build([notes], tmp_path / "kb", encoder=tiny_encoder)


def texts_with_words_of(base, question, n=1):
    scores, rows = base.search_text([question], n)
    return [base.passage(row).text for row, score in zip(rows[0], scores[0], strict=True) if score > 0]


def test_search_by_words_follows_every_change(living, tmp_path, tiny_encoder):
    assert texts_with_words_of(living, "capitals of lima") == ["Lima is the capital."]
    assert texts_with_words_of(living, "zebra") == []
    (tmp_path / "more.txt").write_text("A zebra is no capital.")
    base = living.add([tmp_path / "more.txt"], encoder=tiny_encoder)
    assert texts_with_words_of(base, "zebra") == ["A zebra is no capital."]
    assert texts_with_words_of(base, "capital", 5) == ["Lima is the capital.", "A zebra is no capital."]
    base = base.delete(ids=["peru.txt"])
    assert texts_with_words_of(base, "capital", 5) == ["A zebra is no capital."]
    before = base.search_text(["zebra danube capital"], 3)
    base = base.compact()
    assert len(base.manifest.segments) == 1
    scores, rows = base.search_text(["zebra danube capital"], 3)
    assert [base.passage(row).text for row in rows[0]][:2] == [
        "A zebra is no capital.",
        "Ulm lies on the Danube.",
    ]
    assert scores.shape == before[0].shape
    assert texts_with_words_of(living, "capital", 5) == ["Lima is the capital."]


def test_passages_that_share_no_word_score_zero_and_those_that_are_not_there_nothing(living):
    scores, rows = living.search_text(["lima"], 5)
    assert (scores[0, 0] > 0, scores[0, 1:3].tolist(), scores[0, 3:].tolist()) == (
        True,
        [0, 0],
        [-np.inf] * 2,
    )
    assert sorted(rows[0, :3].tolist()) == [0, 1, 2]
    assert rows[0, 3:].tolist() == [-1, -1]


def test_a_knowledge_base_of_vectors_alone(tmp_path, sources, tiny_encoder):
    base = KnowledgeBase.build([sources], tmp_path / "kb", encoder=tiny_encoder, language=None)
    with pytest.raises(KnowledgeBaseError, match=r"by vectors alone\. Build it again with --overwrite"):
        base.search_text(["lima"], 1)
    base = base.add([sources], encoder=tiny_encoder)
    assert base.manifest.language is None


@pytest.mark.parametrize("wrong", [{"n": 0}, {"k1": -1}, {"k1": np.nan}, {"b": 1.1}])
def test_numbers_that_cannot_be(living, wrong):
    with pytest.raises(ConfigurationError):
        living.search_text(["lima"], **{"n": 1, **wrong})


def test_a_damaged_file_of_words_is_found_when_opened(living):
    path = living.path / "segments" / "000001" / "word_starts.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(KnowledgeBaseError, match=r"word_starts\.npy"):
        KnowledgeBase.open(living.path)

"""The one way from questions to passages: what Retriever returns is what the index holds, scored as documented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragweave import MemoryIndex
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import ConfigurationError, IndexDataError, QuestionError
from ragweave.retrieval.index_protocol import Hits
from ragweave.retrieval.retriever import Retriever, passage_scores

TEXTS = ["Lima is in Peru.", "Nairobi is in Kenya.", "Bern is in Switzerland."]
QUESTIONS = ["Where is Lima?", "Where is Bern?"]


@pytest.fixture(scope="module")
def retriever(tiny_encoder: TextEncoder) -> Retriever:
    index = MemoryIndex(TEXTS, tiny_encoder.encode(TEXTS), titles=["Lima", "Nairobi", "Bern"])
    return Retriever(index, tiny_encoder, doc_score_scale=3.0)


def test_passages_scores_and_priors_agree(retriever: Retriever, tiny_encoder: TextEncoder) -> None:
    result = retriever.retrieve(QUESTIONS, 2)
    expected = 3.0 * tiny_encoder.encode(QUESTIONS) @ tiny_encoder.encode(TEXTS).T
    assert result.rows.tolist() == np.argsort(-expected, axis=1)[:, :2].tolist()
    assert result.scores == pytest.approx(np.take_along_axis(expected, result.rows, 1), abs=1e-5)
    for passages, rows, scores in zip(result.passages, result.rows, result.scores, strict=True):
        assert [passage.text for passage in passages] == [TEXTS[row] for row in rows]
        assert [passage.doc_score for passage in passages] == scores.tolist()
        priors = np.exp(scores) / np.exp(scores).sum()
        assert [passage.prior for passage in passages] == pytest.approx(priors, abs=1e-5)


def test_missing_passages_have_no_share(retriever: Retriever) -> None:
    result = retriever.retrieve(QUESTIONS, 5)
    assert (result.rows[:, 3:] == -1).all()
    assert np.isneginf(result.scores[:, 3:]).all()
    for passages, ranked in zip(result.passages, result.ranked_passages(), strict=True):
        assert passages[3:] == [None, None]
        assert len(ranked) == 3
        assert sum(passage.prior for passage in ranked) == pytest.approx(1, abs=1e-6)


def test_no_passage_at_all_is_no_error(retriever: Retriever) -> None:
    hits = Hits(np.full((1, 2), -1), np.zeros((1, 2, 16), np.float32))
    result = retriever.score(QUESTIONS[:1], hits)
    assert result.passages == [[None, None]]
    assert result.ranked_passages() == [()]


def test_a_selection_is_what_fewer_questions_and_passages_give(retriever: Retriever) -> None:
    selected = retriever.retrieve(QUESTIONS, 3).select([1], 2)
    alone = retriever.retrieve(QUESTIONS[1:], 2)
    assert selected.rows.tolist() == alone.rows.tolist()
    assert selected.scores == pytest.approx(alone.scores, abs=1e-6)
    assert selected.docs == alone.docs


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batches_do_not_change_the_result(retriever: Retriever, size: int) -> None:
    questions = [*QUESTIONS, *TEXTS]
    one = Retriever(retriever.index, retriever.encoder, 3.0, batch_size=size).retrieve(questions, 2)
    assert one.rows.tolist() == retriever.retrieve(questions, 2).rows.tolist()
    assert one.scores == pytest.approx(retriever.retrieve(questions, 2).scores, abs=1e-6)


def test_vectors_instead_of_questions(retriever: Retriever, tiny_encoder: TextEncoder) -> None:
    bare = Retriever(retriever.index, doc_score_scale=3.0)
    result = bare.retrieve(None, 2, vectors=tiny_encoder.encode(QUESTIONS))
    assert result.rows.tolist() == retriever.retrieve(QUESTIONS, 2).rows.tolist()
    with pytest.raises(ConfigurationError, match="question vectors"):
        bare.retrieve(QUESTIONS, 2)


@given(
    weights=st.none() | st.floats(0, 1),
    offsets=st.none() | st.floats(-5, 5),
    scale=st.floats(0.1, 30),
    seed=st.integers(0, 99),
)
def test_scores_are_the_documented_sum(
    weights: float | None, offsets: float | None, scale: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    questions, passages = draw.normal(size=(2, 4)), draw.normal(size=(2, 3, 4))
    arrays = [None if value is None else np.full((2, 3), value) for value in (weights, offsets)]
    scores = passage_scores(questions, passages, scale, *arrays)
    for b in range(2):
        for k in range(3):
            product = scale * float(questions[b] @ passages[b, k])
            expected = (1 if weights is None else weights) * product + (offsets or 0)
            assert scores[b, k] == pytest.approx(expected, abs=1e-9)


def test_mistakes_are_named(retriever: Retriever) -> None:
    with pytest.raises(ConfigurationError, match="n_docs is 0"):
        retriever.retrieve(QUESTIONS, 0)
    with pytest.raises(QuestionError, match="empty"):
        retriever.retrieve([" "], 1)
    with pytest.raises(QuestionError, match="tokens, but the encoder reads"):
        retriever.retrieve(["why " * 2000], 1)

    class Short(MemoryIndex):
        def get_top_docs(self, question_hidden_states, n_docs=5):
            rows, vectors = super().get_top_docs(question_hidden_states, n_docs)
            return rows[:, :1], vectors[:, :1]

    index = retriever.index
    short = Short(index.texts, index.embeddings)
    with pytest.raises(IndexDataError, match=r"shape \(2, 1\).*expected \(2, 2\)"):
        Retriever(short, retriever.encoder).retrieve(QUESTIONS, 2)

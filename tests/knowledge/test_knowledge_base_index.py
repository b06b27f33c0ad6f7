"""KnowledgeBaseIndex: which passages dense, BM25, hybrid and reranked search return, and how they are scored."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from ragweave import KnowledgeBase, RagConfig, RagPipeline, RagTokenForGeneration
from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.types import SearchSettings
from tests.support.pipelines import save_rag_model

SCALE = 3.0
QUESTIONS = ["the capital of peru", "river 4 ?", "danube"]


@pytest.fixture(scope="module")
def large(tmp_path_factory, tiny_encoder) -> KnowledgeBase:
    """Sixty passages in two segments, some of them deleted."""
    folder = tmp_path_factory.mktemp("large")
    words = ["capital", "river", "lima", "peru", "ulm", "danube", "is", "of"]
    generator = np.random.default_rng(0)
    for part in ("first", "second"):
        lines = [f"{n},{' '.join(generator.choice(words, 5))} {n}." for n in range(30)]
        (folder / f"{part}.csv").write_text("title,text\n" + "\n".join(lines) + "\n")
    base = KnowledgeBase.build([folder / "first.csv"], folder / "kb", encoder=tiny_encoder)
    base = base.add([folder / "second.csv"], encoder=tiny_encoder)
    return base.delete(ids=["first.csv:4", "second.csv:9"])


@pytest.fixture(scope="module")
def vectors(tiny_encoder):
    return tiny_encoder.encode(QUESTIONS)


def everything(base, vectors, question):
    """Dense logits and BM25 scores of all rows: slow and plain."""
    dense = SCALE * base.vectors_of(range(60)) @ vectors[question]
    return dense, base.text_scorer()(QUESTIONS[question]).values


def hits(base, vectors, n, **settings):
    index = base.as_index(SearchSettings(**settings))
    return index.get_hits(vectors, n, questions=QUESTIONS, doc_score_scale=SCALE)


def scores_of(retrieved, vectors):
    products = np.einsum("bd,bkd->bk", vectors, retrieved.vectors)
    return retrieved.weights * SCALE * products + retrieved.offsets


def test_dense_hits_are_scored_by_inner_products_alone(large, vectors):
    retrieved = hits(large, vectors, 5)
    assert np.array_equal(retrieved.rows, large.search(vectors, 5)[1])
    assert (retrieved.weights, retrieved.offsets) == (None, None)


def test_bm25_scores_are_the_logits(large, vectors):
    retrieved = hits(large, vectors, 4, kind="bm25")
    scores, rows = large.search_text(QUESTIONS, 4)
    assert np.array_equal(retrieved.rows, rows)
    assert scores_of(retrieved, vectors) == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("candidates", [1, 60])
def test_a_weighted_hybrid_pools_both_distributions(large, vectors, weight, candidates):
    retrieved = hits(large, vectors, 5, kind="hybrid", dense_weight=weight, candidates=candidates)
    scores = scores_of(retrieved, vectors)
    for question in range(3):
        dense, lexical = everything(large, vectors, question)
        pooled = np.where(lexical >= 0, weight * dense + (1 - weight) * lexical.clip(0), -np.inf)
        rows = retrieved.rows[question]
        assert scores[question] == pytest.approx(pooled[rows], abs=1e-4)
        assert (np.diff(scores[question]) <= 1e-5).all()
        if candidates == 60:
            assert scores[question] == pytest.approx(np.sort(pooled)[::-1][:5], abs=1e-4)
        # p(z|x) is the product of both distributions, to the power of their weights.
        both = torch.softmax(torch.tensor(dense[rows]), 0) ** weight
        both = both * torch.softmax(torch.tensor(lexical[rows]), 0) ** (1 - weight)
        expected = torch.softmax(torch.tensor(scores[question]), 0)
        assert torch.allclose(both / both.sum(), expected, atol=1e-5)


def test_reciprocal_ranks_are_the_probabilities(large, vectors):
    retrieved = hits(large, vectors, 5, kind="hybrid", fusion="rrf", candidates=60)
    for question in range(3):
        dense, lexical = everything(large, vectors, question)
        live = lexical > -np.inf
        ranks = np.full((2, 60), np.inf)
        for number, scores in enumerate((dense, lexical)):
            rows = [row for row in np.lexsort((np.arange(60), -scores)) if live[row]]
            ranks[number, [row for row in rows if number == 0 or lexical[row] > 0]] = range(
                1, 1 + len([row for row in rows if number == 0 or lexical[row] > 0])
            )
        fused = (1 / (60 + ranks)).sum(0)
        rows = retrieved.rows[question]
        assert fused[rows] == pytest.approx(np.sort(fused)[::-1][:5], abs=1e-7)
        shares = np.exp(scores_of(retrieved, vectors)[question])
        assert shares / shares.sum() == pytest.approx(fused[rows] / fused[rows].sum(), abs=1e-6)


class Alphabetical:
    """Prefers passages whose texts come late."""

    def score(self, questions, docs):
        return [
            np.array([float(sorted(doc["text"]).index(text)) for text in doc["text"]], np.float32)
            for doc in docs
        ]


@pytest.mark.parametrize("kind", ["dense", "bm25", "hybrid"])
def test_a_reranker_chooses_among_the_candidates(large, vectors, kind):
    index = large.as_index(SearchSettings(kind=kind, candidates=12), reranker=Alphabetical())
    plain = large.as_index(SearchSettings(kind=kind, candidates=12))
    retrieved = index.get_hits(vectors, 3, questions=QUESTIONS, doc_score_scale=SCALE)
    candidates = plain.get_hits(vectors, 12, questions=QUESTIONS, doc_score_scale=SCALE)
    for question in range(3):
        texts = [large.passage(row).text for row in candidates.rows[question]]
        chosen = [large.passage(row).text for row in retrieved.rows[question]]
        assert chosen == sorted(texts, reverse=True)[:3]
        assert scores_of(retrieved, vectors)[question].tolist() == [11, 10, 9]


def test_more_than_there_are(base, tiny_encoder):
    vectors = tiny_encoder.encode(QUESTIONS)
    for settings in ({"kind": "bm25"}, {"kind": "hybrid"}, {"kind": "hybrid", "fusion": "rrf"}):
        retrieved = hits(base, vectors, len(base) + 2, **settings)
        assert (retrieved.rows[:, -2:] == -1).all()
        assert (retrieved.rows[:, :-2] >= 0).all() or settings.get("fusion") == "rrf"
        assert not retrieved.vectors[retrieved.rows < 0].any()


def test_questions_are_needed_for_their_words(large, vectors):
    index = large.as_index(SearchSettings(kind="bm25"))
    with pytest.raises(ConfigurationError, match="question_strings"):
        index.get_hits(vectors, 3, questions=None, doc_score_scale=SCALE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "sparse"},
        {"fusion": "sum"},
        {"dense_weight": 1.5},
        {"dense_weight": float("nan")},
        {"candidates": 0},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        SearchSettings(**wrong)


def test_a_knowledge_base_of_vectors_alone_is_refused_at_once(tmp_path, sources, tiny_encoder):
    base = KnowledgeBase.build([sources], tmp_path / "kb", encoder=tiny_encoder, language=None)
    with pytest.raises(KnowledgeBaseError, match="vectors alone"):
        base.as_index(SearchSettings(kind="hybrid"))


@pytest.fixture(scope="module")
def model_path(tmp_path_factory, tiny_encoder_path):
    return save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path)


@pytest.mark.parametrize("kind", ["dense", "bm25", "hybrid"])
def test_pipeline_and_model_score_alike_and_keep_their_way_of_searching(large, model_path, kind):
    settings = SearchSettings(kind=kind, candidates=20)
    pipeline = RagPipeline.from_pretrained(model_path, knowledge_base=large, search=settings, dtype="float32")
    answer = pipeline(QUESTIONS[0], n_docs=4, max_new_tokens=3)
    model = RagTokenForGeneration.from_pretrained(model_path, retriever=pipeline.retriever).eval()
    encoded = pipeline.encoder.tokenizer([QUESTIONS[0]], return_tensors="pt")
    with torch.no_grad():
        output = model(
            encoded["input_ids"], encoded["attention_mask"], n_docs=4, labels=torch.tensor([[5, 6, 2]])
        )
    expected = sorted(passage.doc_score for passage in answer.passages)
    assert sorted(output.doc_scores[0].tolist()) == pytest.approx(expected, abs=1e-4)
    assert pipeline.refresh() is False
    assert pipeline.retriever.index.settings == settings.resolved()


@pytest.fixture
def hybrid_model(tmp_path, model_path):
    """A model that searches by words and vectors by default."""
    folder = shutil.copytree(model_path, tmp_path / "hybrid-model")
    RagConfig.from_pretrained(folder, retrieval="hybrid", dense_weight=0.25).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("search", "kind", "weight"),
    [
        (None, "hybrid", 0.25),
        (SearchSettings(), "hybrid", 0.25),
        (SearchSettings(dense_weight=0.75), "hybrid", 0.75),
        (SearchSettings("hybrid"), "hybrid", 0.25),
        (SearchSettings("dense"), "dense", 0.25),
        (SearchSettings("bm25", dense_weight=0.0), "bm25", 0.0),
    ],
)
def test_what_is_left_open_of_the_search_is_as_the_model_says(large, hybrid_model, search, kind, weight):
    pipeline = RagPipeline.from_pretrained(
        hybrid_model, knowledge_base=large, search=search, reranker=Alphabetical(), dtype="float32"
    )
    settings = pipeline.retriever.index.settings
    assert (settings.kind, settings.dense_weight) == (kind, weight)
    assert isinstance(pipeline.retriever.index.reranker, Alphabetical)


def test_a_model_that_wants_words_takes_vectors_where_there_are_no_words(
    tmp_path, tiny_encoder, hybrid_model
):
    (tmp_path / "a.csv").write_text("title,text\nPeru,The capital of Peru is Lima.\n")
    base = KnowledgeBase.build(
        [tmp_path / "a.csv"], tmp_path / "vectors", encoder=tiny_encoder, language=None
    )
    pipeline = RagPipeline.from_pretrained(hybrid_model, knowledge_base=base, dtype="float32")
    assert pipeline.retriever.index.settings.kind == "dense"
    with pytest.raises(KnowledgeBaseError, match="vectors alone"):
        RagPipeline.from_pretrained(hybrid_model, knowledge_base=base, search=SearchSettings("hybrid"))


def test_a_pipeline_searches_as_each_version_of_its_knowledge_base_can(tmp_path, tiny_encoder, hybrid_model):
    (tmp_path / "a.csv").write_text("title,text\nPeru,The capital of Peru is Lima.\n")
    sources, folder = [tmp_path / "a.csv"], tmp_path / "kb"
    base = KnowledgeBase.build(sources, folder, encoder=tiny_encoder, language=None)
    pipeline = RagPipeline.from_pretrained(hybrid_model, knowledge_base=base, dtype="float32")
    for language, kind in (("english", "hybrid"), (None, "dense")):
        KnowledgeBase.build(sources, folder, encoder=tiny_encoder, language=language, overwrite=True)
        assert pipeline.refresh()
        assert pipeline.retriever.index.settings.kind == kind
        assert pipeline("peru", n_docs=1, max_new_tokens=2).passages


def test_gradient_reaches_the_question_encoder_through_a_hybrid(large, model_path):
    pipeline = RagPipeline.from_pretrained(
        model_path, knowledge_base=large, search=SearchSettings(kind="hybrid"), dtype="float32"
    )
    model = RagTokenForGeneration.from_pretrained(model_path, retriever=pipeline.retriever)
    encoded = pipeline.encoder.tokenizer([QUESTIONS[0]], return_tensors="pt")
    model(
        encoded["input_ids"], encoded["attention_mask"], labels=torch.tensor([[5, 6, 2]])
    ).loss.sum().backward()
    assert any(
        weight.grad is not None and weight.grad.any() for weight in model.question_encoder.parameters()
    )

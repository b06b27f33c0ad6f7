"""Search by the words of a sparse encoder: weights as sentence-transformers', exact scores, all changes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder as Peer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoTokenizer, BertForMaskedLM
from typer.testing import CliRunner

from ragweave import KnowledgeBase, SearchSettings
from ragweave.cli import app
from ragweave.encoders.sparse_encoder import SparseEncoder
from ragweave.errors import ConfigurationError, EncoderMismatchError, ModelNotFoundError
from tests.support.encoders import tiny_bert, write_json

TEXTS = ["lima is the capital of peru", "", "a river", "peru " * 100, "ulm lies on the danube"]
QUESTIONS = ["capital of peru", "river"]
ERROR = 0.02  # weights are rounded to 1/1024, and scores are sums of some ten products


def save_tiny_splade(folder, tokenizer_folder, seed=0):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(seed)
    config = tiny_bert(len(tokenizer))
    BertForMaskedLM(config).save_pretrained(folder / "bare")
    tokenizer.save_pretrained(folder / "bare")
    modules = [
        Transformer(str(folder / "bare"), transformer_task="fill-mask", max_seq_length=40),
        SpladePooling(),
    ]
    prompts = {"query": "the ", "document": "of "}
    Peer(modules=modules, prompts=prompts, device="cpu").save_pretrained(str(folder / "splade"))
    return folder / "splade"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_encoder_path):
    return save_tiny_splade(tmp_path_factory.mktemp("sparse"), tiny_encoder_path)


@pytest.fixture
def peer(folder):
    return Peer(str(folder), device="cpu")


def dense(encoder, texts, **options):
    weights = np.zeros((len(texts), encoder.model.config.vocab_size), np.float32)
    rows, words, values = encoder.encode(texts, **options)
    assert (np.diff(rows) >= 0).all() and (values > 0).all()
    weights[rows, words] = values
    return weights


def test_weights_are_those_of_sentence_transformers(folder, peer):
    encoder = SparseEncoder.from_pretrained(folder)
    assert encoder.max_length == 40
    expected = peer.encode_document(TEXTS, convert_to_sparse_tensor=False).numpy()
    np.testing.assert_allclose(dense(encoder, TEXTS), expected, atol=1e-5)
    asked = dense(encoder, QUESTIONS, prompt=encoder.question_prompt)
    expected = peer.encode_query(QUESTIONS, convert_to_sparse_tensor=False).numpy()
    np.testing.assert_allclose(asked, expected, atol=1e-5)
    bare = SparseEncoder.from_pretrained(folder.parent / "bare")
    np.testing.assert_allclose(dense(bare, ["of a river"]), dense(encoder, ["a river"]), atol=1e-5)
    assert encoder.encode([])[0].shape == (0,)


def test_other_sparse_encoders_are_refused(tmp_path, tiny_encoder_path):
    folder = save_tiny_splade(tmp_path, tiny_encoder_path)
    with pytest.raises(ConfigurationError, match=r"\(Normalize, Pooling\)"):
        SparseEncoder.from_pretrained(tiny_encoder_path)
    shutil.copytree(tiny_encoder_path, tmp_path / "encoder")
    (tmp_path / "encoder" / "modules.json").unlink()
    with pytest.raises(ModelNotFoundError, match="weights of a masked language model"):
        SparseEncoder.from_pretrained(tmp_path / "encoder")
    pooling = next(folder.glob("*SpladePooling")) / "config.json"
    write_json(pooling, {"pooling_strategy": "sum", "activation_function": "relu"})
    with pytest.raises(ConfigurationError, match="pooling 'sum'"):
        SparseEncoder.from_pretrained(folder)
    shutil.copytree(folder.parent / "bare", tmp_path / "cosine")
    write_json(tmp_path / "cosine" / "modules.json", [])
    write_json(tmp_path / "cosine" / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    with pytest.raises(ConfigurationError, match="cosines"):
        SparseEncoder.from_pretrained(tmp_path / "cosine")
    write_json(folder / "modules.json", [{"type": "sentence_transformers.base.modules.Router", "path": ""}])
    with pytest.raises(ConfigurationError, match=r"\(Router\)"):
        SparseEncoder.from_pretrained(folder)


def check_scores(base, peer):
    """All scores are inner products of the peer's weights, also after changes."""
    ids = [passage.id for shard, _ in base.storage.shards() for passage in shard]
    passages = {row: base.passage(row) for row in sorted(row for one in ids for row in base.row_of(one))}
    texts = [f"{passage.title}\n{passage.text}" for passage in passages.values()]
    documents = peer.encode_document(texts, convert_to_sparse_tensor=False).numpy()
    expected = peer.encode_query(QUESTIONS, convert_to_sparse_tensor=False).numpy() @ documents.T
    scores, rows = base.search_text(QUESTIONS, len(passages))
    for one, found, right in zip(scores, rows, expected, strict=True):
        assert sorted(found) == sorted(passages)
        in_order = one[np.argsort(found)]
        np.testing.assert_allclose(in_order, right, atol=ERROR)


def test_a_knowledge_base_searches_by_learned_words(folder, peer, notes, tmp_path, tiny_encoder):
    sparse = SparseEncoder.from_pretrained(folder)
    base = KnowledgeBase.build([notes], tmp_path / "kb", encoder=tiny_encoder, sparse=sparse)
    assert base.info()["sparse"] == str(folder)
    check_scores(KnowledgeBase.open(base.path), peer)
    (notes / "new.txt").write_text("The danube is a river of ulm.")
    base = base.add([notes / "new.txt"], encoder=tiny_encoder)
    check_scores(base, peer)
    base = base.delete(sources=[str(notes / "ulm.txt")])
    check_scores(base, peer)
    base = base.compact()
    assert base.manifest.sparse.fingerprint == sparse.fingerprint
    check_scores(base, peer)
    other = base.reembed(tmp_path / "other", encoder=tiny_encoder)
    check_scores(other, peer)


def test_hybrid_weighs_both_scores(folder, notes, tmp_path, tiny_encoder):
    sparse = SparseEncoder.from_pretrained(folder)
    base = KnowledgeBase.build([notes], tmp_path / "kb", encoder=tiny_encoder, sparse=sparse)
    (question,) = QUESTIONS[:1]
    settings = SearchSettings("hybrid", dense_weight=0.25)
    hits = base.search(question, 3, settings=settings, encoder=tiny_encoder)
    scores, rows = base.search_text([question], 3)
    by_words = dict(zip((base.passage(int(row)).id for row in rows[0]), scores[0], strict=True))
    products, rows = base.search(tiny_encoder.encode_questions([question]), 3)
    by_vectors = dict(zip((base.passage(int(row)).id for row in rows[0]), products[0], strict=True))
    for hit in hits:
        expected = 0.25 * 30 * by_vectors[hit.id] + 0.75 * by_words[hit.id]
        assert hit.doc_score == pytest.approx(expected, abs=1e-3)
    words = base.search(question, 3, settings=SearchSettings("bm25", where="document_id == 'ulm.txt'"))
    assert [hit.text for hit in words] == ["Ulm is on the danube."]


def test_another_encoder_under_the_name_is_refused(notes, tmp_path, tiny_encoder, tiny_encoder_path):
    folder = save_tiny_splade(tmp_path, tiny_encoder_path)
    sparse = SparseEncoder.from_pretrained(folder)
    base = KnowledgeBase.build([notes], tmp_path / "kb", encoder=tiny_encoder, sparse=sparse)
    save_tiny_splade(tmp_path, tiny_encoder_path, seed=1)
    with pytest.raises(EncoderMismatchError, match="weighed by the sparse encoder"):
        KnowledgeBase.open(base.path).search_text(QUESTIONS, 1)


def test_the_command(folder, notes, tmp_path, tiny_encoder_path, postgres):
    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    command = ["index", notes, "--model", tiny_encoder_path, "--sparse", folder]
    assert run(*command, "-o", tmp_path / "kb").exit_code == 0
    result = run("search", tmp_path / "kb", "--json", "--retrieval", "bm25", QUESTIONS[0])
    best = json.loads(result.stdout)["passages"][0]
    scores, _ = KnowledgeBase.open(tmp_path / "kb").search_text(QUESTIONS[:1], 1)
    assert best["doc_score"] == pytest.approx(scores[0, 0], abs=1e-4)
    assert "Leave out one" in run(*command, "-o", tmp_path / "b", "--vectors-only").stderr
    assert "only the words of BM25" in run(*command, "-o", postgres.uri()).stderr

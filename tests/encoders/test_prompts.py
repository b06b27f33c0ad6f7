"""Prompts and truncated vectors: as sentence-transformers, in knowledge bases, in models and in training."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from ragweave import KnowledgeBase, TextEncoder
from ragweave.cli import app
from ragweave.encoders.pooling import read_prompts
from ragweave.errors import ConfigurationError, ModelNotFoundError, QuestionError
from ragweave.training.collator import RagCollator
from ragweave.training.contrastive import TrainingPair, train_retriever
from ragweave.training.index_refresh import load_document_encoder
from ragweave.types import Example
from tests.support.encoders import write_json
from tests.support.pipelines import build_knowledge_base, save_rag_model
from tests.support.training import pipeline_of

QUESTIONS = ["capital of peru?", "the river"]
PASSAGES = ["lima is the capital of peru.", "ulm lies on the danube."]
FILE = "config_sentence_transformers.json"


@pytest.fixture
def folder(tiny_encoder_path, tmp_path):
    """A copy of the tiny encoder whose files define prompts."""
    copy = shutil.copytree(tiny_encoder_path, tmp_path / "encoder")
    write_json(copy / FILE, {"prompts": {"query": "query: ", "document": "passage: "}})
    return copy


def test_questions_and_passages_get_their_prompts(folder):
    encoder, peer = TextEncoder.from_pretrained(folder), SentenceTransformer(str(folder), device="cpu")
    assert (encoder.question_prompt, encoder.passage_prompt) == ("query: ", "passage: ")
    np.testing.assert_allclose(encoder.encode_questions(QUESTIONS), peer.encode_query(QUESTIONS), atol=1e-6)
    np.testing.assert_allclose(encoder.encode(PASSAGES), peer.encode_document(PASSAGES), atol=1e-6)
    titled = peer.encode(["passage: Peru. " + PASSAGES[0]])
    np.testing.assert_allclose(encoder.encode(PASSAGES[:1], titles=["Peru"]), titled, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ("", "")),
        ({"prompts": None}, ("", "")),
        ({"prompts": {"query": "q: "}}, ("q: ", "")),
        ({"prompts": {"query": "q: ", "passage": "p: "}}, ("q: ", "p: ")),
        ({"prompts": {"corpus": "c: ", "passage": "p: ", "document": "d: "}}, ("", "d: ")),
        ({"prompts": {"query": None, "document": ""}}, ("", "")),
        ({"prompts": {"any": "a: "}}, ("", "")),
        ({"prompts": {"any": "a: "}, "default_prompt_name": "any"}, ("a: ", "a: ")),
        ({"prompts": {"any": "a: ", "document": ""}, "default_prompt_name": "any"}, ("a: ", "")),
        ({"prompts": {"query": "q: "}, "default_prompt_name": "query"}, ("q: ", "")),
    ],
)
def test_which_prompt_is_whose(config, expected):
    assert read_prompts("model", config) == expected


@pytest.mark.parametrize("prompts", [["query: "], {"query": 5}])
def test_damaged_prompts(folder, prompts):
    write_json(folder / FILE, {"prompts": prompts})
    with pytest.raises(ModelNotFoundError, match="prompts are not named texts"):
        TextEncoder.from_pretrained(folder)


def test_prompts_left_out_of_the_pooling_are_refused(folder):
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean", "include_prompt": False})
    with pytest.raises(ConfigurationError, match="include_prompt"):
        TextEncoder.from_pretrained(folder)


def test_the_prompt_counts_as_tokens(folder):
    encoder = TextEncoder.from_pretrained(folder, max_length=9)
    assert encoder.question_length("lima") == encoder.token_count("query: lima") == 9
    assert encoder.passage_token_count("Peru", "lima") == encoder.token_count("passage: Peru. lima")
    with pytest.raises(QuestionError, match="encoder reads 9"):
        encoder.question_length("lima peru")


def test_a_file_that_asks_for_cosines_gives_vectors_of_length_one(folder):
    write_json(folder / "modules.json", json.loads((folder / "modules.json").read_text())[:2])
    for similarity, normalize in (("cosine", True), ("dot", False)):
        write_json(folder / FILE, {"similarity_fn_name": similarity})
        assert TextEncoder.from_pretrained(folder).normalize is normalize


@pytest.mark.parametrize("normalize", [True, False])
def test_truncated_vectors(folder, tmp_path, normalize):
    encoder = TextEncoder.from_pretrained(folder, dim=6, normalize=normalize)
    if not normalize:
        write_json(folder / "modules.json", json.loads((folder / "modules.json").read_text())[:2])
    peer = SentenceTransformer(str(folder), device="cpu", truncate_dim=6)
    expected = peer.encode_document(PASSAGES, normalize_embeddings=normalize)
    assert encoder.dimension == 6
    np.testing.assert_allclose(encoder.encode(PASSAGES), expected, atol=1e-6)
    encoder.save_pretrained(tmp_path / "saved")
    again = TextEncoder.from_pretrained(tmp_path / "saved")
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(again.encode_questions(QUESTIONS), encoder.encode_questions(QUESTIONS))
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    vectors = saved.encode_document(PASSAGES, normalize_embeddings=normalize)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_vectors_that_cannot_be_truncated(folder):
    with pytest.raises(ConfigurationError, match="number from 1 to 16"):
        TextEncoder.from_pretrained(folder, dim=17)
    with pytest.raises(ConfigurationError, match="dense layer"):
        TextEncoder.from_pretrained(folder, dim=8, pooling="pooler")
    write_json(folder / FILE, {"truncate_dim": "8"})
    with pytest.raises(ModelNotFoundError, match="truncate_dim is '8'"):
        TextEncoder.from_pretrained(folder)


def test_prompts_and_size_tell_encoders_apart(folder, tiny_encoder):
    settings = [{}, {"passage_prompt": ""}, {"dim": 8}, {"dim": 9}]
    encoders = [TextEncoder.from_pretrained(folder, **setting) for setting in settings]
    assert len({encoder.fingerprint for encoder in encoders}) == 4
    assert encoders[1].fingerprint == tiny_encoder.fingerprint


def test_a_knowledge_base_embeds_and_searches_with_its_settings(folder, tmp_path):
    (tmp_path / "notes").mkdir()
    for number, text in enumerate(PASSAGES):
        (tmp_path / "notes" / f"{number}.txt").write_text(text)

    def run(*arguments) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    kb = tmp_path / "kb"
    prompts = ["--question-prompt", "ask: ", "--passage-prompt", "river: "]
    run("index", tmp_path / "notes", "-o", kb, "--model", folder, "--dim", 6, *prompts)
    facts = json.loads(run("info", kb, "--json"))
    names = ("question_prompt", "passage_prompt", "dim", "dimension")
    assert [facts[name] for name in names] == ["ask: ", "river: ", 6, 6]
    (tmp_path / "notes" / "2.txt").write_text("peru is a river.")
    run("add", kb, tmp_path / "notes" / "2.txt")
    peer = SentenceTransformer(str(folder), device="cpu", truncate_dim=6)
    base = KnowledgeBase.open(kb)
    texts = [f"river: {one.title}. {one.text}" for one in base.passages(range(3))]
    expected = peer.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(base.vectors_of(range(3)), expected, atol=1e-6)
    hits = json.loads(run("search", kb, "--json", "capital of peru?"))["passages"]
    scores = 30 * expected @ peer.encode(["ask: capital of peru?"], normalize_embeddings=True)[0]
    assert [hit["doc_score"] for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-4)


def test_a_model_asks_as_its_knowledge_base_was_embedded(folder, tmp_path):
    model = save_rag_model(tmp_path / "model", folder)
    (tmp_path / "data").mkdir()
    encoder = TextEncoder.from_pretrained(folder, dim=6, name=str(folder))
    kb = KnowledgeBase.open(build_knowledge_base(tmp_path / "data", folder))
    cut = kb.reembed(tmp_path / "cut", encoder=encoder)
    pipeline = pipeline_of(model, cut)
    question = "Where is Lima?"
    vectors = encoder.encode_questions([question])
    np.testing.assert_allclose(pipeline.retrieve([question]).question_vectors, vectors, atol=1e-5)
    assert pipeline.encoder.fingerprint == cut.manifest.encoder.fingerprint
    batch = RagCollator(pipeline.retriever, causal=False)([Example("1", question, ("Peru",))])
    with torch.inference_mode():
        encoded = pipeline.model.rag.encode_question(batch["input_ids"], batch["attention_mask"])[0]
    np.testing.assert_allclose(encoded.numpy(), vectors, atol=1e-5)
    documents = load_document_encoder(cut, pipeline.encoder)
    np.testing.assert_allclose(documents.encode(PASSAGES), encoder.encode(PASSAGES), atol=1e-5)
    pipeline.model.save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (config["question_encoder_prompt"], config["question_encoder_dim"]) == ("query: ", 6)


def test_the_retriever_is_trained_with_prompts_on_the_dimensions_that_are_kept(folder, tmp_path):
    encoder = TextEncoder.from_pretrained(folder, dim=6)
    seen = {}

    def look(trainer):
        batch = trainer.data_collator([trainer.train_dataset[0]])
        for name in ("question", "positive", "negative_0"):
            ids = batch[f"{name}_input_ids"]
            seen[name] = encoder.tokenizer.batch_decode(ids, skip_special_tokens=True)[0].split()
        seen["dims"] = [*trainer.loss.matryoshka_dims]
        return nullcontext()

    pairs = [
        TrainingPair("Where is Lima?", "Peru", ("Chile",)),
        TrainingPair("And Ulm?", "Danube", ("Nile",)),
    ]
    before = encoder.encode(PASSAGES)
    train_retriever(encoder, pairs, tmp_path / "run", around=look, report_to=[], use_cpu=True, max_steps=1)
    assert not np.array_equal(encoder.encode(PASSAGES), before)
    # The tokens of "query", "passage" and "passage", which the tiny tokenizer spells.
    assert [seen[name][0] for name in ("question", "positive", "negative_0")] == ["q", "p", "p"]
    assert seen["dims"] == [6]

"""Reranker: the logits of a cross-encoder equal those of sentence-transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer, BertForSequenceClassification

from ragweave.encoders.cross_encoder import Reranker
from ragweave.errors import ConfigurationError, ModelNotFoundError
from tests.support.encoders import tiny_bert

DOCS = [
    {"title": ["Peru", "", "Ulm"], "text": ["Lima is the capital.", "A river", "On the danube " * 40]},
    {"title": ["Nile"], "text": ["The Nile is a river."]},
    {"title": [], "text": []},
]
QUESTIONS = ["capital of peru", "river", "nothing"]


def saved(folder, tokenizer_folder, labels):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(0)
    config = tiny_bert(len(tokenizer), num_labels=labels)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_logits_are_those_of_sentence_transformers(tmp_path, tiny_encoder_path):
    folder = saved(tmp_path, tiny_encoder_path, 1)
    scores = Reranker.from_pretrained(folder, batch_size=2).score(QUESTIONS, DOCS)
    assert [len(logits) for logits in scores] == [3, 1, 0]
    peer = CrossEncoder(str(folder), activation_fn=torch.nn.Identity(), device="cpu", max_length=64)
    pairs = [
        (question, f"{title} {text}".strip())
        for question, doc in zip(QUESTIONS, DOCS, strict=True)
        for title, text in zip(doc["title"], doc["text"], strict=True)
    ]
    assert np.concatenate(scores) == pytest.approx(peer.predict(pairs), abs=1e-5)


def test_two_labels_are_the_odds_of_the_second(tmp_path, tiny_encoder_path):
    folder = saved(tmp_path, tiny_encoder_path, 2)
    reranker = Reranker.from_pretrained(folder)
    logits = reranker.score(QUESTIONS[1:2], DOCS[1:2])[0]
    encoded = reranker.tokenizer("river", "Nile The Nile is a river.", return_tensors="pt")
    probability = torch.softmax(reranker.model(**encoded).logits[0], 0)[1].item()
    assert torch.sigmoid(torch.tensor(logits[0])).item() == pytest.approx(probability, abs=1e-5)


def test_models_that_are_no_cross_encoders(tmp_path, tiny_encoder_path):
    with pytest.raises(ConfigurationError, match="has 3 labels"):
        Reranker.from_pretrained(saved(tmp_path / "three", tiny_encoder_path, 3))
    with pytest.raises(ModelNotFoundError, match="No cross-encoder could be loaded"):
        Reranker.from_pretrained(tmp_path / "nothing")

"""The texts of an answer's tokens join to the answer."""

from __future__ import annotations

import pytest

from ragweave.provenance.posteriors import token_texts
from tests.support.retrieval import generator_tokenizer


@pytest.mark.parametrize("text", ["Lima is the capital", "  spaces  around ", "Zürich — 東京 🦙!", "", "a"])
def test_texts_make_up_the_whole(text: str):
    tokenizer = generator_tokenizer()
    ids = tokenizer(text)["input_ids"]
    decoded = tokenizer.decode(ids, skip_special_tokens=True).strip()
    texts = token_texts(ids, decoded, tokenizer)
    assert len(texts) == len(ids)
    assert "".join(texts) == decoded
    assert "\ufffd" not in "".join(texts[:-1])


def test_a_token_has_its_own_words():
    tokenizer = generator_tokenizer()
    words = ["Lima", " Peru", " Chile"]
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    texts = token_texts([token for own in ids for token in own], "Lima Peru Chile", tokenizer)
    assert "".join(texts[: len(ids[0])]) == "Lima"
    assert "".join(texts[len(ids[0]) :]) == " Peru Chile"


def test_no_tokens():
    assert token_texts([], "", generator_tokenizer()) == []

from __future__ import annotations

import torch

from ragweave.pipeline.token_streamer import StoppedQuestions, TokenListener
from tests.support.retrieval import generator_tokenizer


def heard(texts: list[str]) -> list[list[str]]:
    """What is told of answers whose tokens are put one after the other."""
    tokenizer = generator_tokenizer()
    end = tokenizer.eos_token_id
    rows = [[*tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in texts]
    length = max(map(len, rows))
    columns = torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]).T
    told: list[list[str]] = [[] for _ in texts]
    listener = TokenListener(len(texts), tokenizer, [end], lambda row, text: told[row].append(text))
    listener.put(torch.full((len(texts), 1), 2))
    for column in columns:
        listener.put(column)
    listener.end()
    return told


def test_texts_of_several_answers():
    texts = ["Lima is the capital", "Peru"]
    assert ["".join(own) for own in heard(texts)] == texts


def test_characters_come_whole_and_white_space_with_what_follows():
    (told,) = heard(["  東京 is  far "])
    assert "".join(told) == "東京 is  far"
    assert not any("\ufffd" in text or text.endswith(" ") for text in told)


def test_the_rest_is_told_at_the_end_and_nothing_twice():
    told: list[str] = []
    listener = TokenListener(1, generator_tokenizer(), [], lambda row, text: told.append(text))
    listener.finish(["Lima"])
    listener.finish(["Lima"])
    assert told == ["Lima"]


def test_all_rows_of_a_question_are_stopped():
    criterion = StoppedQuestions(2, lambda question: question == 1)
    assert criterion(torch.zeros(6, 3), None).tolist() == [False] * 3 + [True] * 3

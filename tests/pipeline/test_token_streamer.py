"""TokenStreamer reports whole characters once, and StopQuestions ends all rows of a question."""

from __future__ import annotations

import torch

from ragweave.pipeline.streaming import StopQuestions, TokenStreamer
from tests.support.retrieval import generator_tokenizer


def streamed(texts: list[str]) -> list[list[str]]:
    """What is pieces of answers whose tokens are put one after the other."""
    tokenizer = generator_tokenizer()
    end = tokenizer.eos_token_id
    rows = [[*tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in texts]
    length = max(map(len, rows))
    columns = torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]).T
    pieces: list[list[str]] = [[] for _ in texts]
    streamer = TokenStreamer(len(texts), tokenizer, [end], lambda row, text: pieces[row].append(text))
    streamer.put(torch.full((len(texts), 1), 2))
    for column in columns:
        streamer.put(column)
    streamer.end()
    return pieces


def test_texts_of_several_answers():
    texts = ["Lima is the capital", "Peru"]
    assert ["".join(own) for own in streamed(texts)] == texts


def test_characters_come_whole_and_white_space_with_what_follows():
    (pieces,) = streamed(["  東京 is  far "])
    assert "".join(pieces) == "東京 is  far"
    assert not any("\ufffd" in text or text.endswith(" ") for text in pieces)


def test_the_rest_comes_at_the_end_and_nothing_twice():
    pieces: list[str] = []
    streamer = TokenStreamer(1, generator_tokenizer(), [], lambda row, text: pieces.append(text))
    streamer.finish(["Lima"])
    streamer.finish(["Lima"])
    assert pieces == ["Lima"]


def test_all_rows_of_a_question_are_stopped():
    criterion = StopQuestions(2, lambda question: question == 1)
    assert criterion(torch.zeros(6, 3), None).tolist() == [False] * 3 + [True] * 3

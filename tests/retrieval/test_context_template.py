"""The generator's contexts: how they are put together, and how they are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragweave import MemoryIndex, RagRetriever
from ragweave.errors import ConfigurationError, QuestionError
from ragweave.retrieval.context_template import ContextTemplate, begin_tokens, fit, fit_parts
from tests.support import retrieval

TOKENIZER = retrieval.generator_tokenizer()


def retriever(tokenizer: Any = TOKENIZER, **fields: Any) -> RagRetriever:
    index = MemoryIndex(["nothing"], retrieval.vectors(1))
    return RagRetriever(retrieval.config(**fields), retrieval.question_tokenizer(), tokenizer, index=index)


def contexts(passages: list[tuple[str, str]], questions: list[str], **fields: Any) -> list[str]:
    """The contexts of the same passages for every question, decoded."""
    docs = [{"title": [title for title, _ in passages], "text": [text for _, text in passages]}]
    ids, mask = retriever(**fields).postprocess_docs(
        docs * len(questions), questions, None, len(passages), return_tensors="np"
    )
    assert ids.shape == mask.shape == (len(questions) * len(passages), fields.get("max_combined_length", 100))
    rows = [row[kept == 1] for row, kept in zip(ids, mask, strict=True)]
    return [TOKENIZER.decode(row, skip_special_tokens=True) for row in rows]


# What a context says.


def test_passage_then_question() -> None:
    assert contexts([("Paris", "A city."), ("Nile", "A river.")], ["where ?", "what ?"]) == [
        "Paris / A city. // where ?",
        "Nile / A river. // where ?",
        "Paris / A city. // what ?",
        "Nile / A river. // what ?",
    ]


def test_separators_and_prefix_of_the_configuration() -> None:
    fields = {"prefix": "Passage: ", "title_sep": "\n", "doc_sep": "\nQuestion: ", "answer_sep": "\nAnswer:"}
    found = contexts([("Paris", "A city.")], ["where ?"], **fields)
    assert found == ["Passage: Paris\nA city.\nQuestion: where ?\nAnswer:"]


def test_the_calls_prefix_comes_before_the_configurations() -> None:
    docs = [{"title": ["T"], "text": ["x"]}]
    made = retriever(prefix="theirs: ")
    for prefix, expected in ((None, "theirs: "), ("", ""), ("mine: ", "mine: ")):
        ids, _ = made.postprocess_docs(docs, ["q"], prefix, 1, padding="longest")
        assert TOKENIZER.decode(ids[0], skip_special_tokens=True) == f"{expected}T / x // q"


def test_the_generators_prefix_is_used_where_the_configuration_has_none() -> None:
    made = retriever()
    made.config.generator.prefix = "answer: "
    ids, _ = made.postprocess_docs([{"title": ["T"], "text": ["x"]}], ["q"], None, 1, padding="longest")
    assert TOKENIZER.decode(ids[0], skip_special_tokens=True) == "answer: T / x // q"


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ('"Rome"', "Rome"),
        ('"Rome', "Rome"),
        ('Rome"', "Rome"),
        ('An "old" city', 'An "old" city'),
        ('""', ""),
    ],
)
def test_quotes_around_a_title_go(title: str, shown: str) -> None:
    assert contexts([(title, "x")], ["q"]) == [f"{shown} / x // q".replace("  ", " ")]


def test_double_spaces_become_one() -> None:
    assert contexts([("a  b", "c  d")], ["e  f"]) == ["a b / c d // e f"]


def test_null_in_a_dataset_is_empty() -> None:
    ids, _ = retriever().postprocess_docs([{"title": [None], "text": [None]}], ["q"], None, 1, padding=True)
    assert TOKENIZER.decode(ids[0], skip_special_tokens=True) == " / // q"


# How long it is.

WORDS = st.text(st.sampled_from("abcdeé .,-\n漢字"), max_size=300)


@settings(max_examples=80, deadline=None)
@given(title=WORDS, text=WORDS, question=st.text("abcd ?", max_size=20), length=st.integers(48, 90))
def test_the_question_is_never_cut(title: str, text: str, question: str, length: int) -> None:
    (found,) = contexts([(title, text)], [question], max_combined_length=length)
    assert found.endswith(f" // {question}".replace("  ", " "))
    whole = f"{title.removeprefix(chr(34)).removesuffix(chr(34))} / {text} // {question}".replace("  ", " ")
    if len(TOKENIZER(whole)["input_ids"]) <= length:
        assert found == whole


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.text("abcdefg", min_size=1, max_size=12), min_size=60, max_size=120),
    length=st.integers(30, 100),
)
def test_a_cut_passage_keeps_as_many_whole_words_as_fit(words: list[str], length: int) -> None:
    (found,) = contexts([("T", " ".join(words))], ["q ?"], max_combined_length=length)
    kept = found.removeprefix("T / ").removesuffix(" // q ?").split()
    assert kept == words[: len(kept)]
    longer = f"T / {' '.join(words[: len(kept) + 1])} // q ?"
    assert len(TOKENIZER(longer)["input_ids"]) > length


@pytest.mark.parametrize("text", ["漢字" * 200, "x" * 1000, "line\n" * 200, "https://a.b/" + "c/d" * 300])
def test_a_text_without_spaces_is_cut_too_and_not_lost(text: str) -> None:
    docs = [{"title": ["T"], "text": [text]}]
    ids, mask = retriever(max_combined_length=80).postprocess_docs(docs, ["q"], None, 1, return_tensors="np")
    kept = TOKENIZER.decode(ids[0][mask[0] == 1], skip_special_tokens=True)
    kept = kept.removeprefix("T / ").removesuffix(" // q")
    assert kept
    assert text.startswith(kept)
    assert mask.sum() > 40


def test_too_long_a_title_is_cut_as_well() -> None:
    title = " ".join(f"title{n}" for n in range(60))
    (found,) = contexts([(title, "lost")], ["where ?"], max_combined_length=40)
    kept, rest = found.split(" / ")
    assert kept
    assert title.startswith(kept)
    assert rest == "// where ?"


def test_only_what_is_too_long_is_cut() -> None:
    long = "word " * 100
    short, cut = contexts([("S", "short"), ("L", long)], ["q ?"], max_combined_length=40)
    assert short == "S / short // q ?"
    assert len(cut) < len(long)


def test_too_long_a_question_is_refused() -> None:
    question = "why is that so ? " * 20
    with pytest.raises(QuestionError, match=r"max_combined_length=30 tokens.*why is that"):
        contexts([("T", "x")], [question], max_combined_length=30)


# How it is padded.


@pytest.mark.parametrize("padding", ["longest", True])
def test_padding_to_the_longest(padding: Any) -> None:
    docs = [{"title": ["a", "b"], "text": ["x", "y " * 30]}]
    ids, mask = retriever().postprocess_docs(docs, ["q"], None, 2, return_tensors="pt", padding=padding)
    lengths = mask.sum(1).tolist()
    assert ids.shape == (2, max(lengths))
    assert lengths[0] < lengths[1] < 100
    assert (ids[0, lengths[0] :] == TOKENIZER.pad_token_id).all()


def test_no_padding() -> None:
    docs = [{"title": ["a", "b"], "text": ["x", "y " * 30]}]
    ids, mask = retriever().postprocess_docs(docs, ["q"], None, 2, padding=False)
    assert [len(row) for row in ids] == [len(row) for row in mask]
    assert len(ids[0]) < len(ids[1])
    assert all(all(row) for row in mask)


def test_another_padding_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'longest'"):
        retriever().postprocess_docs([], [], None, 1, padding="shortest")


def test_what_is_returned_can_be_chosen() -> None:
    docs = [{"title": ["a"], "text": ["x"]}]
    made = retriever()
    for wanted, kind in (("pt", torch.Tensor), ("np", np.ndarray), (None, list)):
        ids, mask = made.postprocess_docs(docs, ["q"], None, 1, return_tensors=wanted)
        assert type(ids) is type(mask) is kind
        assert np.asarray(ids).shape == (1, 100)


@pytest.mark.parametrize("side", ["left", "right"])
def test_equals_the_tokenizers_own_padding(side: str) -> None:
    tokenizer = retrieval.byte_level_bpe()
    tokenizer.padding_side = side
    docs = [{"title": [title], "text": [text]} for title, text in retrieval.PASSAGES[:4]]
    ids, mask = retriever(tokenizer).postprocess_docs(docs, ["q ?"] * 4, None, 1, return_tensors="pt")
    texts = [
        f"{title.strip(chr(34))} / {text} // q ?".replace("  ", " ") for title, text in retrieval.PASSAGES[:4]
    ]
    expected = tokenizer(texts, padding="max_length", max_length=100, return_tensors="pt")
    assert torch.equal(ids, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"])


def test_a_tokenizer_without_a_padding_token_works() -> None:
    tokenizer = retrieval.byte_level_bpe(bart=False)
    assert tokenizer.pad_token_id is None
    docs = [{"title": ["a", "b"], "text": ["x", "y " * 30]}]
    ids, mask = retriever(tokenizer).postprocess_docs(docs, ["q"], None, 2, return_tensors="pt")
    assert tokenizer.decode(ids[0][mask[0] == 1]) == "a / x // q"
    assert set(ids[0][mask[0] == 0].tolist()) == {tokenizer.eos_token_id}


@pytest.mark.parametrize("words", [30, 600])
def test_a_context_is_cut_after_a_few_attempts(words: int) -> None:
    """All contexts are tokenized at once, and each that is too long a few times more, however long it is."""
    tokenized: list[int] = []

    def tokenize(texts: list[str]) -> list[list[int]]:
        tokenized.append(len(texts))
        return TOKENIZER(texts)["input_ids"]

    passages = [
        ("title", "some words of a passage that is long " * (words // 8 * number)) for number in range(20)
    ]
    rows = fit(ContextTemplate(), passages, ["what is it ?"] * 20, tokenize, 30)
    assert 25 < max(map(len, rows)) <= 30
    assert tokenized[0] == 20
    assert len(tokenized) == sum(tokenized[1:]) + 1 <= 1 + 8 * 20


# Causal generators: passage and question apart.


def apart(
    passages: list[tuple[str, str]], questions: list[str], length: int = 100, **fields: str
) -> list[list[int]]:
    template = ContextTemplate(**{"title_sep": " / ", "doc_sep": " // ", **fields})
    return fit_parts(template, passages, questions, TOKENIZER, length)


def plain(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_tokens_of_passage_and_question_are_made_apart() -> None:
    """Whatever comes behind a passage, its tokens are the same, even where one token would span both."""
    begin = begin_tokens(TOKENIZER)
    rows = apart([("Paris", "A cit"), ("Paris", "A cit")], ["y ?", "ies ?"], doc_sep="")
    assert rows == [[*begin, *plain("Paris / A cit"), *plain(question)] for question in ("y ?", "ies ?")]
    assert TOKENIZER.eos_token_id not in rows[0]


@given(st.text(st.characters(codec="utf-8"), max_size=60), st.integers(12, 60))
def test_a_long_passage_is_cut_at_its_end(text: str, length: int) -> None:
    (whole,), (cut,) = apart([("T", text)], ["what ?"], 10_000), apart([("T", text)], ["what ?"], length)
    question = plain(" // what ?")
    assert len(cut) == min(len(whole), length)
    assert cut[-len(question) :] == question
    assert cut[: -len(question)] == whole[: len(cut) - len(question)]


def test_a_causal_question_that_does_not_fit_is_refused() -> None:
    with pytest.raises(QuestionError, match="max_combined_length=10"):
        apart([("T", "x")], ["what " * 20], 10)
    (row,) = apart([("T", "x")], ["what ?"], len(plain(" // what ?")) + len(begin_tokens(TOKENIZER)))
    assert row == [*begin_tokens(TOKENIZER), *plain(" // what ?")]

"""RagTokenizer: two tokenizers side by side, loaded from real folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers as tf

from ragweave import RagConfig, RagTokenizer
from ragweave.errors import ConfigurationError
from tests.support import models

pytestmark = pytest.mark.usefixtures("quiet_transformers")

QUESTION_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "wrote", "the", "book", "?"]
ANSWER_WORDS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def write_released_layout(folder: Path) -> None:
    """The files of facebook/rag-*: a vocabulary of words, one of byte pairs, and no tokenizer.json."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    config = models.rag_config("bart")
    config.save_pretrained(folder)
    question, generator = folder / "question_encoder_tokenizer", folder / "generator_tokenizer"
    question.mkdir()
    generator.mkdir()
    (question / "vocab.txt").write_text("\n".join(QUESTION_WORDS) + "\n")
    (question / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    letters = [*ANSWER_WORDS, *bytes_to_unicode().values()]
    (generator / "vocab.json").write_text(json.dumps({letter: n for n, letter in enumerate(letters)}))
    (generator / "merges.txt").write_text("#version: 0.2\n")
    (generator / "tokenizer_config.json").write_text("{}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rag-tokenizer")
    write_released_layout(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> RagTokenizer:
    return RagTokenizer.from_pretrained(folder)


def test_the_released_layout_loads_as_in_transformers(folder: Path, tokenizer: RagTokenizer) -> None:
    theirs = tf.RagTokenizer.from_pretrained(folder)
    question, answer = "Who wrote the book?", "Jane Austen"
    assert tokenizer(question)["input_ids"] == theirs(question)["input_ids"]
    assert tokenizer.generator(answer)["input_ids"] == theirs.generator(answer)["input_ids"]


def test_questions_are_written_with_the_question_encoders_vocabulary(tokenizer: RagTokenizer) -> None:
    encoding = tokenizer(["Who wrote the book?", "who?"], padding=True, return_tensors="pt")
    assert encoding["input_ids"].tolist() == [[2, 5, 6, 7, 8, 9, 3], [2, 5, 9, 3, 0, 0, 0]]
    assert encoding["attention_mask"].tolist() == [[1] * 7, [1, 1, 1, 1, 0, 0, 0]]


def test_answers_are_written_with_the_generators(tokenizer: RagTokenizer) -> None:
    alone = tokenizer(text_target="a book")
    assert alone["input_ids"] == tokenizer.generator("a book")["input_ids"]
    assert tokenizer.decode(alone["input_ids"], skip_special_tokens=True) == "a book"


def test_answers_beside_questions_become_labels(tokenizer: RagTokenizer) -> None:
    both = tokenizer(["who?", "who wrote the book?"], text_target=["ab", "abc"], padding=True)
    assert both["input_ids"] == tokenizer(["who?", "who wrote the book?"], padding=True)["input_ids"]
    assert both["labels"] == tokenizer.generator(["ab", "abc"], padding=True)["input_ids"]


def test_nothing_to_tokenize_is_refused(tokenizer: RagTokenizer) -> None:
    with pytest.raises(ConfigurationError, match="Give text"):
        tokenizer()


def test_decoding_is_the_generators(tokenizer: RagTokenizer) -> None:
    rows = tokenizer.generator(["one", "three"], padding=True)["input_ids"]
    assert tokenizer.batch_decode(rows, skip_special_tokens=True) == ["one", "three"]
    assert tokenizer.decode(rows[0], skip_special_tokens=True) == "one"


def test_a_saved_tokenizer_loads_as_it_was(tokenizer: RagTokenizer, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    tokenizer.save_pretrained(target)
    config = models.rag_config("bart")
    with_config = RagTokenizer.from_pretrained(target, config=config)
    config.save_pretrained(target)
    for again in (with_config, RagTokenizer.from_pretrained(target), tf.RagTokenizer.from_pretrained(target)):
        assert again("who wrote?")["input_ids"] == tokenizer("who wrote?")["input_ids"]
        assert again.generator("a")["input_ids"] == tokenizer.generator("a")["input_ids"]
    assert isinstance(RagConfig.from_pretrained(target), RagConfig)


def test_saving_over_a_file_is_refused(tokenizer: RagTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ConfigurationError, match=r"is a file; give a folder"):
        tokenizer.save_pretrained(path)


def test_options_of_the_tokenizer_are_handed_on(tokenizer: RagTokenizer) -> None:
    options: dict[str, Any] = {"max_length": 4, "truncation": True, "return_attention_mask": False}
    encoding = tokenizer("who wrote the book?", **options)
    assert len(encoding["input_ids"]) == 4
    assert "attention_mask" not in encoding


def test_batches_as_the_released_cards_make_them(tokenizer: RagTokenizer) -> None:
    questions, answers = ["who holds the record in 100m freestyle", "where is it"], ["michael phelps", "rome"]
    batch = tokenizer.prepare_seq2seq_batch(questions, answers, return_tensors="pt")
    assert batch["input_ids"].tolist() == tokenizer.question_encoder(questions, padding=True)["input_ids"]
    assert batch["labels"].tolist() == tokenizer.generator(answers, padding=True)["input_ids"]
    short = tokenizer.prepare_seq2seq_batch(questions, answers, max_length=4, max_target_length=3)
    assert max(map(len, short["input_ids"])) == 4
    assert max(map(len, short["labels"])) == 3
    assert "labels" not in tokenizer.prepare_seq2seq_batch(questions)


def test_modes_and_special_tokens_are_transformers(tokenizer: RagTokenizer) -> None:
    tokenizer._switch_to_target_mode()
    assert tokenizer("rome")["input_ids"] == tokenizer.generator("rome")["input_ids"]
    tokenizer._switch_to_input_mode()
    assert tokenizer("rome")["input_ids"] == tokenizer.question_encoder("rome")["input_ids"]
    for name in ("pad_token_id", "eos_token_id", "bos_token_id"):
        assert getattr(tokenizer, name) == getattr(tokenizer.generator, name)
    messages = [{"role": "user", "content": "where?"}]
    template = "{% for message in messages %}{{ message['content'] }}!{% endfor %}"
    assert tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False) == "where?!"

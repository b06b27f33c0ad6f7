"""Extractive decoding: answers are runs of whole words of the passages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models

from ragweave.modeling.extractive import PassageSpans, SpansOnly
from ragweave.outputs import RetrievedContexts
from ragweave.provenance.posteriors import explain
from tests.support import models, retrieval

EOS = 2
TEXT = (
    "The U.S. army paid $5.2 million (1,030 km away), and 18% of 1,234.5 tons; it didn't ask AT&T at 10:30. "
    'The yen (JPY) fell by -5% in 1914\u20131918, said "Imagine" by J. R. Lennon. Cairo [Egypt] is '
    "well-known."
)


@cache
def bpe() -> Any:
    return retrieval.byte_level_bpe((TEXT,) * 5, vocab_size=420)


@cache
def bpe_across_words() -> Any:
    """A BPE whose tokens may contain the end of one word and the beginning of the next."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>"]
    tokenizer.train_from_iterator(
        [TEXT] * 5,
        trainers.BpeTrainer(
            vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    names = ("bos_token", "pad_token", "eos_token")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, special, strict=True))
    )


@cache
def bytes_without_offsets() -> Any:
    return transformers.ByT5Tokenizer(extra_ids=0)


TOKENIZERS = (bpe, bpe_across_words, bytes_without_offsets)
EXACT = pytest.mark.parametrize("make", TOKENIZERS, ids=lambda make: make.__name__)


def spans(texts: list[str], tokenizer: Any, **options: Any) -> PassageSpans:
    return PassageSpans(texts, tokenizer, eos_token_id=tokenizer.eos_token_id, **options)


def answers(texts: list[str], tokenizer: Any, **options: Any) -> set[str]:
    """All possible answers, enumerated by trying every allowed token at every step."""
    tree, eos, answers_found = spans(texts, tokenizer, **options), tokenizer.eos_token_id, set()
    special = set(tokenizer.all_special_ids) - {eos}
    waiting: list[list[int]] = [[]]
    while waiting:
        ids = waiting.pop()
        allowed = tree.allowed(ids)
        assert allowed
        assert len(set(allowed)) == len(allowed)
        for token in allowed:
            if token == eos:
                text = tokenizer.decode(ids, skip_special_tokens=True)
                assert text.startswith(" ") or not ids
                answers_found.add(text.removeprefix(" "))
            elif token not in special:
                waiting.append([*ids, token])
        assert tree.allowed([*ids, eos]) == [eos]
    return answers_found


# Which answers there are.


@EXACT
def test_all_runs_of_words(make: Any) -> None:
    assert answers(["red, green and blue."], make(), max_words=3) == {
        "red",
        "red, green",
        "red, green and",
        "green",
        "green and",
        "green and blue",
        "and",
        "and blue",
        "blue",
    }


@EXACT
@pytest.mark.parametrize(
    "answer",
    [
        "U.S.",
        "U.S. army",
        "$5.2",
        "$5.2 million",
        "million",
        "1,030 km",
        "1,030",
        "18%",
        "1,234.5 tons",
        "didn't",
        "AT&T",
        "10:30",
        "JPY",
        "(JPY)",
        "yen (JPY)",
        "-5%",
        "1914",
        "1918",
        "1914\u20131918",
        "Imagine",
        '"Imagine"',
        '"Imagine" by J. R. Lennon',
        "Lennon",
        "J. R. Lennon",
        "[Egypt]",
        "Egypt",
        "well",
        "well-known",
        "known",
    ],
)
def test_words_with_signs_in_and_around_them(make: Any, answer: str) -> None:
    assert answer in everything(make)


@EXACT
@pytest.mark.parametrize(
    "part",
    [
        "U",
        "S",
        "U.S",
        "5.2",
        "5",
        "1,030 km away)",
        "030",
        "1",
        "18",
        "234.5",
        "didn",
        "T",
        "AT",
        "30",
        "yen (JPY",
        "(1,030 km",
        'Imagine"',
        '"Imagine',
        "tons;",
        "10:30.",
        "1914\u2013",
        "(yen",
        "JPY)",
        "[Egypt",
        "J.",
        "wel",
    ],
)
def test_parts_of_words_and_signs_left_over_are_no_answers(make: Any, part: str) -> None:
    assert part not in everything(make)


@cache
def everything(make: Any) -> set[str]:
    return answers([TEXT], make(), max_words=5)


WORDS = (
    "a",
    "Zürich",
    "don't",
    "1,234.5",
    "$5.2",
    "18%",
    "U.S.",
    "AT&T",
    "10:30",
    "हिन्दी",
    "1990s",
    "5€",
    "x_y",
)
BETWEEN = (" ", " ", " ", ", ", ". ", "; ", "-", "\u2013", "/", " … ", "?! ", "\n", "  ", " -- ")


@settings(max_examples=80, deadline=None)
@given(
    texts=st.lists(
        st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(BETWEEN)), max_size=8),
        min_size=1,
        max_size=2,
    ),
    max_words=st.integers(1, 4),
    make=st.sampled_from(TOKENIZERS),
)
def test_answers_are_exactly_the_runs(texts: list[list[tuple[str, str]]], max_words: int, make: Any) -> None:
    expected = set()
    for parts in texts:
        for first in range(len(parts)):
            for last in range(first, min(first + max_words, len(parts))):
                inner = parts[first:last]
                if not any("\n" in between for _, between in inner):
                    expected.add("".join(word + between for word, between in inner) + parts[last][0])
    passages = ["".join(word + between for word, between in parts) for parts in texts]
    assert answers(passages, make(), max_words=max_words) == (expected or {""})


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("ab1 .,-'\"()[]%$“”\u2019é漢字かナー👍\n\t") | st.characters(), max_size=25),
    make=st.sampled_from(TOKENIZERS),
)
def test_any_text(text: str, make: Any) -> None:
    text = "".join(character for character in text if not 0xD800 <= ord(character) < 0xE000)
    for answer in answers([text], make(), max_words=4):
        if not answer:
            assert not any(map(str.isalnum, text))
            continue
        assert any(answer in line for line in text.split("\n"))
        assert answer.strip() == answer


def test_chinese_and_japanese_characters_are_words() -> None:
    assert answers(["東京は、日本"], bpe(), max_words=4) == {
        *("東", "東京", "東京は", "京", "京は", "は", "日", "日本", "本"),
        *("東京は、日", "京は、日", "京は、日本", "は、日", "は、日本"),
    }


def test_brackets_that_never_close_are_left_out() -> None:
    answers_found = answers(["a (b c", "d) e"], bpe(), max_words=4)
    assert answers_found == {"a", "b", "b c", "c", "d", "e"}


def test_lines_are_kept_apart() -> None:
    assert answers(["a\nb", "c"], bpe()) == {"a", "b", "c"}


def test_nothing_to_say() -> None:
    for texts in ([], [""], [" \n"], ["... !"]):
        assert spans(texts, bpe()).allowed([]) == [EOS]


def test_what_is_not_in_the_passages_ends_the_answer() -> None:
    tree = spans(["red green"], bpe())
    ids = bpe()(" blue", add_special_tokens=False)["input_ids"]
    assert tree.allowed(ids) == [EOS]


def test_the_generators_own_beginning_is_allowed_once() -> None:
    tree = spans(["red green"], bpe())
    bos = bpe().bos_token_id
    first = set(tree.allowed([]))
    assert bos in first
    assert set(tree.allowed([bos])) == first - {bos}
    red = bpe()(" red", add_special_tokens=False)["input_ids"]
    assert tree.allowed([bos, *red]) == tree.allowed(red)


def test_a_tokenizer_that_splits_words_its_own_way() -> None:
    tokenizer = retrieval.question_tokenizer()  # WordPiece, lower-casing, knows no capitals and few words
    tree = PassageSpans(["Where is PARIS, the capital?"], tokenizer, eos_token_id=tokenizer.sep_token_id)
    for text in ("where", "where is paris", "paris, the capital"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.sep_token_id in tree.allowed(ids)
    comma = tokenizer("paris,", add_special_tokens=False)["input_ids"]
    assert tokenizer.sep_token_id not in tree.allowed(comma)


def test_work_grows_as_the_passages_do() -> None:
    """Each passage is tokenized in at most two calls, of texts that are together as many times as long."""
    words, tokenizer = TEXT.split(), retrieval.byte_level_bpe((TEXT,) * 5, vocab_size=800)

    def characters(length: int) -> int:
        calls = []

        class Counting:
            is_fast, all_special_ids = True, tokenizer.all_special_ids

            def __call__(self, texts: str | list[str], **options: Any) -> Any:
                calls.append(sum(map(len, texts)))
                return tokenizer(texts, **options)

        steps = (1, 2, 3, 5, 7)
        texts = [" ".join(words[number * step % len(words)] for number in range(length)) for step in steps]
        PassageSpans(texts, Counting(), eos_token_id=tokenizer.eos_token_id)
        assert len(calls) <= 1 + 2 * len(texts)
        return sum(calls)

    assert characters(600) < 5 * characters(150)


# Generation.


def contexts(n_questions: int = 2, n_docs: int = 3) -> dict[str, torch.Tensor]:
    return models.contexts(n_questions, n_docs, vocab_size=len(bpe()))


PASSAGES = [[TEXT], ["The river Nile is 6,650 km long.", "Rome (Roma) was founded in 753 BC."]]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}], ids=str)
@pytest.mark.parametrize("generator", ["bart", "llama", "gpt2"])
@pytest.mark.parametrize("formulation", models.FORMULATIONS)
def test_generated_answers_stand_in_the_passages(
    formulation: str, generator: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = models.rag_model(models.CLASSES[formulation], generator, vocab_size=len(bpe()))
    tree = [
        PassageSpans(texts, bpe(), eos_token_id=model.rag.special_tokens.eos, max_words=3)
        for texts in PASSAGES
    ]
    answers_found = model.generate(
        **contexts(), prefix_allowed_tokens_fn=SpansOnly(tree), max_new_tokens=40, **options
    )
    for row, texts in zip(answers_found.tolist(), PASSAGES, strict=True):
        answer = bpe().decode(row[1:], skip_special_tokens=True).strip()
        possible = {answer for text in texts for answer in answers([text], bpe(), max_words=3)}
        assert answer
        assert answer in possible


class Clairvoyant(SpansOnly):
    """Drafts what will be chosen."""

    answers: Sequence[Sequence[int]] = ()

    def draft(self, batch_id: int, token_ids: Sequence[int]) -> Sequence[int]:
        return self.answers[batch_id][len(token_ids) :]


@pytest.mark.parametrize("options", [{}, {"do_sample": True}], ids=["greedy", "samples"])
@pytest.mark.parametrize("generator", ["llama", "gpt2", "qwen3", "mistral", "bart"])
def test_drafts_change_neither_answers_nor_their_scores(generator: str, options: dict[str, Any]) -> None:
    """Answers of several lengths, one of which ends while the others go on, against a pass for each token."""
    torch.manual_seed(0)
    model = models.rag_model(models.CLASSES["token"], generator, vocab_size=len(bpe()))
    texts = [*PASSAGES, ["Rome"], ["1,234.5 or 1,234.6 or 1,999 tons"]]
    spans = [PassageSpans(text, bpe(), eos_token_id=EOS, max_words=4, joins=(",", "")) for text in texts]
    inputs = contexts(len(texts))

    def generate(allowed: SpansOnly, *, stepwise: bool = False) -> tuple[Any, int]:
        passes = []
        hook = model.rag.register_forward_hook(lambda *_: passes.append(1))
        torch.manual_seed(3)
        output = model.generate(
            **inputs,
            **options,
            prefix_allowed_tokens_fn=allowed,
            max_new_tokens=20,
            return_dict_in_generate=True,
            output_scores=stepwise,
        )
        hook.remove()
        return output, len(passes)

    expected, steps = generate(SpansOnly(spans), stepwise=True)
    clairvoyant = Clairvoyant(spans)
    object.__setattr__(clairvoyant, "answers", expected.sequences.tolist())
    drafted, _ = generate(SpansOnly(spans))
    foreseen, passes = generate(clairvoyant)
    assert passes < steps / 2 or generator in ("bart", "mistral")  # which read no drafts
    with torch.no_grad():
        read = model.rag.encode_contexts(RetrievedContexts(**inputs), reuse=True)
    scores = inputs["doc_scores"]
    whole = explain(model, read, scores, expected.sequences)
    for output in (drafted, foreseen):
        assert torch.equal(output.sequences, expected.sequences)
        assert not output.passage_log_probs.transpose(1, 2)[whole.scored].isnan().any()
        found = explain(model, read, scores, output.sequences, log_probs=output.passage_log_probs)
        for name in ("log_likelihood", "posterior", "token_posteriors"):
            torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-5, atol=1e-5)


def test_a_draft_is_what_follows_in_the_first_passage() -> None:
    spans = PassageSpans(["one two three", "two four"], bpe(), eos_token_id=EOS)
    begun, two_three = (bpe()(text, add_special_tokens=False)["input_ids"] for text in (" two", " two three"))
    assert [*begun, *spans.draft(begun)] == two_three
    assert not spans.draft([]) and not spans.draft([EOS])


def test_a_forced_first_token_does_not_end_the_answer() -> None:
    model = models.rag_model(models.CLASSES["token"], "bart", vocab_size=len(bpe()))
    tree = [PassageSpans(texts, bpe(), eos_token_id=EOS, max_words=2) for texts in PASSAGES]
    answers_found = model.generate(
        **contexts(), prefix_allowed_tokens_fn=SpansOnly(tree), forced_bos_token_id=0, max_new_tokens=30
    )
    assert (answers_found[:, 1] == 0).all()
    assert all(bpe().batch_decode(answers_found, skip_special_tokens=True))


@pytest.mark.parametrize("make", [bpe, bytes_without_offsets])
def test_joined_runs(make: Any) -> None:
    """Runs with joins between them are answers; a join at the beginning or at the end makes none."""
    tokenizer = make()
    joined = spans(["red, green", "blue"], tokenizer, joins=(",", " and"))
    alone = spans(["red, green", "blue"], tokenizer)

    def is_answer(answer: str, own: PassageSpans) -> bool:
        ids = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
        return all(
            token in own.allowed(ids[:end]) for end, token in enumerate([*ids, tokenizer.eos_token_id])
        )

    assert is_answer("blue", alone) and is_answer("blue", joined)
    for answer in ("blue and red", "blue, green and red", "red, green and blue and blue"):
        assert is_answer(answer, joined) and not is_answer(answer, alone)
    for answer in ("blue and", "and blue", "blue,", "blue red", "blue and yellow"):
        assert not is_answer(answer, joined)

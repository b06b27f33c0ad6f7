"""Follow-ups become questions that stand alone, in the words of the conversation, and are answered like any other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ragweave import RagPipeline
from ragweave.errors import QuestionError
from ragweave.pipeline.conversation import FUNCTION_WORDS, history_text, standalone_question
from tests.support.pipelines import build_knowledge_base, save_rag_model

FIRST = "What is the capital of Peru?"
FOLLOW_UP = "and Kenya's coast?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    folder = tmp_path_factory.mktemp("conversation")
    build_knowledge_base(folder, tiny_encoder_path)
    return folder


@pytest.fixture(
    params=[("token", "bart"), ("sequence", "bart"), ("token", "llama"), ("sequence", "llama")], ids=str
)
def pipeline(request: pytest.FixtureRequest, folder: Path, tiny_encoder_path: Path) -> RagPipeline:
    model = folder / "-".join(request.param)
    if not model.exists():
        save_rag_model(model, tiny_encoder_path, *request.param)
    return RagPipeline.from_pretrained(model, knowledge_base=folder / "kb", dtype="float32")


def test_a_question_that_stands_alone_has_the_words_of_the_conversation(pipeline: RagPipeline):
    pipeline.model.config.rewrite_prefix = "Conversation: "
    generator = pipeline.model.generator
    if hasattr(generator, "final_logits_bias"):  # this random model would not come to an end
        generator.final_logits_bias[0, pipeline.model.end_token_ids] = 5.0
    rewritten = 0
    for follow_up in [FOLLOW_UP, "how long is it?", "why?", "since when", "and Chile, 2019?", "Who says so?"]:
        turns = [(FIRST, "Lima")]
        question = standalone_question(pipeline, turns, follow_up)
        if question == follow_up:  # it does not come to an end
            continue
        rewritten += 1
        words = re.findall(r"[\w']+", f"{history_text(turns)} {follow_up}".lower())
        assert question.endswith("?") and question[0] == question[0].upper()
        assert set(re.findall(r"[\w']+", question.lower())) <= {*words, *FUNCTION_WORDS}
    assert rewritten


def test_the_first_question_and_those_of_other_models_stay_as_they_are(pipeline: RagPipeline):
    assert standalone_question(pipeline, [(FIRST, "Lima")], FOLLOW_UP) == FOLLOW_UP
    pipeline.model.config.rewrite_prefix = "Conversation: "
    assert standalone_question(pipeline, [], FOLLOW_UP) == FOLLOW_UP


def test_a_conversation_remembers_what_was_said(pipeline: RagPipeline):
    pipeline.model.config.rewrite_prefix = "Conversation: "
    conversation = pipeline.chat()
    first = conversation.ask(FIRST, max_new_tokens=4)
    assert first == pipeline(FIRST, max_new_tokens=4)
    expected = standalone_question(pipeline, [(FIRST, first.answer)], FOLLOW_UP)
    assert conversation.standalone(FOLLOW_UP) == expected
    second = conversation.ask(FOLLOW_UP, max_new_tokens=4)
    assert second.question == expected
    assert conversation.turns == [(FIRST, first.answer), (expected, second.answer)]


def test_a_long_conversation_is_cut_and_a_question_is_not(pipeline: RagPipeline):
    pipeline.model.config.rewrite_prefix = "Conversation: "
    turns = [(FIRST, "Lima is a city. " * 200)] * 20
    assert standalone_question(pipeline, turns, FOLLOW_UP)
    with pytest.raises(QuestionError, match="ask a shorter one"):
        standalone_question(pipeline, turns, "Lima? " * 200)
    conversation = pipeline.chat()
    with pytest.raises(QuestionError, match="empty"):
        conversation.ask(" ")
    assert conversation.turns == []

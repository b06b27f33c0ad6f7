"""Answers with their tokens, against enumeration of one context and one answer at a time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from lxml import html
from torch import Tensor

from ragweave import Answer, RagPipeline
from ragweave.provenance.answers import AnswerToken, RetrievedPassage, Support
from ragweave.types import Place, ScoredPassage
from tests.support import direct
from tests.support.pipelines import build_knowledge_base, save_rag_model

QUESTIONS = ["Where is Lima?", "What is the capital of Kenya?"]
KINDS = [(formulation, kind) for formulation in ("token", "sequence") for kind in ("bart", "t5", "llama")]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def pipeline(
    kind: tuple[str, str], tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path
) -> RagPipeline:
    folder = tmp_path_factory.mktemp("answers")
    model = save_rag_model(folder / "model", tiny_encoder_path, *kind)
    base = build_knowledge_base(folder, tiny_encoder_path)
    return RagPipeline.from_pretrained(model, knowledge_base=base, dtype="float32")


def contexts_of(pipeline: RagPipeline, answer: Answer) -> dict[str, Tensor]:
    """What the generator reads of the answer's passages, in their order."""
    passages = answer.passages
    docs = [{"title": [own.title for own in passages], "text": [own.text for own in passages]}]
    ids, mask = pipeline.retriever.postprocess_docs(
        docs, [answer.question], None, len(passages), return_tensors="pt"
    )
    scores = torch.tensor([[own.doc_score for own in passages]])
    return {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": scores}


def test_posteriors_of_passages_and_tokens(kind: tuple[str, str], pipeline: RagPipeline):
    formulation = kind[0]
    for question in QUESTIONS:
        answer = pipeline(question, n_docs=3, max_new_tokens=6)
        given = contexts_of(pipeline, answer)
        sequence = pipeline.model.generate(**given, max_new_tokens=6)
        said = sequence[0, 1:].tolist()[: len(answer.tokens)]
        table = direct.answer_table(pipeline.model, given, 0, said)  # (K, T)
        prior = direct.log_prior(given, 0)
        if formulation == "token":
            expected = (prior[:, None] + table).softmax(0)
            whole = expected.mean(1)
        else:
            expected = (prior[:, None] + table.cumsum(1)).softmax(0)
            whole = expected[:, -1]
        found = torch.tensor([token.posteriors for token in answer.tokens]).T
        assert torch.allclose(found.double(), expected, atol=1e-4)
        assert [own.posterior for own in answer.passages] == pytest.approx(whole.tolist(), abs=1e-4)
        assert [own.prior for own in answer.passages] == pytest.approx(prior.exp().tolist(), abs=1e-5)
        assert answer.score == pytest.approx(direct.log_likelihood(formulation, table, prior), abs=1e-3)


def test_passages_stand_by_falling_posterior_and_tokens_make_up_the_answer(pipeline: RagPipeline):
    for answer in pipeline(QUESTIONS, n_docs=3, max_new_tokens=8, num_beams=2):
        whole = [own.posterior for own in answer.passages]
        assert whole == sorted(whole, reverse=True)
        assert "".join(token.text for token in answer.tokens) == answer.answer
        assert answer.tokens
        for token in answer.tokens:
            assert sum(token.posteriors) == pytest.approx(1, abs=1e-5)
            assert token.posteriors[token.passage] == max(token.posteriors)


def test_tokens_are_supported_where_the_best_passage_has_their_word(pipeline: RagPipeline):
    supported = 0
    answers = [answer for k in (1, 3) for answer in pipeline(QUESTIONS, extractive=True, n_docs=k)]
    for answer in answers:
        end = 0
        for token in answer.tokens:
            start, end = end, end + len(token.text)
            own = [
                word.group()
                for word in re.finditer(r"\w+", answer.answer)
                if word.start() < end and start < word.end()
            ]
            passage = answer.passages[token.passage]
            there = re.findall(r"\w+", f"{passage.text} {passage.title}")
            assert (token.support is not None) == any(word in there for word in own)
            if token.support is not None:
                assert token.support.passage == token.passage
                field = getattr(passage, token.support.field)
                words = re.findall(r"\w+", field[token.support.start : token.support.end])
                assert set(own) & set(words)
                assert " ".join(words) in " ".join(re.findall(r"\w+", answer.answer))
                supported += 1
    assert supported


def test_missing_passages_are_not_shown(pipeline: RagPipeline):
    answer = pipeline(QUESTIONS[0], n_docs=50, max_new_tokens=3)
    assert len(answer.passages) == 3
    assert all(len(token.posteriors) == 3 for token in answer.tokens)
    assert sum(own.prior for own in answer.passages) == pytest.approx(1, abs=1e-5)


def test_as_dictionaries(pipeline: RagPipeline):
    answer = pipeline(QUESTIONS[0], extractive=True, max_new_tokens=3)
    content = answer.to_dict()
    assert json.loads(json.dumps(content)) == content
    signals = {"score", "null_score", "confidence", "answered", "best_guess"}
    assert content.keys() == {"question", "answer", "passages", "tokens"} | signals
    assert content["tokens"][0].keys() == {"text", "posteriors", "support"}
    assert content["tokens"][0]["posteriors"] == list(answer.tokens[0].posteriors)
    without = answer.to_dict(tokens=False)
    assert without == {name: value for name, value in content.items() if name != "tokens"}


def test_without_a_knowledge_base_nothing_supports_tokens(tmp_path: Path, tiny_encoder_path: Path):
    model = save_rag_model(tmp_path, tiny_encoder_path)
    answer = RagPipeline.from_pretrained(model, knowledge_base=None)(QUESTIONS[0], max_new_tokens=3)
    assert answer.tokens
    assert {(token.posteriors, token.support) for token in answer.tokens} == {((1.0,), None)}


def test_quotes_show_the_words_around_those_that_are_repeated():
    text = (
        f"{'Much was said before it. ' * 20}The quay of Vessborg is\n320 metres long.{' More followed.' * 20}"
    )
    start = text.index("320 metres")
    passages = [
        RetrievedPassage(str(i), "", text, source="a.txt", doc_score=0.0, prior=0.5, posterior=0.5)
        for i in (0, 1)
    ]
    supports = [Support(0, "text", 3, 7), Support(0, "text", start, start + 10), Support(0, "title", 0, 90)]
    tokens = tuple(AnswerToken("320", (0.5, 0.5), support) for support in supports)
    answer = Answer("How long?", "320 metres", 0.0, tuple(passages), tokens)
    quote = answer.quote(0, 60)
    assert re.fullmatch(r"… [\w .]*\bVessborg is 320 metres long\.[\w .]* …", quote)
    assert len(quote) <= 64
    assert answer.quote(1, 60) == f"{'Much was said before it. ' * 2}Much was …"
    assert answer.quote(0, len(text) * 2).count("Vessborg is 320") == 1
    assert not any(word in answer.quote(1, 10_000) for word in ("…", "\n"))


@pytest.mark.parametrize(
    ("title", "text", "quote"),
    [
        ("The quay", "# The quay\n\nIt is long.", "It is long."),
        ("The quay", "\nThe quay \nIt is long.", "It is long."),
        ("The quay", "The quay is long.", "The quay is long."),
        ("The quay", "## The quay at night\n\nIt is dark.", "## The quay at night It is dark."),
        ("", "\nIt is long.", "It is long."),
        ("The quay", "# The quay", "# The quay"),
    ],
)
def test_a_title_is_shown_once(title: str, text: str, quote: str):
    place = Place(heading=("The quay", "Boats"), line=3)
    passage = RetrievedPassage(
        "1", title, text, source="a/quay.md", doc_score=0.0, prior=1.0, posterior=1.0, place=place
    )
    answer = Answer("How long?", "long", 0.0, (passage,))
    assert answer.quote(0) == quote
    assert html.fromstring(answer.to_html()).xpath("string(//details/text())").split() == quote.split()
    path = "Boats" if title else "The quay > Boats"
    assert passage.origin == f"quay.md, {path}, line 3"
    assert str(place.below("The quay > Boats")) == "line 3"


@pytest.mark.parametrize(
    ("source", "passage_id", "origin"),
    [
        ("docs/guide/index.md", "guide/index.md#0", "guide/index.md"),
        ("/home/me/docs/api/index.md", "api/index.md#2", "api/index.md"),
        ("docs/index.md", "index.md#0", "index.md"),
        ("docs/a/people.csv", "a/people.csv:2#0", "a/people.csv"),
        ("docs/a/people.jsonl", "peru", "people.jsonl"),
        ("hf://datasets/a/b:train", "b:3#0", "hf://datasets/a/b:train"),
        ("", "1", ""),
    ],
)
def test_an_origin_has_the_path_below_the_indexed_folder(source: str, passage_id: str, origin: str):
    assert ScoredPassage(passage_id, "", "", source, 0.0, 1.0).origin == origin

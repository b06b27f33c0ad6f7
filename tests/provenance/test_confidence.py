"""Confidence and abstention: p(null|x) by enumeration, the calibration, and answers below the threshold."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragweave import RagPipeline
from ragweave.errors import ConfigurationError, DataError
from ragweave.provenance.answers import NO_ANSWER, Answer, RetrievedPassage
from ragweave.provenance.confidence import (
    FILE_NAME,
    UNCALIBRATED,
    CalibratedConfidence,
    fit_confidence,
    judged,
    signals,
)
from tests.support.pipelines import build_knowledge_base, save_rag_model

QUESTION = "What is the capital of Peru?"
PROBABILITY = st.floats(0, 1)


def a_passage(**fields: float | str | None) -> RetrievedPassage:
    values = {
        "id": "a#0",
        "title": "",
        "text": "Lima is it.",
        "source": "a.txt",
        "doc_score": 2.0,
        "prior": 0.75,
    }
    return RetrievedPassage(**{**values, "posterior": 1.0, "null": 0.25, **fields})  # type: ignore[arg-type]


def an_answer(text: str = "Lima", score: float = -0.5, null_score: float | None = -1.0) -> Answer:
    other = a_passage(id="b#0", text="Quito is another.", prior=0.25, posterior=0.0)
    return Answer(QUESTION, text, score, (a_passage(), other), null_score=null_score)


@pytest.mark.parametrize("formulation", ["token", "sequence"])
@pytest.mark.parametrize("kind", ["bart", "t5", "llama"])
@pytest.mark.parametrize("null", ["", "not in this passage"])
def test_null_likelihood_is_the_sum_over_the_passages(
    tmp_path: Path, tiny_encoder_path: Path, formulation: str, kind: str, null: str
):
    model = save_rag_model(tmp_path / "model", tiny_encoder_path, formulation, kind)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "null_answer": null}), encoding="utf-8")
    base = build_knowledge_base(tmp_path, tiny_encoder_path)
    pipeline = RagPipeline.from_pretrained(model, knowledge_base=base, dtype="float32")
    answer = pipeline(QUESTION, n_docs=3, max_new_tokens=3)

    tokenizer = pipeline.retriever.generator_tokenizer
    if kind == "llama":
        ids = [*tokenizer(f" {null}", add_special_tokens=False)["input_ids"]] if null else []
        ids.append(tokenizer.eos_token_id)
    else:
        ids = tokenizer(null)["input_ids"]
    expected = []
    for (
        passage
    ) in answer.passages:  # log p(null | x, z), passage by passage and token by token, without a cache
        contexts, mask = pipeline.retriever.postprocess_docs(
            [{"title": [passage.title], "text": [passage.text]}], [QUESTION], None, 1, return_tensors="pt"
        )
        generator, log_probs = pipeline.model.generator, []
        for count, token in enumerate(ids):
            with torch.inference_mode():
                if kind == "llama":
                    prompt = torch.cat(
                        [contexts[mask.bool()][None], torch.tensor([ids[:count]]).long()], dim=1
                    )
                    logits = generator(input_ids=prompt).logits[0, -1]
                else:
                    start = torch.tensor([[generator.config.decoder_start_token_id, *ids[:count]]])
                    logits = generator(
                        input_ids=contexts, attention_mask=mask, decoder_input_ids=start
                    ).logits[0, -1]
            log_probs.append(float(logits.log_softmax(-1)[token]))
        assert passage.null == pytest.approx(math.exp(sum(log_probs)), rel=1e-4)
        expected.append(log_probs)
    priors = np.array([passage.prior for passage in answer.passages])
    table = np.exp(expected)  # (K, T)
    likelihood = priors @ table.prod(1) if formulation == "sequence" else (priors @ table).prod()
    assert answer.null_score == pytest.approx(math.log(likelihood), abs=1e-4)


def test_without_a_null_answer_there_is_no_null_likelihood(tmp_path: Path, tiny_encoder_path: Path):
    model = save_rag_model(tmp_path / "model", tiny_encoder_path)
    base = build_knowledge_base(tmp_path, tiny_encoder_path)
    answer = RagPipeline.from_pretrained(model, knowledge_base=base)(QUESTION, max_new_tokens=3)
    assert answer.null_score is None
    assert {passage.null for passage in answer.passages} == {None}
    assert answer.confidence == pytest.approx(math.exp(answer.score))
    assert answer.answered and answer.best_guess is None


def test_signals():
    values = signals(an_answer())
    assert values.keys() == {"likelihood", "null", "best_null", "prior", "doc_score", "agreement"}
    assert values["likelihood"] == pytest.approx(math.log(math.exp(-0.5) / (1 - math.exp(-0.5))))
    assert values["best_null"] == pytest.approx(math.log(0.25 / 0.75))
    assert values["agreement"] == 0.75
    assert signals(an_answer("Quito"))["agreement"] == 0.25
    assert "null" not in signals(an_answer(null_score=None))


@given(score=st.floats(-1e4, 1), null=st.one_of(st.none(), st.floats(-1e4, 1)), best=PROBABILITY)
def test_signals_are_finite_and_confidence_is_a_probability(score: float, null: float | None, best: float):
    answer = replace(an_answer(score=score, null_score=null), passages=(a_passage(null=best),))
    assert all(map(math.isfinite, signals(answer).values()))
    assert 0 <= UNCALIBRATED(answer) <= 1
    assert UNCALIBRATED(answer) == pytest.approx(math.exp(min(score, 0)), abs=1e-6)


def test_a_calibration_learns_which_signal_matters(tmp_path: Path):
    generator = np.random.default_rng(0)
    truth = generator.random(4000) < 0.5
    rows = [
        {"null": float(generator.normal(-1 if right else 1)), "noise": float(generator.normal())}
        for right in truth
    ]
    model = fit_confidence(rows, truth.tolist(), most_withheld=0.1)
    # The log-odds of two normal distributions of variance 1 at -1 and 1 are -2 x.
    assert model.weights["null"] == pytest.approx(-2, abs=0.15)
    assert model.weights["noise"] == pytest.approx(0, abs=0.15)
    withheld = [
        model.probability(row) < model.threshold for row, right in zip(rows, truth, strict=True) if right
    ]
    assert np.mean(withheld) == pytest.approx(0.1, abs=0.005)
    model.save(tmp_path / FILE_NAME)
    assert CalibratedConfidence.load(tmp_path / FILE_NAME) == model


def test_a_calibration_is_replaced_as_a_whole(tmp_path: Path):
    path, old = tmp_path / FILE_NAME, CalibratedConfidence({"null": 1.0}, questions=1)
    old.save(path)
    with path.open(encoding="utf-8") as reader:
        replace(old, questions=2).save(path)
        assert json.load(reader)["questions"] == 1  # a reader that opened the old file keeps it
    assert CalibratedConfidence.load(path).questions == 2
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("correct", [[True, True], [False, False]])
def test_a_calibration_needs_right_and_wrong_answers(correct: list[bool]):
    with pytest.raises(ConfigurationError, match="questions with and without answers"):
        fit_confidence([{"null": 1.0}, {"null": 2.0}], correct)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"weights": {"null": "x"}, "bias": 0, "threshold": 0, "questions": 1}',
        '{"weights": {"null": NaN}, "bias": 0, "threshold": 0, "questions": 1}',
    ],
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, content: str):
    path = tmp_path / FILE_NAME
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"is not a calibration .* eval --calibrate"):
        CalibratedConfidence.load(path)


def test_a_calibration_of_another_model_is_refused():
    with pytest.raises(ConfigurationError, match="weighs null, which"):
        CalibratedConfidence({"null": 1.0})(an_answer(null_score=None))


def test_below_the_threshold_the_documents_do_not_say():
    withheld = judged(an_answer(), UNCALIBRATED, 0.7)
    assert (withheld.answer, withheld.answered, withheld.best_guess) == (NO_ANSWER, False, "Lima")
    assert withheld.tokens == () and withheld.passages == an_answer().passages
    assert withheld.confidence == pytest.approx(math.exp(-0.5))
    given_answer = judged(an_answer(), UNCALIBRATED, 0.6)
    assert (given_answer.answer, given_answer.answered, given_answer.best_guess) == ("Lima", True, None)
    assert "do not say" in withheld.to_html() and "best guess: Lima" in withheld.to_html()


def test_a_pipeline_withholds_answers(tmp_path: Path, tiny_encoder_path: Path):
    model = save_rag_model(tmp_path / "model", tiny_encoder_path)
    base = build_knowledge_base(tmp_path, tiny_encoder_path)
    CalibratedConfidence({}, bias=0.0, threshold=0.75).save(model / FILE_NAME)
    pipeline = RagPipeline.from_pretrained(model, knowledge_base=base)
    withheld = pipeline(QUESTION, max_new_tokens=3)
    assert (withheld.answer, withheld.confidence, withheld.answered) == (NO_ANSWER, 0.5, False)
    anyway = pipeline(QUESTION, max_new_tokens=3, min_confidence=0.0)
    assert anyway.answered and anyway.answer == withheld.best_guess and anyway.tokens
    assert pipeline.with_formulation("sequence")(QUESTION, max_new_tokens=3).answer == NO_ANSWER
    lenient = RagPipeline.from_pretrained(model, knowledge_base=base, min_confidence=0.5)
    assert lenient(QUESTION, max_new_tokens=3) == anyway
    with pytest.raises(ConfigurationError, match="from 0 to 1"):
        pipeline(QUESTION, min_confidence=1.5)

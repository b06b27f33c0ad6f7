"""Posteriors over passages against enumeration of one context and one answer at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ragweave.outputs import RetrievedContexts
from ragweave.provenance.posteriors import Provenance, explain
from tests.support import direct, models
from tests.support.models import CLASSES, FORMULATIONS, GENERATORS, rag_model, shared_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

everywhere = pytest.mark.parametrize("generator", GENERATORS)
both = pytest.mark.parametrize("formulation", FORMULATIONS)


def explained(model: Any, given: dict[str, Tensor], sequences: Tensor) -> Provenance:
    with torch.no_grad():
        read = model.rag.encode_contexts(RetrievedContexts(**given), reuse=True)
    return explain(model, read, given["doc_scores"], sequences)


def sequences_of(model: Any, answers: list[list[int]]) -> Tensor:
    """Answers as ``generate`` returns them: the start token first, filled up behind."""
    longest = max(map(len, answers))
    special = model.rag.special_tokens
    rows = [
        [special.decoder_start, *answer, *[special.pad_or_eos] * (longest - len(answer))]
        for answer in answers
    ]
    return torch.tensor(rows)


def answers_of(model: Any) -> list[list[int]]:
    """Three answers of different lengths, two of which end."""
    eos = model.rag.special_tokens.eos
    return [
        [*models.words(5, seed=1).tolist()],
        [*models.words(2, seed=2).tolist(), eos],
        [eos],
    ]


def check(formulation: str, model: Any, given: dict[str, Tensor], answers: list[list[int]]) -> None:
    found = explained(model, given, sequences_of(model, answers))
    n_docs = given["doc_scores"].shape[1]
    assert found.posterior.shape == (len(answers), n_docs)
    assert found.token_posteriors.shape == (len(answers), n_docs, max(map(len, answers)))
    for question, answer in enumerate(answers):
        table = direct.answer_table(model, given, question, answer)  # (K, T)
        prior = direct.log_prior(given, question)
        length = len(answer)
        if formulation == "sequence":
            per_token = (prior[:, None] + table.cumsum(1)).softmax(0)
            whole = per_token[:, -1]
        else:
            per_token = (prior[:, None] + table).softmax(0)
            whole = per_token.mean(1)
        assert found.scored[question].tolist() == [True] * length + [False] * (found.scored.shape[1] - length)
        assert torch.allclose(found.token_posteriors[question, :, :length].double(), per_token, atol=1e-5)
        assert torch.allclose(found.posterior[question].double(), whole, atol=1e-5)
        expected = direct.log_likelihood(formulation, table, prior)
        assert float(found.log_likelihood[question]) == pytest.approx(expected, abs=1e-3)
    assert torch.allclose(found.posterior.sum(1), torch.ones(len(answers)), atol=1e-5)
    assert torch.allclose(found.token_posteriors.sum(1), torch.ones(found.scored.shape), atol=1e-5)


@everywhere
@both
def test_posteriors_of_answers_and_tokens(formulation: str, generator: str) -> None:
    model = shared_model(formulation, generator)
    check(formulation, model, models.contexts(3), answers_of(model))


@pytest.mark.parametrize("generator", ["bart", "llama", "gpt2"])
@both
def test_missing_passages_count_for_nothing(formulation: str, generator: str) -> None:
    model, given = shared_model(formulation, generator), models.contexts(3)
    given["doc_scores"][:, 2] = float("-inf")
    given["doc_scores"][1, 1] = float("-inf")
    check(formulation, model, given, answers_of(model))
    found = explained(model, given, sequences_of(model, answers_of(model)))
    missing = given["doc_scores"] == float("-inf")
    assert not found.posterior[missing].any()
    assert not found.token_posteriors[missing].any()
    assert torch.allclose(found.posterior[1, 0], torch.tensor(1.0))


@everywhere
@both
def test_answers_that_the_model_made(formulation: str, generator: str) -> None:
    model, given = shared_model(formulation, generator), models.contexts(3, seed=4)
    with torch.no_grad():
        sequences = model.generate(
            **given, max_new_tokens=6, num_beams=2, suppress_tokens=direct.padding_of(model)
        )
    eos = model.rag.special_tokens.eos
    answers = []
    for row in sequences[:, 1:].tolist():
        answers.append(row[: row.index(eos) + 1] if eos in row else row)
    check(formulation, model, given, answers)


@both
def test_an_answer_may_end_at_any_of_several_tokens(formulation: str) -> None:
    model = rag_model(CLASSES[formulation], "llama", generator_fields={"pad_token_id": 2})
    model.generation_config.eos_token_id = [2, 30]
    given, body = models.contexts(2), [7, 8, 9, 10]
    sequences = torch.tensor([[2, 7, 8, 30, 2], [2, *body]])
    found = explained(model, given, sequences)
    assert found.scored.tolist() == [[True, True, True, False], [True] * 4]
    expected = direct.answer_log_likelihood(formulation, model, given, 0, [7, 8, 30])
    assert float(found.log_likelihood[0]) == pytest.approx(expected, abs=1e-3)


def test_no_gradient_is_kept() -> None:
    model, given = shared_model("token"), models.contexts(2)
    found = explained(model, given, sequences_of(model, [[5, 6, 2], [7, 2]]))
    assert not found.posterior.requires_grad
    assert not found.log_likelihood.requires_grad

"""Every loss against its equation, evaluated directly and slowly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ragweave.training.losses import (
    LOSSES,
    LossInputs,
    adist,
    emdr2,
    leave_one_out_log_likelihood,
    loop,
    marginal,
    passage_attention,
    pdist,
)
from tests.training.losses import enumeration as slow
from tests.training.losses.cases import LOST, alone, batch, with_scores

DISTILLATIONS = {"pdist": pdist, "loop": loop, "adist": adist}
seeds = pytest.mark.parametrize("seed", range(3))
formulations = pytest.mark.parametrize("formulation", ["sequence", "token"])
temperatures = pytest.mark.parametrize("temperature", [1.0, 0.4])
distillations = pytest.mark.parametrize("name", DISTILLATIONS)


def each(inputs: LossInputs) -> range:
    return range(len(inputs.doc_scores))


@seeds
@formulations
@temperatures
@pytest.mark.parametrize(("loss", "plain"), [(marginal, slow.marginal), (emdr2, slow.emdr2)])
def test_likelihoods(loss: Any, plain: Any, seed: int, formulation: str, temperature: float) -> None:
    inputs = batch(seed, formulation=formulation)
    computed = loss(inputs, temperature=temperature, reduction="none")
    expected = [plain(inputs, question, temperature) for question in each(inputs)]
    assert computed.tolist() == pytest.approx(expected, rel=1e-9)


@seeds
@formulations
@distillations
@pytest.mark.parametrize(("temperature", "tau"), [(1.0, 1.0), (0.4, 1.0), (1.0, 3.0), (2.0, 0.5)])
def test_distillation(seed: int, formulation: str, name: str, temperature: float, tau: float) -> None:
    inputs = batch(seed, formulation=formulation)
    computed = DISTILLATIONS[name](inputs, temperature=temperature, target_temperature=tau, reduction="none")
    expected = [slow.divergence(name, inputs, question, temperature, tau) for question in each(inputs)]
    assert computed.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@seeds
@formulations
@distillations
def test_gradient_of_a_distillation_is_the_distance_to_its_target(
    seed: int, formulation: str, name: str
) -> None:
    """The target is a constant, also where it was computed from the scores (leave-one-out)."""
    inputs = batch(seed, formulation=formulation)
    scores = inputs.doc_scores.clone().requires_grad_()
    loss = DISTILLATIONS[name](with_scores(inputs, scores), temperature=0.5, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    for question in each(inputs):
        priors = slow.prior(inputs, question, 0.5)
        target = slow.TARGETS[name](inputs, question, 0.5, 1.0)
        expected = [(priors[k] - target[k]) / 0.5 if k in priors else 0.0 for k in range(scores.shape[1])]
        assert gradient[question].tolist() == pytest.approx(expected, abs=1e-9)


@seeds
@formulations
@pytest.mark.parametrize("name", ["marginal", "emdr2", "pdist", "adist"])  # loop: the target moves too
def test_gradient_is_that_of_finite_differences(seed: int, formulation: str, name: str) -> None:
    inputs = batch(seed, formulation=formulation)
    present = inputs.present

    def loss(scores: Tensor) -> Tensor:
        doc_scores = inputs.doc_scores.masked_scatter(present, scores)
        return LOSSES[name](with_scores(inputs, doc_scores), temperature=0.7, reduction="none")

    assert torch.autograd.gradcheck(loss, inputs.doc_scores[present].requires_grad_())


@seeds
@formulations
def test_gradient_of_leaving_out_is_that_of_finite_differences_for_a_fixed_target(
    seed: int, formulation: str
) -> None:
    """Of two passages one is left, with probability one whatever the scores."""
    inputs = batch(seed, k=2, formulation=formulation)
    inputs = replace(
        inputs,
        doc_scores=torch.tensor([[0.5, -1.0]], dtype=torch.float64).repeat(3, 1),
        token_log_probs=inputs.token_log_probs.nan_to_num(-2.0),
        attention=None,
    )

    def loss(scores: Tensor) -> Tensor:
        return loop(with_scores(inputs, scores), reduction="none")

    assert torch.autograd.gradcheck(loss, inputs.doc_scores.requires_grad_())


@seeds
def test_emdr2_moves_the_retriever_as_the_marginal_likelihood_of_rag_sequence_does(seed: int) -> None:
    inputs = batch(seed)
    scores = inputs.doc_scores.requires_grad_()
    of_emdr2, of_marginal = (torch.autograd.grad(loss(inputs), scores)[0] for loss in (emdr2, marginal))
    assert torch.allclose(of_emdr2, of_marginal, atol=1e-12)


@seeds
@formulations
def test_leave_one_out_is_the_mixture_of_the_others(seed: int, formulation: str) -> None:
    inputs = batch(seed, formulation=formulation)
    computed = leave_one_out_log_likelihood(
        inputs.counted_log_probs, inputs.scored, inputs.doc_scores, inputs.formulation
    )
    for question in each(inputs):
        present = slow.passages(inputs, question)
        for k in present:
            rest = [j for j in present if j != k]
            expected = -marginal(alone(inputs, question, rest)).item() if rest else 0.0
            assert computed[question, k].item() == pytest.approx(expected, rel=1e-9)


@formulations
def test_without_its_only_passage_an_answer_counts_as_certain(formulation: str) -> None:
    """For whoever differentiates it, too."""
    scores = torch.tensor([[0.3, LOST], [0.5, 0.2]], dtype=torch.float64, requires_grad=True)
    log_probs = torch.full((2, 2, 3), -1.0, dtype=torch.float64, requires_grad=True)
    scored = torch.ones(2, 3, dtype=torch.bool)
    computed = leave_one_out_log_likelihood(log_probs, scored, scores, formulation)  # type: ignore[arg-type]
    assert computed.tolist() == [[0.0, -3.0], [-3.0, -3.0]]
    for gradient in torch.autograd.grad(computed.sum(), (scores, log_probs)):
        assert gradient.isfinite().all()


@seeds
def test_attention_of_a_passage(seed: int) -> None:
    inputs = batch(seed)
    assert inputs.attention is not None
    computed = passage_attention(inputs.attention, inputs.present, inputs.scored)
    for question in each(inputs):
        weights = slow.attention_weights(inputs, question)
        expected = [weights.get(k, 0.0) for k in range(computed.shape[1])]
        assert computed[question].tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_mean_is_the_mean_over_questions(name: str) -> None:
    inputs = batch(0)
    every = LOSSES[name](inputs, reduction="none")
    assert every.shape == (3,)
    assert LOSSES[name](inputs).item() == pytest.approx(sum(every.tolist()) / 3)

"""What a trainer relies on: whom a loss moves and where to, and that nothing breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragweave.training.losses import LOSSES, CrossAttention, LossInputs, passage_attention
from tests.training.losses.cases import (
    CONTEXT,
    HEADS,
    LOST,
    alone,
    batch,
    batches,
    converted,
    permuted,
    with_scores,
)

quick = settings(max_examples=25, deadline=None)
names = pytest.mark.parametrize("name", LOSSES)
formulations = pytest.mark.parametrize("formulation", ["sequence", "token"])


def explained_by(best: int, formulation: str, k: int = 4) -> LossInputs:
    """A question whose answer one passage makes likelier than the others do, and which is looked at more."""
    generator = torch.Generator().manual_seed(best)
    log_probs = -2.0 - torch.rand(1, k, 3, generator=generator, dtype=torch.float64)
    scores = torch.randn(1, k, HEADS, 3, CONTEXT, generator=generator, dtype=torch.float64)
    log_probs[:, best] = -0.5
    scores[:, best] += 3.0
    return LossInputs(
        doc_scores=torch.zeros(1, k, dtype=torch.float64),
        token_log_probs=log_probs,
        scored=torch.ones(1, 3, dtype=torch.bool),
        formulation=formulation,  # type: ignore[arg-type]
        attention=CrossAttention(
            scores,
            torch.ones(1, k, HEADS, CONTEXT, dtype=torch.float64),
            torch.ones(1, k, CONTEXT, dtype=torch.bool),
        ),
    )


@names
@formulations
@pytest.mark.parametrize("best", range(4))
def test_a_step_raises_the_passage_that_explains_the_answer(name: str, formulation: str, best: int) -> None:
    inputs = explained_by(best, formulation)
    scores = inputs.doc_scores.requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name](inputs), scores)
    after = (scores - 0.1 * gradient).softmax(-1)[0]
    assert after.argmax() == best
    assert after[best] > 0.25


@names
@formulations
def test_descent_ends_at_the_passage_that_explains_the_answer(name: str, formulation: str) -> None:
    """From scores that prefer another passage."""
    inputs = explained_by(2, formulation)
    scores = torch.tensor([[2.0, 0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([scores], lr=1.0)
    losses = []
    for _ in range(200):
        loss = LOSSES[name](with_scores(inputs, scores))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert scores.softmax(-1)[0].argmax() == 2


def test_a_distillation_is_zero_at_its_target() -> None:
    """What speaks for passages, as scores: a retriever that thinks like the generator has nothing to learn."""
    inputs = batch(1)
    assert inputs.attention is not None
    looked = passage_attention(inputs.attention, inputs.present, inputs.scored)
    for name, evidence in (("pdist", inputs.answer_log_probs), ("adist", looked)):
        agreeing = with_scores(inputs, evidence.masked_fill(~inputs.present, LOST))
        assert LOSSES[name](agreeing).item() == pytest.approx(0.0, abs=1e-12)
        assert LOSSES[name](inputs).item() > 0.01


@pytest.mark.parametrize("name", ["pdist", "loop", "adist"])
def test_a_question_with_one_passage_teaches_nothing(name: str) -> None:
    inputs = batch(1)
    inputs = alone(inputs, 0, inputs.present[0].nonzero()[0].tolist())
    scores = inputs.doc_scores.requires_grad_()
    loss = LOSSES[name](inputs)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.item() == 0.0
    assert gradient.tolist() == [[0.0]]


@names
@formulations
def test_only_the_marginal_likelihood_reaches_the_generator(name: str, formulation: str) -> None:
    inputs = batch(0, formulation=formulation)
    assert inputs.attention is not None
    log_probs = inputs.token_log_probs.requires_grad_()
    looked, norms = inputs.attention.scores.requires_grad_(), inputs.attention.value_norms.requires_grad_()
    scores = inputs.doc_scores.requires_grad_()
    LOSSES[name](inputs).backward()
    assert not passage_attention(inputs.attention, inputs.present, inputs.scored).requires_grad
    assert scores.grad is not None
    assert looked.grad is None
    assert norms.grad is None
    if name == "marginal":
        counted = inputs.present[..., None] & inputs.scored[:, None]
        assert log_probs.grad is not None
        assert (log_probs.grad[counted] < 0).all()
        assert (log_probs.grad[~counted] == 0).all()
    else:
        assert log_probs.grad is None


@names
@quick
@given(inputs=batches())
def test_values_and_gradients_are_finite(name: str, inputs: LossInputs) -> None:
    scores = inputs.doc_scores.requires_grad_()
    loss = LOSSES[name](inputs, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert loss.isfinite().all()
    assert (loss > -1e-9).all()
    assert gradient.isfinite().all()
    assert (gradient[~inputs.present] == 0).all()
    # A softmax does not feel what is added to all its scores.
    assert torch.allclose(gradient.sum(-1), torch.zeros(()).double(), atol=1e-9)


@names
@quick
@given(inputs=batches(), data=st.data())
def test_order_of_passages_does_not_matter(name: str, inputs: LossInputs, data: st.DataObject) -> None:
    order = torch.tensor(data.draw(st.permutations(range(inputs.doc_scores.shape[1]))))
    losses = LOSSES[name](inputs, reduction="none")
    assert torch.allclose(LOSSES[name](permuted(inputs, order), reduction="none"), losses, atol=1e-9)


@names
@quick
@given(inputs=batches())
def test_a_missing_passage_is_like_a_passage_left_out(name: str, inputs: LossInputs) -> None:
    losses = LOSSES[name](inputs, reduction="none")
    for question, present in enumerate(inputs.present):
        without = alone(inputs, question, present.nonzero().flatten().tolist())
        assert torch.allclose(LOSSES[name](without), losses[question], atol=1e-9)


@names
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(name: str, dtype: torch.dtype) -> None:
    half = converted(batch(2), dtype)
    loss = LOSSES[name](half, temperature=0.7)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(LOSSES[name](converted(half, torch.float64), temperature=0.7).item())


def test_log_weights_instead_of_scores_compare_value_norms_only() -> None:
    inputs = explained_by(0, "sequence")
    assert inputs.attention is not None
    weights = replace(inputs.attention, scores=inputs.attention.scores.log_softmax(-1))
    scores = inputs.doc_scores.requires_grad_()
    even = replace(inputs, attention=weights)
    (gradient,) = torch.autograd.grad(LOSSES["adist"](even), scores)
    assert torch.allclose(gradient, torch.zeros(()).double(), atol=1e-9)
    norms = weights.value_norms.clone()
    norms[:, 3] = 2.0
    uneven = replace(inputs, attention=replace(weights, value_norms=norms))
    (gradient,) = torch.autograd.grad(LOSSES["adist"](uneven), scores)
    assert (gradient[0] < 0).tolist() == [False, False, False, True]

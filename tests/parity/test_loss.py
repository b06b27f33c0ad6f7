"""Losses, logits and gradients against transformers' own RAG models, on random cases."""

from __future__ import annotations

import pytest
import torch

from tests.parity.oracle import Case, gradient_of, gradients, pair

pytestmark = pytest.mark.usefixtures("quiet_transformers")

CASES = pytest.mark.parametrize("seed", range(25))
MODELS = pytest.mark.parametrize(
    ("formulation", "generator"), [(f, g) for f in ("token", "sequence") for g in ("bart", "t5")]
)


@CASES
@MODELS
def test_loss_logits_and_gradients(formulation: str, generator: str, seed: int) -> None:
    case = Case(generator, seed)
    inputs, results = [], []
    both = pair(formulation, generator, seed, label_smoothing=case.smoothing)
    for model in both:
        inputs.append(case.scores_with_gradient())
        results.append(model(**inputs[-1], labels=case.labels, n_docs=case.n_docs))
        results[-1].loss.sum().backward()
    theirs, ours = results
    assert torch.allclose(ours.logits, theirs.logits, atol=1e-4)
    assert torch.allclose(ours.loss, theirs.loss, rtol=1e-4, atol=1e-4)
    of_scores = [gradient_of(given["doc_scores"]) for given in inputs]
    assert torch.allclose(of_scores[1], of_scores[0], atol=1e-4)
    expected, got = (gradients(model) for model in both)
    assert expected.keys() == got.keys()
    for name, gradient in expected.items():
        scale = max(float(gradient.abs().max()), 1.0)
        assert torch.allclose(got[name] / scale, gradient / scale, atol=1e-4), name


@CASES
@pytest.mark.parametrize("generator", ["bart", "t5"])
def test_marginalised_logits(generator: str, seed: int) -> None:
    case = Case(generator, 100 + seed)
    options = {"decoder_input_ids": case.labels, "n_docs": case.n_docs, "do_marginalize": True}
    with torch.no_grad():
        theirs, ours = (model(**case.arguments, **options).logits for model in pair("token", generator, seed))
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
@MODELS
def test_get_nll_and_reduced_loss(formulation: str, generator: str, seed: int) -> None:
    case = Case(generator, 200 + seed)
    with torch.no_grad():
        theirs, ours = pair(formulation, generator, seed)
        logits = theirs(**case.arguments, decoder_input_ids=case.labels, n_docs=case.n_docs).logits
        common = (logits, case.arguments["doc_scores"], case.labels)
        options = {"reduce_loss": True, "epsilon": 0.2, "n_docs": case.n_docs}
        assert torch.allclose(ours.get_nll(*common, **options), theirs.get_nll(*common, **options), rtol=1e-4)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("generator", ["bart", "t5"])
def test_loss_without_the_bos(generator: str, seed: int) -> None:
    """RagSequence's ``exclude_bos_score``; without smoothing, in which the oracle keeps the BOS."""
    case = Case(generator, 300 + seed)
    theirs, ours = pair("sequence", generator, seed)
    case.labels[:, 1] = theirs.config.bos_token_id
    with torch.no_grad():
        losses = [
            model(**case.arguments, labels=case.labels, n_docs=case.n_docs, exclude_bos_score=True).loss
            for model in (theirs, ours)
        ]
    assert torch.allclose(*losses, rtol=1e-4, atol=1e-4)

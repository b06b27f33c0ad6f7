"""Decoding without beams records the scores that provenance needs, and skips the model where it has no choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ragweave.outputs import RetrievedContexts
from ragweave.provenance.posteriors import explain
from tests.support import models
from tests.support.models import DECODERS, FORMULATIONS, shared_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

everywhere = pytest.mark.parametrize("generator", DECODERS)
both = pytest.mark.parametrize("formulation", FORMULATIONS)
SAMPLE = {"do_sample": True, "top_k": 0}


def check_provenance(model: Any, inputs: dict[str, Tensor], output: Any) -> None:
    """Provenance of recorded scores against a second pass."""
    scores, found = inputs["doc_scores"], output.passage_log_probs
    assert found.shape == (len(scores), scores.shape[1], output.sequences.shape[1] - 1)
    with torch.no_grad():
        contexts = model.rag.encode_contexts(RetrievedContexts(**inputs), reuse=True)
    expected = explain(model, contexts, scores, output.sequences)
    scored = expected.scored[:, None].expand_as(found) & (scores > float("-inf"))[..., None]
    assert not found[scored].isnan().any()
    actual = explain(model, None, scores, output.sequences, log_probs=found)  # type: ignore[arg-type]
    for name in ("log_likelihood", "posterior", "token_posteriors"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), rtol=1e-5, atol=1e-5)


@everywhere
@both
@pytest.mark.parametrize("options", [{}, SAMPLE], ids=["greedy", "samples"])
def test_recorded_scores_are_those_of_a_second_pass(
    formulation: str, generator: str, options: dict[str, Any]
) -> None:
    model, inputs = shared_model(formulation, generator), models.contexts(3)
    inputs["doc_scores"][0, 1] = float("-inf")  # a passage that does not exist
    torch.manual_seed(0)
    output = model.generate(**inputs, **options, max_new_tokens=6, return_dict_in_generate=True)
    check_provenance(model, inputs, output)


@pytest.mark.parametrize("generator", ["bart", "llama"])
def test_sequence_has_the_scores_of_its_best_beams(generator: str) -> None:
    model, inputs = shared_model("sequence", generator), models.contexts(3)
    output = model.generate(**inputs, num_beams=3, max_new_tokens=6, return_dict_in_generate=True)
    check_provenance(model, inputs, output)
    fast = model.generate(
        **inputs, num_beams=2, max_new_tokens=6, return_dict_in_generate=True, decoding="fast"
    )
    known = ~fast.passage_log_probs.isnan()
    assert known.any() and not known.all()  # of the passages that proposed the answer


def test_token_with_beams_has_none() -> None:
    output = shared_model("token").generate(
        **models.contexts(2), num_beams=2, max_new_tokens=4, return_dict_in_generate=True
    )
    assert "passage_log_probs" not in output


def forced(length: int) -> Callable[[int, Tensor], list[int]]:
    """Free choice at every ``length``-th token, between two at the second, and none elsewhere; no end."""

    def allowed(row: int, ids: Tensor) -> list[int]:
        done = len(ids) - 1
        if done % length == 0:
            return list(range(models.FIRST_WORD, models.VOCABULARY))
        return [5, 6] if done == 1 and row % 2 else [int(ids[-1]) % 30 + models.FIRST_WORD]

    return allowed


@everywhere
@both
@pytest.mark.parametrize("options", [{}, SAMPLE], ids=["greedy", "samples"])
def test_tokens_without_a_choice_pass_through_the_model_together(
    formulation: str, generator: str, options: dict[str, Any]
) -> None:
    model, inputs = shared_model(formulation, generator), models.contexts(2)
    steps: list[tuple[int, ...]] = []
    hook = model.rag.register_forward_hook(lambda _, __, output: steps.append(tuple(output.logits.shape)))
    results = []
    for stepwise in (True, False):
        steps.clear()
        torch.manual_seed(1)
        results.append(
            model.generate(
                **inputs,
                **options,
                max_new_tokens=9,
                prefix_allowed_tokens_fn=forced(4),
                return_dict_in_generate=True,
                output_scores=stepwise,
            )
        )
        counts = [shape[1] for shape in steps]
        assert counts == ([1] * 9 if stepwise else [1, 1, 3, 4])
    hook.remove()
    assert torch.equal(results[0].sequences, results[1].sequences)
    check_provenance(model, inputs, results[1])


def test_tokens_that_are_skipped_at_the_end_have_scores_too() -> None:
    model, inputs = shared_model("token"), models.contexts(2)
    output = model.generate(
        **inputs, max_new_tokens=7, prefix_allowed_tokens_fn=forced(4), return_dict_in_generate=True
    )
    assert output.sequences.shape == (2, 8)
    check_provenance(model, inputs, output)


@everywhere
@both
@pytest.mark.parametrize("options", [{}, SAMPLE], ids=["greedy", "samples"])
def test_answers_that_have_ended_are_left_out_when_they_are_half(
    formulation: str, generator: str, options: dict[str, Any]
) -> None:
    model, inputs = shared_model(formulation, generator), models.contexts(8)
    words = list(range(models.FIRST_WORD, models.VOCABULARY))

    def allowed(question: int, ids: Tensor) -> list[int]:
        return [model.end_token_ids[0]] if len(ids) > question + 1 else words

    rows: list[int] = []
    hook = model.rag.register_forward_hook(lambda _, __, output: rows.append(len(output.logits)))
    results = []
    for stepwise in (True, False):
        rows.clear()
        torch.manual_seed(1)
        results.append(
            model.generate(
                **inputs,
                **options,
                max_new_tokens=9,
                prefix_allowed_tokens_fn=allowed,
                return_dict_in_generate=True,
                output_scores=stepwise,
            )
        )
    hook.remove()
    shrunk = [number / rows[0] for number in rows]
    assert shrunk == sorted(shrunk, reverse=True)
    assert {1, 0.5, 0.25} == set(shrunk)
    assert torch.equal(results[0].sequences, results[1].sequences)
    check_provenance(model, inputs, results[1])

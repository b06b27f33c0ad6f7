"""Input that cannot work raises an error that says what to do."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from ragweave.errors import ConfigurationError, ShapeError
from ragweave.training.losses import LOSSES, adist
from tests.training.losses.cases import batch

names = pytest.mark.parametrize("name", LOSSES)


@names
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperature(name: str, temperature: float) -> None:
    with pytest.raises(ConfigurationError, match=r"^temperature is .*above 0"):
        LOSSES[name](batch(0), temperature=temperature)


@pytest.mark.parametrize("name", ["pdist", "loop", "adist"])
def test_target_temperature(name: str) -> None:
    options: dict[str, Any] = {"target_temperature": 0.0}
    with pytest.raises(ConfigurationError, match=r"^target_temperature is 0\.0; give a number above 0"):
        LOSSES[name](batch(0), **options)


@names
def test_reduction(name: str) -> None:
    options: dict[str, Any] = {"reduction": "sum"}
    with pytest.raises(ConfigurationError, match="reduction is 'sum'; choose 'mean' or 'none'"):
        LOSSES[name](batch(0), **options)


def test_formulation() -> None:
    with pytest.raises(ConfigurationError, match="formulation is 'fid'"):
        batch(0, formulation="fid")


def test_a_question_without_passages() -> None:
    inputs = batch(0)
    scores = inputs.doc_scores.clone()
    scores[1] = -math.inf
    with pytest.raises(ShapeError, match="doc_scores is -inf for all passages of question 1"):
        replace(inputs, doc_scores=scores)


def test_a_question_without_an_answer() -> None:
    inputs = batch(0)
    scored = inputs.scored.clone()
    scored[2] = False
    with pytest.raises(ShapeError, match="scored has no token of question 2"):
        replace(inputs, scored=scored)


@pytest.mark.parametrize(
    ("field", "shape", "expected"),
    [("doc_scores", (3, 5), (3, 4)), ("scored", (3, 4), (3, 5)), ("token_log_probs", (3, 4), "(B, K, T)")],
)
def test_shapes(field: str, shape: tuple[int, ...], expected: object) -> None:
    changed: dict[str, Any] = {field: torch.ones(shape)}
    with pytest.raises(ShapeError) as caught:
        replace(batch(0), **changed)
    assert str(caught.value).startswith(f"{field} has shape {shape}")
    assert str(caught.value).endswith(f"expected {expected}.")


@pytest.mark.parametrize(
    ("field", "shape", "expected"),
    [
        ("scores", (3, 4, 4, 2, 5), (3, 4, 4, 5, 5)),
        ("scores", (3, 4, 5, 5), "(B, K, H, T, S)"),
        ("value_norms", (3, 4, 5), (3, 4, 4, 5)),
        ("mask", (3, 4, 6), (3, 4, 5)),
    ],
)
def test_shapes_of_attention(field: str, shape: tuple[int, ...], expected: object) -> None:
    inputs = batch(0)
    assert inputs.attention is not None
    changed: dict[str, Any] = {field: torch.ones(shape)}
    with pytest.raises(ShapeError) as caught:
        replace(inputs, attention=replace(inputs.attention, **changed))
    assert str(caught.value) == f"attention.{field} has shape {shape}; expected {expected}."


def test_a_passage_without_a_token() -> None:
    inputs = batch(0)
    assert inputs.attention is not None
    question, passage = inputs.present.nonzero()[-1].tolist()
    mask = inputs.attention.mask.clone()
    mask[question, passage] = False
    with pytest.raises(ShapeError, match=f"all tokens of passage {passage} of question {question}"):
        replace(inputs, attention=replace(inputs.attention, mask=mask))


def test_attention_distillation_without_attention() -> None:
    with pytest.raises(ConfigurationError, match=r"give LossInputs\(attention=\.\.\.\)"):
        adist(replace(batch(0), attention=None))

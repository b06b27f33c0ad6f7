"""Causal generators: the context is the prompt, with padding on either side."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ragweave.errors import MissingContextError
from tests.support import direct, models
from tests.support.models import CAUSAL, FORMULATIONS, rag_model, shared_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

formulations = pytest.mark.parametrize("formulation", FORMULATIONS)
everywhere = pytest.mark.parametrize("generator", CAUSAL)
SLIDING = pytest.mark.parametrize("generator", ["mistral", "gemma3"])


def padded_variants(seed: int = 0) -> list[dict[str, Any]]:
    """The same contexts, padded on the right, on the left and on both sides, by different lengths."""
    inputs = models.contexts(2, 3, 9, seed=seed, padding="right")
    rows = [row[mask == 1].tolist() for row, mask in zip(*list(inputs.values())[:2], strict=True)]
    variants = []
    for left, right in ((0, 0), (None, 0), (3, 5), (0, 20), (20, 0)):
        length = 9 + (left or 0) + right
        ids, mask = torch.full((6, length), 7), torch.zeros(6, length, dtype=torch.long)
        for number, row in enumerate(rows):
            start = 9 - len(row) if left is None else left
            ids[number, start : start + len(row)] = torch.tensor(row)
            mask[number, start : start + len(row)] = 1
        variants.append(
            {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": inputs["doc_scores"]}
        )
    return variants


@pytest.mark.parametrize("generator", [*CAUSAL, "mistral", "gemma3"])
@formulations
def test_the_side_of_padding_changes_nothing(formulation: str, generator: str) -> None:
    """Also with sliding windows shorter than the contexts, in which padding would take the place of tokens."""
    model, labels = shared_model(formulation, generator), models.words(2, 4)
    variants = padded_variants()
    with torch.no_grad():
        losses = [model(**inputs, labels=labels).loss for inputs in variants]
    answers = [model.generate(**inputs, max_new_tokens=6, num_beams=2) for inputs in variants]
    for loss, answer in zip(losses[1:], answers[1:], strict=True):
        assert torch.allclose(loss, losses[0], atol=1e-4)
        assert torch.equal(answer, answers[0])


@SLIDING
@formulations
def test_sliding_windows_see_what_the_plain_generator_sees(formulation: str, generator: str) -> None:
    model, inputs, labels = shared_model(formulation, generator), models.contexts(), models.words(2, 4)
    with torch.no_grad():
        loss = model(**inputs, labels=labels).loss
    expected = [
        -direct.answer_log_likelihood(formulation, model, inputs, question, labels[question].tolist())
        for question in range(2)
    ]
    assert loss.tolist() == pytest.approx(expected, rel=1e-4)
    options = {"max_new_tokens": 8, "num_beams": 3}
    assert torch.equal(
        model.generate(**inputs, **options), model.generate(**inputs, **options, use_cache=False)
    )


@SLIDING
def test_greedy_answers_under_sliding_windows(generator: str) -> None:
    model, inputs = shared_model("token", generator), models.contexts()
    for question, answer in enumerate(model.generate(**inputs, max_new_tokens=8).tolist()):
        expected = direct.greedy_token_answer(model, inputs, question, 8)
        assert answer[: len(expected)] == expected


@everywhere
def test_the_start_token_that_callers_pass_is_a_placeholder(generator: str) -> None:
    model, inputs, read = shared_model("token", generator), models.contexts(), models.words(2, 4)
    with torch.no_grad():
        logits = []
        for start in (0, 2, 9):
            read[:, 0] = start
            logits.append(model(**inputs, decoder_input_ids=read).logits)
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


@everywhere
def test_a_mask_of_booleans_is_as_good(generator: str) -> None:
    model, inputs, labels = shared_model("token", generator), models.contexts(), models.words(2, 4)
    boolean = {**inputs, "context_attention_mask": inputs["context_attention_mask"].bool()}
    with torch.no_grad():
        losses = [model(**some, labels=labels).loss for some in (inputs, boolean)]
    assert torch.equal(*losses)
    answers = [model.generate(**some, max_new_tokens=4, num_beams=2) for some in (inputs, boolean)]
    assert torch.equal(*answers)


@everywhere
def test_masked_tokens_inside_a_context_are_skipped(generator: str) -> None:
    model, labels = shared_model("token", generator), models.words(2, 4)
    inputs = models.contexts(padding=None)
    with_hole = {**inputs, "context_attention_mask": inputs["context_attention_mask"].clone()}
    with_hole["context_attention_mask"][:, 3:5] = 0
    without = {
        "context_input_ids": torch.cat(
            [inputs["context_input_ids"][:, :3], inputs["context_input_ids"][:, 5:]], dim=1
        ),
        "context_attention_mask": torch.ones(6, 7, dtype=torch.long),
        "doc_scores": inputs["doc_scores"],
    }
    with torch.no_grad():
        losses = [model(**some, labels=labels).loss for some in (with_hole, without)]
    assert torch.allclose(*losses, atol=1e-5)


@everywhere
@formulations
def test_gradient_reaches_the_generator_and_the_scores(formulation: str, generator: str) -> None:
    model, inputs = rag_model(models.CLASSES[formulation], generator), models.contexts()
    inputs["doc_scores"].requires_grad_()
    model(**inputs, labels=models.words(2, 4)).loss.sum().backward()
    assert inputs["doc_scores"].grad.abs().sum() > 0
    assert model.generator.get_input_embeddings().weight.grad.abs().sum() > 0


def test_encoder_states_cannot_replace_a_prompt() -> None:
    with pytest.raises(MissingContextError, match="causal generator needs context_input_ids"):
        shared_model("token", "llama")(
            encoder_outputs=(torch.zeros(6, 9, 16),),
            doc_scores=torch.zeros(2, 3),
            decoder_input_ids=models.words(2, 3),
        )


def test_contexts_read_once_are_decoded_many_times() -> None:
    """`RagModel.encode_contexts` with ``reuse`` keeps the prompt's keys and values, and nothing changes them."""
    model, inputs, read = shared_model("token", "llama"), models.contexts(), models.words(2, 4)
    with torch.no_grad():
        encoded = model.rag.encode_contexts(model.rag.prepare_contexts(**inputs), reuse=True)
        options = {"encoder_outputs": encoded, "doc_scores": inputs["doc_scores"]}
        plain = model(**inputs, decoder_input_ids=read).logits
        first = model(**options, decoder_input_ids=read).logits
        several = model(**options, decoder_input_ids=read.repeat_interleave(2, 0)).logits
        again = model(**options, decoder_input_ids=read).logits
    assert torch.allclose(first, plain, atol=1e-5)
    assert torch.equal(first, again)
    assert torch.allclose(several[::2], plain, atol=1e-5)

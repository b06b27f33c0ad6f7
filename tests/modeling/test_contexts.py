"""The caller's contexts: their checks, the inferred K, and padding, which changes no result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ragweave.errors import MissingContextError, ShapeError
from ragweave.modeling import contexts
from tests.support import models
from tests.support.models import CAUSAL, FORMULATIONS, GENERATORS, SEQ2SEQ, rag_model, shared_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

formulations = pytest.mark.parametrize("formulation", FORMULATIONS)
ROUTES = pytest.mark.parametrize("route", ["forward", "generate"])


def run(model: Any, route: str, **inputs: Any) -> Any:
    if route == "generate":
        return model.generate(**inputs, max_new_tokens=3)
    with torch.no_grad():
        return model(**inputs, labels=models.words(2, 3)).loss


@pytest.mark.parametrize("missing", ["context_input_ids", "context_attention_mask", "doc_scores"])
@ROUTES
@formulations
def test_the_missing_part_is_named(formulation: str, route: str, missing: str) -> None:
    inputs = models.contexts()
    del inputs[missing]
    with pytest.raises(MissingContextError, match=rf"^{missing} not given: .*set_retriever"):
        run(shared_model(formulation), route, **inputs)


@ROUTES
@formulations
def test_a_question_without_retriever_is_refused(formulation: str, route: str) -> None:
    with pytest.raises(MissingContextError, match=r"context_input_ids and .* and doc_scores not given"):
        run(shared_model(formulation), route, input_ids=torch.full((2, 4), 5))


def wrong(**changes: Tensor) -> dict[str, Tensor]:
    return {**models.contexts(), **changes}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (wrong(doc_scores=torch.zeros(6)), r"doc_scores has shape \(6,\); expected \(B, K\)"),
        (wrong(doc_scores=torch.zeros(2, 0)), r"doc_scores has shape \(2, 0\); expected \(B, K\)"),
        (wrong(doc_scores=torch.zeros(2, 4)), r"context_input_ids has 6 rows; .* multiple of n_docs=4"),
        (
            wrong(doc_scores=torch.zeros(3, 3)),
            r"context_input_ids has 6 rows, but doc_scores has shape \(3, 3\): expected 9",
        ),
        (
            wrong(context_attention_mask=torch.ones(6, 8)),
            r"context_attention_mask has shape \(6, 8\); expected \(6, 9\)",
        ),
        (
            wrong(context_attention_mask=torch.ones(2, 9)),
            r"context_attention_mask has shape \(2, 9\); expected \(6, 9\)",
        ),
        (
            wrong(
                context_input_ids=torch.zeros(3, 3, 9, dtype=torch.long),
                context_attention_mask=torch.ones(3, 3, 9),
                doc_scores=torch.zeros(3, 3),
            ),
            r"context_input_ids has shape \(3, 3, 9\); expected \(B\*K, S\)",
        ),
    ],
    ids=["1-D scores", "no passage", "K", "B", "mask columns", "mask rows", "3-D contexts"],
)
@ROUTES
@formulations
def test_shapes_that_disagree_are_named(
    formulation: str, route: str, inputs: dict[str, Tensor], message: str
) -> None:
    model = shared_model(formulation)
    with pytest.raises(ShapeError, match=message):
        if route == "generate":
            model.generate(**inputs)
        else:
            model(**inputs, decoder_input_ids=models.words(1, 3))


@ROUTES
@formulations
def test_n_docs_is_inferred_and_checked(formulation: str, route: str) -> None:
    model = shared_model(formulation)
    assert model.config.n_docs == 3
    inputs = models.contexts(2, 5)
    inferred = run(model, route, **inputs)
    assert torch.equal(run(model, route, **inputs, n_docs=5), inferred)
    with pytest.raises(ShapeError, match=r"doc_scores has shape \(2, 5\), but n_docs=3"):
        run(model, route, **inputs, n_docs=3)


def test_decoder_input_of_wrong_rows_is_named() -> None:
    with pytest.raises(ShapeError, match=r"decoder_input_ids has 3 rows, but there are 2 questions"):
        shared_model("token")(**models.contexts(), decoder_input_ids=models.words(3, 4))


def test_decoder_input_is_needed() -> None:
    with pytest.raises(MissingContextError, match="decoder_input_ids not given"):
        shared_model("token", "t5")(**models.contexts())


# Padding.


def padded_further(inputs: dict[str, Tensor], columns: int, side: str) -> dict[str, Tensor]:
    amount = (0, columns) if side == "right" else (columns, 0)
    pad = torch.nn.functional.pad
    return {
        **inputs,
        "context_input_ids": pad(inputs["context_input_ids"], amount, value=5),
        "context_attention_mask": pad(inputs["context_attention_mask"], amount),
    }


@pytest.mark.parametrize("generator", GENERATORS)
@formulations
def test_more_padding_on_the_right_changes_nothing(formulation: str, generator: str) -> None:
    model, inputs, labels = shared_model(formulation, generator), models.contexts(), models.words(2, 4)
    further = padded_further(inputs, 20, "right")
    with torch.no_grad():
        near, far = (model(**some, labels=labels) for some in (inputs, further))
    assert torch.equal(near.logits, far.logits)
    assert torch.equal(near.loss, far.loss)
    options = {"max_new_tokens": 5, "num_beams": 2}
    assert torch.equal(model.generate(**inputs, **options), model.generate(**further, **options))


@pytest.mark.parametrize("generator", ["llama", "qwen3", "gpt2", "t5"])
@formulations
def test_more_padding_on_the_left_changes_nothing(formulation: str, generator: str) -> None:
    """For generators whose positions count real tokens only, or that have no absolute positions."""
    model, inputs, labels = shared_model(formulation, generator), models.contexts(), models.words(2, 4)
    further = padded_further(inputs, 7, "left")
    if generator == "t5":  # its encoder's relative positions are the same, its sums only nearly so
        inputs = models.contexts(padding=None)
        further = padded_further(inputs, 7, "left")
    with torch.no_grad():
        near, far = (model(**some, labels=labels).loss for some in (inputs, further))
    assert torch.allclose(near, far, atol=1e-4)
    options = {"max_new_tokens": 5, "num_beams": 2}
    assert torch.equal(model.generate(**inputs, **options), model.generate(**further, **options))


@pytest.mark.parametrize("generator", ["bart", "t5", "llama", "gpt2"])
@formulations
def test_contexts_of_a_single_token_work(formulation: str, generator: str) -> None:
    model, inputs = shared_model(formulation, generator), models.contexts(2, 3, 1, padding=None)
    assert run(model, "forward", **inputs).isfinite().all()
    assert torch.equal(
        model.generate(**inputs, max_new_tokens=4, num_beams=2),
        model.generate(**inputs, max_new_tokens=4, num_beams=2, use_cache=False),
    )


# Passages that are not there.


@pytest.mark.parametrize("generator", ["bart", "t5", "llama", "gpt2"])
@pytest.mark.parametrize("content", ["junk", "nothing"])
@formulations
def test_a_missing_passage_changes_nothing(formulation: str, generator: str, content: str) -> None:
    """Fewer hits than K: the score is -inf, and the context is anything, or only padding."""
    model, labels = shared_model(formulation, generator), models.words(2, 4)
    inputs = models.contexts(2, 2)
    more = models.contexts(2, 3, seed=5)
    for name, value in inputs.items():
        if name != "doc_scores":
            more[name].view(2, 3, -1)[:, :2] = value.view(2, 2, -1)
    more["doc_scores"][:, :2] = inputs["doc_scores"]
    more["doc_scores"][:, 2] = -torch.inf
    if content == "nothing":
        more["context_attention_mask"].view(2, 3, -1)[:, 2] = 0
    with torch.no_grad():
        losses = [model(**some, labels=labels).loss for some in (inputs, more)]
    assert torch.allclose(*losses, rtol=1e-5)
    answers = [model.generate(**some, max_new_tokens=5, num_beams=2).tolist() for some in (inputs, more)]
    assert answers[0] == answers[1]

    model.zero_grad()
    more["doc_scores"].requires_grad_()
    model(**more, labels=labels).loss.sum().backward()
    assert more["doc_scores"].grad is not None
    assert (more["doc_scores"].grad[:, 2] == 0).all()
    gradients = [p.grad for p in model.generator.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    model.zero_grad()


@pytest.mark.parametrize("decoding", ["thorough", "fast"])
def test_a_missing_passage_proposes_no_answer(decoding: str) -> None:
    model, inputs = shared_model("sequence"), models.contexts(2, 3, padding=None)
    shorter = {
        "context_input_ids": inputs["context_input_ids"].view(2, 3, -1)[:, :2].flatten(0, 1),
        "context_attention_mask": inputs["context_attention_mask"].view(2, 3, -1)[:, :2].flatten(0, 1),
        "doc_scores": inputs["doc_scores"][:, :2],
    }
    inputs["doc_scores"][:, 2] = -torch.inf
    options: dict[str, Any] = {
        "max_new_tokens": 4,
        "num_beams": 2,
        "num_return_sequences": 6,
        "return_dict_in_generate": True,
        "decoding": decoding,
    }
    with_it, without = (model.generate(**some, **options) for some in (inputs, shorter))
    assert torch.equal(with_it.sequences, without.sequences)
    assert torch.allclose(with_it.sequences_scores, without.sequences_scores)


# Contexts of like length are read together.


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("generator", SEQ2SEQ)
@formulations
def test_reading_in_groups_changes_nothing(
    formulation: str, generator: str, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = rag_model(models.CLASSES[formulation], generator), models.contexts(2, 4, padding=padding)
    model.generator.get_input_embeddings().requires_grad_(False)  # with it, contexts are read as one
    results = []
    for least in (10**6, 1):
        monkeypatch.setattr(contexts, "MIN_GROUP_TOKENS", {"cpu": least})
        read = model.rag.encode_contexts(model.rag.prepare_contexts(**inputs)).last_hidden_state
        loss = model(**inputs, labels=models.words(2, 4)).loss
        trained = next(
            parameter for parameter in model.generator.get_encoder().parameters() if parameter.requires_grad
        )
        gradient = torch.autograd.grad(loss.sum(), trained)[0]
        answers = model.generate(**inputs, max_new_tokens=5, num_beams=2)
        real = inputs["context_attention_mask"][:, : read.shape[1]].bool()
        results.append((read[real], loss, gradient, answers))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("least", "expected"), [(1, [[1], [3], [0], [2]]), (8, [[1, 3], [0, 2]]), (99, [[0, 1, 2, 3]])]
)
def test_groups_are_of_like_length_and_full(
    least: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "MIN_GROUP_TOKENS", {"cpu": least})
    groups = contexts.length_groups(torch.tensor([2, 7, 2, 5]))
    assert [rows.tolist() for rows in groups] == expected
    whole = contexts.length_groups(torch.tensor([2, 7, 2, 5]), whole=True)
    assert [rows.tolist() for rows in whole] == [[0, 1, 2, 3]]


def test_contexts_without_a_token_are_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "MIN_GROUP_TOKENS", {"cpu": 1})
    assert contexts.context_ends(torch.zeros(2, 3)).tolist() == [0, 0]
    assert [rows.tolist() for rows in contexts.length_groups(torch.zeros(2))] == [[0, 1]]


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("generator", [*CAUSAL, "mistral"])
@formulations
def test_reading_prompts_in_groups_changes_nothing(
    formulation: str, generator: str, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = rag_model(models.CLASSES[formulation], generator), models.contexts(2, 4, padding=padding)
    reads = []
    model.generator.base_model.register_forward_pre_hook(lambda *_: reads.append(None))
    results, counts = [], []
    for least in (10**6, 1):
        monkeypatch.setattr(contexts, "MIN_GROUP_TOKENS", {"cpu": least})
        reads.clear()
        results.append(
            model.generate(
                **inputs, max_new_tokens=5, num_beams=2, return_dict_in_generate=True, output_scores=True
            )
        )
        counts.append(len(reads))
    assert torch.equal(results[0].sequences, results[1].sequences)
    assert torch.allclose(results[0].sequences_scores, results[1].sequences_scores, atol=1e-4)
    assert (counts[1] > counts[0]) == (
        generator != "mistral"
    )  # whose sliding windows keep the last keys only

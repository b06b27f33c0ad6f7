"""Labels and losses: the two conventions, -100, padding, answers of one or two tokens, the BOS token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ragweave.errors import ShapeError
from tests.support import direct, models
from tests.support.models import CAUSAL, FORMULATIONS, GENERATORS, SEQ2SEQ, rag_model, shared_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

formulations = pytest.mark.parametrize("formulation", FORMULATIONS)
START = 3  # what a label row begins with where the first label is only read


def expected_losses(
    formulation: str,
    model: Any,
    inputs: dict[str, Tensor],
    answers: list[list[int]],
    start: int | None = None,
) -> list[float]:
    return [
        -direct.answer_log_likelihood(formulation, model, inputs, question, answer, start)
        for question, answer in enumerate(answers)
    ]


@pytest.mark.parametrize("generator", SEQ2SEQ)
@formulations
def test_labels_alone_are_read_and_predict_the_next_label(formulation: str, generator: str) -> None:
    model, inputs = shared_model(formulation, generator), models.contexts()
    labels = models.words(2, 5)
    labels[:, 0] = START
    with torch.no_grad():
        loss = model(**inputs, labels=labels).loss
        same = model(**inputs, labels=labels, decoder_input_ids=labels).loss
    answers = labels[:, 1:].tolist()
    assert loss.tolist() == pytest.approx(
        expected_losses(formulation, model, inputs, answers, START), rel=1e-4
    )
    assert torch.equal(loss, same)


@pytest.mark.parametrize("generator", SEQ2SEQ)
@formulations
def test_labels_with_shifted_decoder_input_are_all_predicted(formulation: str, generator: str) -> None:
    model, inputs, labels = shared_model(formulation, generator), models.contexts(), models.words(2, 4)
    shifted = model.shift_tokens_right(labels)
    assert shifted[:, 0].tolist() == [model.rag.special_tokens.decoder_start] * 2
    assert torch.equal(shifted[:, 1:], labels[:, :-1])
    with torch.no_grad():
        loss = model(**inputs, labels=labels, decoder_input_ids=shifted).loss
    assert loss.tolist() == pytest.approx(
        expected_losses(formulation, model, inputs, labels.tolist()), rel=1e-4
    )


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("generator", CAUSAL)
@formulations
def test_labels_of_a_causal_generator_are_all_predicted(
    formulation: str, generator: str, padding: str
) -> None:
    model, inputs = shared_model(formulation, generator), models.contexts(padding=padding)
    labels = models.words(2, 4)
    with torch.no_grad():
        loss = model(**inputs, labels=labels).loss
    assert loss.tolist() == pytest.approx(
        expected_losses(formulation, model, inputs, labels.tolist()), rel=1e-4
    )


@pytest.mark.parametrize("generator", ["bart", "t5", "llama", "gpt2"])
@formulations
def test_ignored_labels_and_padding_shorten_the_answer(formulation: str, generator: str) -> None:
    model, inputs, labels = shared_model(formulation, generator), models.contexts(), models.words(2, 5)
    labels[0, 3:] = -100
    if model.rag.special_tokens.pad is not None:
        labels[1, 4:] = model.rag.special_tokens.pad
    else:
        labels[1, 4:] = -100
    with torch.no_grad():
        shifted = model.shift_tokens_right(labels)
        loss = model(**inputs, labels=labels, decoder_input_ids=shifted).loss
    answers = [labels[0, :3].tolist(), labels[1, :4].tolist()]
    assert loss.tolist() == pytest.approx(expected_losses(formulation, model, inputs, answers), rel=1e-4)


@formulations
def test_an_ignored_label_amid_the_answer_is_padding_in_the_input_and_not_scored(formulation: str) -> None:
    model, inputs, labels = shared_model(formulation), models.contexts(), models.words(2, 5)
    labels[:, 2] = -100
    with torch.no_grad():
        loss = model(**inputs, labels=labels, decoder_input_ids=model.shift_tokens_right(labels)).loss
    for question in range(2):
        read = (
            labels[question].masked_fill(labels[question] < 0, model.rag.special_tokens.pad_or_eos).tolist()
        )
        table = direct.answer_table(model, inputs, question, read)
        table[:, 2] = 0.0  # log 1
        prior = direct.log_prior(inputs, question)
        assert loss[question].item() == pytest.approx(
            -direct.log_likelihood(formulation, table, prior), rel=1e-4
        )


@formulations
def test_causal_padding_that_is_the_end_token_ends_the_answer_once(formulation: str) -> None:
    model = rag_model(
        models.CLASSES[formulation], "llama", generator_fields={"pad_token_id": 2, "eos_token_id": 2}
    )
    inputs, labels = models.contexts(), models.words(2, 5)
    labels[0, 2:] = 2
    with torch.no_grad():
        loss = model(**inputs, labels=labels).loss
    answers = [labels[0, :3].tolist(), labels[1].tolist()]
    assert loss.tolist() == pytest.approx(expected_losses(formulation, model, inputs, answers), rel=1e-4)


@pytest.mark.parametrize("generator", GENERATORS)
@formulations
def test_labels_of_one_token_are_scored_and_teach_the_retriever(formulation: str, generator: str) -> None:
    model, inputs, labels = shared_model(formulation, generator), models.contexts(), models.words(2, 1)
    inputs["doc_scores"].requires_grad_()
    loss = model(**inputs, labels=labels).loss
    (gradient,) = torch.autograd.grad(loss.sum(), inputs["doc_scores"])
    assert (gradient.abs().sum(1) > 1e-6).all()
    inputs["doc_scores"] = inputs["doc_scores"].detach()
    expected = expected_losses(formulation, model, inputs, labels.tolist())
    assert loss.tolist() == pytest.approx(expected, rel=1e-4)


@formulations
def test_answers_of_one_token_after_the_start_teach_the_retriever(formulation: str) -> None:
    """Two label columns in transformers' convention: one target, which includes the passages' prior."""
    model, inputs, labels = shared_model(formulation), models.contexts(), models.words(2, 2)
    inputs["doc_scores"].requires_grad_()
    loss = model(**inputs, labels=labels).loss
    (gradient,) = torch.autograd.grad(loss.sum(), inputs["doc_scores"])
    assert (gradient.abs().sum(1) > 1e-6).all()
    inputs["doc_scores"] = inputs["doc_scores"].detach()
    expected = [
        -direct.answer_log_likelihood(formulation, model, inputs, q, [int(labels[q, 1])], int(labels[q, 0]))
        for q in range(2)
    ]
    assert loss.tolist() == pytest.approx(expected, rel=1e-4)


def test_both_formulations_agree_on_one_token() -> None:
    inputs, labels = models.contexts(), models.words(2, 1)
    losses = [shared_model(name)(**inputs, labels=labels).loss for name in FORMULATIONS]
    assert torch.allclose(*losses, rtol=1e-5)


@formulations
def test_a_leading_bos_is_left_out_where_all_rows_have_it(formulation: str) -> None:
    model, inputs, labels = shared_model(formulation), models.contexts(), models.words(2, 4)
    labels[:, 0], labels[:, 1] = 2, 0  # BART: </s> to start with, then <s>
    with torch.no_grad():
        whole = model(**inputs, labels=labels).loss
        without = model(**inputs, labels=labels, exclude_bos_score=True).loss
        other = labels.clone()
        other[1, 1] = 7
        mixed = [model(**inputs, labels=other, exclude_bos_score=flag).loss for flag in (False, True)]
    for question in range(2):
        table = direct.answer_table(model, inputs, question, labels[question, 1:].tolist(), 2)
        prior = direct.log_prior(inputs, question)
        assert whole[question].item() == pytest.approx(
            -direct.log_likelihood(formulation, table, prior), rel=1e-4
        )
        table[:, 0] = 0.0
        assert without[question].item() == pytest.approx(
            -direct.log_likelihood(formulation, table, prior), rel=1e-4
        )
    assert torch.equal(*mixed)


@pytest.mark.parametrize("generator", ["t5", "pegasus", "qwen2"])
@formulations
def test_excluding_the_bos_changes_nothing_where_the_generator_has_none(
    formulation: str, generator: str
) -> None:
    model, inputs, labels = shared_model(formulation, generator), models.contexts(), models.words(2, 4)
    assert model.rag.special_tokens.bos is None
    with torch.no_grad():
        losses = [model(**inputs, labels=labels, exclude_bos_score=flag).loss for flag in (True, False)]
    assert torch.equal(*losses)


@formulations
def test_the_configuration_excludes_the_bos_too(formulation: str) -> None:
    labels = models.words(2, 4)
    labels[:, 0], labels[:, 1] = 2, 0
    inputs = models.contexts()
    model = rag_model(models.CLASSES[formulation], exclude_bos_score=True)
    with torch.no_grad():
        by_config = model(**inputs, labels=labels).loss
        by_argument = shared_model(formulation)(**inputs, labels=labels, exclude_bos_score=True).loss
    assert torch.equal(by_config, by_argument)


@formulations
def test_reduced_loss_is_the_sum(formulation: str) -> None:
    model, inputs, labels = shared_model(formulation), models.contexts(), models.words(2, 4)
    with torch.no_grad():
        each = model(**inputs, labels=labels).loss
        reduced = model(**inputs, labels=labels, reduce_loss=True).loss
        by_config = rag_model(models.CLASSES[formulation], reduce_loss=True)(**inputs, labels=labels).loss
    assert each.shape == (2,)
    assert reduced.shape == ()
    assert reduced.item() == pytest.approx(each.sum().item())
    assert by_config.item() == reduced.item()


@formulations
def test_a_vector_of_losses_goes_backward(formulation: str) -> None:
    inputs, labels = models.contexts(), models.words(2, 4)
    gradients = []
    for reduced in (False, True):
        model = rag_model(models.CLASSES[formulation])
        model(**inputs, labels=labels, reduce_loss=reduced).loss.backward()
        gradients.append({name: p.grad for name, p in model.generator.named_parameters()})
    for name, expected in gradients[1].items():
        assert torch.allclose(gradients[0][name], expected, atol=1e-6)


@formulations
def test_a_vector_of_losses_is_an_ordinary_tensor_in_all_else(formulation: str) -> None:
    model = rag_model(models.CLASSES[formulation])
    losses = model(**models.contexts(), labels=models.words(2, 4)).loss
    assert losses.shape == (2,)
    assert type(losses.mean()) is type(losses[0]) is type(2 * losses) is torch.Tensor
    expected = torch.autograd.grad(
        losses[1], model.generator.get_output_embeddings().weight, retain_graph=True
    )
    losses.backward(torch.tensor([0.0, 1.0]))
    assert torch.allclose(model.generator.get_output_embeddings().weight.grad, expected[0], atol=1e-6)


@formulations
def test_loss_of_a_question_does_not_depend_on_its_batch(formulation: str) -> None:
    model, inputs, labels = shared_model(formulation), models.contexts(3), models.words(3, 5)
    labels[1, 3:] = 1
    with torch.no_grad():
        together = model(**inputs, labels=labels).loss
        apart = [
            model(**models.one_question(inputs, q), labels=labels[q : q + 1]).loss.item() for q in range(3)
        ]
    assert together.tolist() == pytest.approx(apart, rel=1e-5)


@formulations
def test_get_nll_takes_logits_of_the_forward_pass(formulation: str) -> None:
    model, inputs, labels = shared_model(formulation), models.contexts(), models.words(2, 5)
    with torch.no_grad():
        output = model(**inputs, labels=labels)
    loss = model.get_nll(output.logits, inputs["doc_scores"], labels, n_docs=3)
    assert torch.allclose(loss, output.loss)
    total = model.get_nll(output.logits, inputs["doc_scores"], labels, reduce_loss=True)
    assert total.item() == pytest.approx(output.loss.sum().item())
    assert not torch.allclose(model.get_nll(output.logits, inputs["doc_scores"], labels, epsilon=0.3), loss)


# What is refused.


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(3, 4, dtype=torch.long), r"labels has 3 rows, but there are 2 questions"),
        (torch.zeros(4, 4, dtype=torch.long), r"labels has 4 rows, but there are 2 questions"),
        (torch.zeros(2, dtype=torch.long), r"labels has shape \(2,\); expected \(B, T\)"),
        (torch.zeros(2, 0, dtype=torch.long), r"labels has shape \(2, 0\); expected \(B, T\)"),
        (torch.full((2, 3), models.VOCABULARY), r"labels holds 40; expected token ids from 0 to 39"),
        (torch.full((2, 3), -1), r"labels holds -1; expected .* or -100"),
    ],
    ids=["3 rows", "4 rows", "1-D", "no column", "beyond the vocabulary", "negative"],
)
@formulations
def test_labels_that_cannot_be_are_refused(formulation: str, labels: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        shared_model(formulation)(**models.contexts(), labels=labels)


def test_label_rows_are_compared_with_the_questions_where_passages_are_retrieved() -> None:
    model = rag_model(models.CLASSES["token"], retriever=models.VectorRetriever())
    with pytest.raises(ShapeError, match="labels has 3 rows, but there are 2 questions"):
        model(input_ids=torch.full((2, 4), 5), labels=models.words(3, 4))


def test_decoder_input_of_another_shape_than_labels_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"decoder_input_ids has shape \(2, 3\); expected \(2, 4\)"):
        shared_model("token")(
            **models.contexts(), labels=models.words(2, 4), decoder_input_ids=models.words(2, 3)
        )

"""Each field of the configuration is the default of retriever, model and decoding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ragweave import RagRetriever
from ragweave.retrieval.dataset import DatasetIndex
from tests.support import models, retrieval

TOKENIZER = retrieval.generator_tokenizer()
QUESTION_TOKENIZER = retrieval.question_tokenizer()
FORMULATIONS = pytest.mark.parametrize("formulation", models.FORMULATIONS)


def retriever(**fields: Any) -> RagRetriever:
    index = DatasetIndex(models.DIMENSION, retrieval.dataset())
    return RagRetriever(retrieval.config(**fields), QUESTION_TOKENIZER, TOKENIZER, index=index)


def retrieving(formulation: str, **fields: Any) -> Any:
    """A model that retrieves, whose retriever has the same configuration."""
    size = {"vocab_size": len(TOKENIZER)}
    make = retriever(**fields)
    return models.rag_model(models.CLASSES[formulation], retriever=make, **size, **fields)


def retrieve(**fields: Any) -> Any:
    make = retriever(**fields)
    return make(
        retrieval.question_batch()["input_ids"].numpy(),
        retrieval.questions(2),
        return_tensors="pt",
        padding="max_length",
    )


def loss(formulation: str, **fields: Any) -> torch.Tensor:
    """Losses of two answers whose first predicted token is the generator's BOS token."""
    model = models.rag_model(models.CLASSES[formulation], **fields)
    labels = models.words(2, 4)
    labels[:, 1] = model.generator.config.bos_token_id
    with torch.no_grad():
        result: torch.Tensor = model(**models.contexts(), labels=labels).loss
    return result


def test_separators_stand_where_they_should() -> None:
    plain = retrieval.texts_of(retrieve())
    assert all(text.count(" / ") == 1 and text.count(" // ") == 1 for text in plain)
    other = retrieval.texts_of(retrieve(title_sep=" : ", doc_sep=" ? "))
    assert other == [text.replace(" // ", " ? ").replace(" / ", " : ") for text in plain]


def test_prefix_comes_first() -> None:
    prefixed = ["answer: " + text for text in retrieval.texts_of(retrieve())]
    prefixed = [text.replace("  ", " ") for text in prefixed]  # before no title
    assert retrieval.texts_of(retrieve(prefix="answer: ")) == prefixed


def test_contexts_are_of_the_greatest_length() -> None:
    batch = retrieve(max_combined_length=40)
    assert batch["context_input_ids"].shape == (6, 40)
    assert retrieve(max_combined_length=60)["context_input_ids"].shape == (6, 60)


@FORMULATIONS
def test_so_many_passages_are_read(formulation: str) -> None:
    for n_docs in (1, 4):
        model = retrieving(formulation, n_docs=n_docs)
        output = model(**retrieval.question_batch(), labels=models.words(2, 4))
        assert output.doc_scores.shape == (2, n_docs)
        assert output.logits.shape[0] == 2 * n_docs


@FORMULATIONS
def test_smoothing_is_a_share_of_the_loss(formulation: str) -> None:
    none, some, more = (loss(formulation, label_smoothing=share) for share in (0.0, 0.1, 0.2))
    assert not torch.allclose(none, some)
    assert torch.allclose(some, (none + more) / 2, atol=1e-5)


@FORMULATIONS
def test_reduced_loss_is_one_number(formulation: str) -> None:
    each = loss(formulation)
    assert each.shape == (2,)
    assert torch.allclose(loss(formulation, reduce_loss=True), each.sum(), atol=1e-5)


@FORMULATIONS
def test_the_bos_is_scored_or_not(formulation: str) -> None:
    """Its probability is at most one, so leaving it out lowers the loss."""
    assert (loss(formulation, exclude_bos_score=True) < loss(formulation)).all()


def test_marginalised_logits_have_a_row_for_each_question() -> None:
    rows = {}
    for marginalise in (False, True):
        model = models.rag_model(models.CLASSES["token"], do_marginalize=marginalise)
        rows[marginalise] = model(**models.contexts(), decoder_input_ids=models.words(2, 4)).logits
    assert rows[False].shape[:2] == (6, 4)
    assert rows[True].shape[:2] == (2, 4)
    assert torch.allclose(rows[True].exp().sum(-1), torch.ones(2, 4), atol=1e-5)


@FORMULATIONS
def test_retrieved_passages_come_back_or_not(formulation: str) -> None:
    for flag in (False, True):
        output = retrieving(formulation, output_retrieved=flag)(
            **retrieval.question_batch(), labels=models.words(2, 4)
        )
        assert (output.retrieved_doc_ids is not None) is flag
        assert (output.context_input_ids is not None) is flag


@FORMULATIONS
def test_a_cache_comes_back_or_not(formulation: str) -> None:
    for flag in (False, True):
        model = models.rag_model(models.CLASSES[formulation], use_cache=flag)
        output = model(**models.contexts(), decoder_input_ids=models.words(2, 4))
        assert (output.past_key_values is not None) is flag


def test_equal_answers_are_merged_or_not() -> None:
    """Three equal passages propose every answer three times."""
    contexts = models.contexts(1, 1)
    contexts = {
        name: tensor.repeat_interleave(3, 0) for name, tensor in contexts.items() if tensor.dim() == 2
    }
    contexts["doc_scores"] = torch.zeros(1, 3)
    distinct = {}
    for merge in (True, False):
        model = models.rag_model(models.CLASSES["sequence"], do_deduplication=merge)
        answers = model.generate(**contexts, num_beams=2, num_return_sequences=2, max_new_tokens=4)
        distinct[merge] = len({tuple(answer) for answer in answers.tolist()})
    assert distinct == {True: 2, False: 1}


@FORMULATIONS
def test_the_longest_answer_ends_with_the_forced_token(formulation: str) -> None:
    last = models.FIRST_WORD + 3
    model = models.rag_model(models.CLASSES[formulation], forced_eos_token_id=last)
    answers = model.generate(**models.contexts(), num_beams=2, max_length=5, min_length=5)
    assert answers.shape[1] == 5
    assert (answers[:, -1] == last).all()

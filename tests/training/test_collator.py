"""Labels of a batch end as the generator's answers do."""

from __future__ import annotations

import pytest

from ragweave.errors import DataError
from ragweave.training.collator import RagCollator
from ragweave.types import Example
from tests.support.pipelines import save_rag_model
from tests.support.training import EXAMPLES, pipeline_of


@pytest.mark.parametrize("kind", ["bart", "llama"])
def test_the_collator_ends_answers_as_the_generator_does(tmp_path, tiny_encoder_path, kb, kind):
    pipeline = pipeline_of(save_rag_model(tmp_path, tiny_encoder_path, "token", kind), kb)
    tokenizer = pipeline.retriever.generator_tokenizer
    causal = pipeline.model.config.generator_is_causal
    batch = RagCollator(pipeline.retriever, causal=causal)(EXAMPLES)
    assert batch["labels"].shape[0] == batch["input_ids"].shape[0] == 4
    for row, example in zip(batch["labels"], EXAMPLES, strict=True):
        ids = [token for token in row.tolist() if token >= 0]
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == example.answers[0]
    with pytest.raises(DataError, match="no answer to learn"):
        RagCollator(pipeline.retriever, causal=causal)([Example("1", "a?", (), ("b",))])


@pytest.mark.parametrize("kind", ["bart", "llama"])
def test_unanswerable_questions_teach_the_null_answer(tmp_path, tiny_encoder_path, kb, kind):
    retriever = pipeline_of(save_rag_model(tmp_path, tiny_encoder_path, "token", kind), kb).retriever
    collator = RagCollator(retriever, causal=kind == "llama")
    question = Example("1", "a?", (), unanswerable=True)
    with pytest.raises(DataError, match=r"set null_answer in its config\.json"):
        collator([question])
    retriever.config.null_answer = ""
    ids = collator([question])["labels"][0].tolist()
    assert ids[-1] == retriever.generator_tokenizer.eos_token_id
    assert retriever.generator_tokenizer.decode(ids, skip_special_tokens=True) == ""
    retriever.config.null_answer = "not in this passage"
    ids = collator([question])["labels"][0].tolist()
    assert (
        retriever.generator_tokenizer.decode(ids, skip_special_tokens=True).strip() == "not in this passage"
    )

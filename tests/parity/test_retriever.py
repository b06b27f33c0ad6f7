"""RagRetriever against transformers', on inputs where that is right: short passages, enough of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.rag.retrieval_rag import CustomHFIndex

from ragweave import RagRetriever
from tests.support import models, retrieval

pytestmark = pytest.mark.usefixtures("quiet_transformers")

QUESTION_TOKENIZER, TOKENIZER = retrieval.question_tokenizer(), retrieval.generator_tokenizer()


def pair(**fields: Any) -> tuple[Any, RagRetriever]:
    """transformers' retriever and ours over equal data sets."""
    own_config = retrieval.config(**fields)
    config = tf.RagConfig.from_question_encoder_generator_configs(
        models.question_encoder_config(), own_config.generator, **{**DEFAULTS, **fields}
    )
    theirs = tf.RagRetriever(
        config, QUESTION_TOKENIZER, TOKENIZER, index=CustomHFIndex(models.DIMENSION, retrieval.dataset())
    )
    from ragweave.retrieval.dataset import DatasetIndex

    index = DatasetIndex(models.DIMENSION, retrieval.dataset())
    return theirs, RagRetriever(own_config, QUESTION_TOKENIZER, TOKENIZER, index=index)


DEFAULTS = {
    "n_docs": 3,
    "max_combined_length": 100,
    "index_name": "custom",
    "retrieval_vector_size": models.DIMENSION,
}


def assert_equal(theirs: Any, ours: Any) -> None:
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(value)), name


@settings(max_examples=25, deadline=None)
@given(
    n_questions=st.integers(1, 3),
    n_docs=st.integers(1, len(retrieval.PASSAGES)),
    seed=st.integers(0, 99),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "title_sep": st.sampled_from([" | ", ""]),
            "doc_sep": st.sampled_from(["  //  ", "\n"]),
            "retrieval_batch_size": st.integers(1, 3),
        },
    ),
    prefix=st.sampled_from([None, "", "read: "]),
    ctx=st.booleans(),
)
def test_calls_are_equal(
    n_questions: int, n_docs: int, seed: int, fields: dict[str, Any], prefix: str | None, ctx: bool
) -> None:
    theirs, ours = pair(**fields)
    if ctx:
        theirs.set_ctx_encoder_tokenizer(QUESTION_TOKENIZER)
        ours.set_ctx_encoder_tokenizer(QUESTION_TOKENIZER)
    ids = QUESTION_TOKENIZER(list(retrieval.QUESTIONS[:n_questions]), padding=True)["input_ids"]
    asked = (ids, retrieval.questions(n_questions, seed=seed))
    options = {"prefix": prefix, "n_docs": n_docs, "return_tensors": "pt"}
    assert_equal(theirs(*asked, **options), ours(*asked, **options))


def test_retrieve_is_equal() -> None:
    theirs, ours = pair()
    for one, other in zip(
        theirs.retrieve(retrieval.questions(), 4)[:2],
        ours.retrieve(retrieval.questions(), 4)[:2],
        strict=True,
    ):
        assert np.array_equal(one, other)
        assert one.dtype == other.dtype
    docs, own = theirs.retrieve(retrieval.questions(), 4)[2], ours.retrieve(retrieval.questions(), 4)[2]
    assert [list(doc["text"]) for doc in docs] == [doc["text"] for doc in own]


def test_a_folder_that_transformers_saved_loads_here_wherever_it_is(tmp_path: Path) -> None:
    theirs, _ = pair()
    theirs.save_pretrained(str(tmp_path / "saved"))
    (tmp_path / "saved").rename(tmp_path / "moved")  # its configuration holds absolute paths
    loaded = RagRetriever.from_pretrained(tmp_path / "moved")
    ids = QUESTION_TOKENIZER(list(retrieval.QUESTIONS), padding=True)["input_ids"]
    asked = (ids, retrieval.questions())
    assert_equal(theirs(*asked, return_tensors="pt"), loaded(*asked, return_tensors="pt"))


def test_a_folder_that_we_saved_loads_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair()
    ours.save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)  # to transformers, relative paths begin where it runs
    loaded = tf.RagRetriever.from_pretrained(str(tmp_path))
    ids = QUESTION_TOKENIZER(list(retrieval.QUESTIONS), padding=True)["input_ids"]
    asked = (ids, retrieval.questions())
    assert_equal(loaded(*asked, return_tensors="pt"), ours(*asked, return_tensors="pt"))

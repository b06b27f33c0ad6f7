"""Answers, token for token, against transformers' own RAG models, on random cases."""

from __future__ import annotations

import pytest
import torch

from tests.parity.oracle import Case, pair

pytestmark = pytest.mark.usefixtures("quiet_transformers")

GENERATORS = pytest.mark.parametrize("generator", ["bart", "t5"])


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("seed", range(12))
@GENERATORS
def test_rag_token(generator: str, seed: int, beams: int) -> None:
    case = Case(generator, 400 + seed)
    options = {"num_beams": beams, "num_return_sequences": beams, "max_length": 9, "n_docs": case.n_docs}
    theirs, ours = (
        model.generate(**case.arguments, **options).tolist() for model in pair("token", generator, seed)
    )
    assert ours == theirs


@pytest.mark.parametrize("seed", range(4))
@GENERATORS
def test_rag_token_with_processors(generator: str, seed: int) -> None:
    case = Case(generator, 500 + seed)
    options = {
        "num_beams": 3,
        "max_length": 10,
        "min_length": 5,
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.3,
        "length_penalty": 2.0,
        "early_stopping": True,
        "bad_words_ids": [[7], [8, 9]],
        "n_docs": case.n_docs,
    }
    theirs, ours = (
        model.generate(**case.arguments, **options).tolist() for model in pair("token", generator, seed)
    )
    assert ours == theirs


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("seed", range(12))
@GENERATORS
def test_rag_sequence_thorough(generator: str, seed: int, beams: int) -> None:
    case = Case(generator, 600 + seed, padded=False)
    theirs, ours = pair("sequence", generator, seed, n_docs=case.n_docs)
    options = {
        "num_beams": beams,
        "max_length": 9,
        "min_length": 4,
        "bad_words_ids": [[theirs.config.generator.pad_token_id]],
        "n_docs": case.n_docs,
    }
    answers = [model.generate(**case.arguments, **options) for model in (theirs, ours)]
    assert answers[1].tolist() == answers[0].tolist()


@pytest.mark.parametrize("seed", range(6))
@GENERATORS
def test_rag_sequence_with_several_answers(generator: str, seed: int) -> None:
    case = Case(generator, 700 + seed, padded=False)
    theirs, ours = pair("sequence", generator, seed, n_docs=case.n_docs)
    options = {
        "num_beams": 3,
        "num_return_sequences": 3,
        "max_length": 9,
        "min_length": 4,
        "bad_words_ids": [[theirs.config.generator.pad_token_id]],
        "do_deduplication": bool(seed % 2),
        "n_docs": case.n_docs,
    }
    expected, got = (model.generate(**case.arguments, **options) for model in (theirs, ours))
    if not options["do_deduplication"]:  # equal answers have equal scores, and no order among them
        expected, got = (torch.tensor(sorted(rows.tolist())) for rows in (expected, got))
    assert got.tolist() == expected.tolist()

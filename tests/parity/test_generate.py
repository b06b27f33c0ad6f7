"""Answers, token for token, against transformers' own RAG models, on random cases."""

from __future__ import annotations

from typing import Any

import pytest

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


def sequence_options(generator: str, beams: int, case: Case) -> dict[str, Any]:
    """Options under which the oracle's RAG-Sequence is right.

    With T5, whose padding has id 0, transformers' beam search pads with the end token instead, and the oracle
    takes that for a part of the answer: there, no answer may end early.
    """
    return {
        "num_beams": beams,
        "max_length": 9,
        "min_length": 9 if generator == "t5" and beams > 1 else 4,
        "bad_words_ids": [[{"bart": 1, "t5": 0}[generator]]],  # padding
        "n_docs": case.n_docs,
    }


def answers_of(model: Any, case: Case, options: dict[str, Any]) -> list[list[int]]:
    """Answers without padding: the oracle keeps columns of nothing else."""
    rows = model.generate(**case.arguments, **options).tolist()
    pad = model.config.generator.pad_token_id
    for row in rows:
        while len(row) > 1 and row[-1] == pad:
            row.pop()
    return rows


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("seed", range(12))
@GENERATORS
def test_rag_sequence_thorough(generator: str, seed: int, beams: int) -> None:
    case = Case(generator, 600 + seed, padded=False)
    theirs, ours = pair("sequence", generator, seed, n_docs=case.n_docs)
    options = sequence_options(generator, beams, case)
    assert answers_of(ours, case, options) == answers_of(theirs, case, options)


@pytest.mark.parametrize("seed", range(6))
@GENERATORS
def test_rag_sequence_with_several_answers(generator: str, seed: int) -> None:
    case = Case(generator, 700 + seed, padded=False)
    theirs, ours = pair("sequence", generator, seed, n_docs=case.n_docs)
    options = sequence_options(generator, 3, case)
    options |= {"num_return_sequences": 3, "do_deduplication": bool(seed % 2)}
    expected, got = (answers_of(model, case, options) for model in (theirs, ours))
    if not options["do_deduplication"]:  # equal answers have equal scores, and no order among them
        expected, got = sorted(expected), sorted(got)
    assert got == expected

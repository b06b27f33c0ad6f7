"""Decoding returns the tokens of the torch classes, and refuses options that it does not know."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from ragweave.errors import ConfigurationError
from ragweave.outputs import CACHE
from tests.support.models import contexts
from tests.tf.parity import FORMULATIONS, KINDS, Case, numpy_of, pair
from tests.tf.support import array, assert_close, trimmed

MODELS = pytest.mark.parametrize("kind", KINDS)
BEAMS = {"num_beams": 3, "num_return_sequences": 3}


def assert_equal_answers(theirs: Any, ours: Any, case: Case, **options: Any) -> None:
    """Check that tokens and, if there are any, scores are equal."""
    options = {"max_new_tokens": 7, "return_dict_in_generate": True, "output_scores": True, **options}
    expected = theirs.generate(**case.arguments, **options)
    got = ours.generate(**numpy_of(case.arguments), **options)
    ends, pad = theirs.rag.special_tokens.eos, theirs.rag.special_tokens.pad_or_eos
    assert trimmed(got.sequences, ends, pad) == trimmed(expected.sequences, ends, pad)
    scores = expected.get("sequences_scores")
    if scores is not None:
        assert_close(got.sequences_scores, scores)
    assert_close(got.doc_scores, expected.doc_scores)


@MODELS
@pytest.mark.parametrize("seed", range(4))
def test_greedy_tokens(kind: str, seed: int, tmp_path: Path):
    theirs, ours = pair("token", kind, seed, tmp_path)
    assert_equal_answers(theirs, ours, Case(seed))


@MODELS
@pytest.mark.parametrize("seed", range(4))
def test_beams(kind: str, seed: int, tmp_path: Path):
    theirs, ours = pair("token", kind, seed, tmp_path)
    draw = Random(seed)  # noqa: S311
    options = {
        "num_beams": draw.randint(2, 5),
        "num_return_sequences": 2,
        "length_penalty": draw.choice((0.0, 1.0, 2.0, -0.5)),
        "early_stopping": draw.choice((True, False, "never")),
    }
    assert_equal_answers(theirs, ours, Case(seed), **options)


@MODELS
@pytest.mark.parametrize("decoding", ["thorough", "fast"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("deduplicate", [True, False])
def test_sequences(kind: str, decoding: str, beams: int, deduplicate: bool, tmp_path: Path):
    theirs, ours = pair("sequence", kind, beams, tmp_path)
    for seed in range(2):
        assert_equal_answers(
            theirs,
            ours,
            Case(seed),
            decoding=decoding,
            num_beams=beams,
            num_return_sequences=4,
            do_deduplication=deduplicate,
        )


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"min_new_tokens": 5},
        {"min_length": 4, **BEAMS},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 2, **BEAMS},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 1.7, **BEAMS},
        {"forced_bos_token_id": 5, **BEAMS},
        {"forced_eos_token_id": 2},
        {"forced_eos_token_id": 2, **BEAMS},
        {"eos_token_id": [2, 7, 9], **BEAMS},
        {"max_length": 5, "max_new_tokens": None},
        {"max_new_tokens": 1},
    ],
    ids=str,
)
def test_options(formulation: str, options: dict[str, Any], tmp_path: Path):
    theirs, ours = pair(formulation, "bart", 3, tmp_path)
    case = Case(5)
    if "eos_token_id" in options:  # torch does not pad behind an end token other than the first
        expected = theirs.generate(**case.arguments, max_new_tokens=7, **options)
        got = array(ours.generate(**numpy_of(case.arguments), max_new_tokens=7, **options)).tolist()
        for row, other in zip(got, expected.tolist(), strict=True):
            end = next((n + 1 for n, token in enumerate(row) if n and token in (2, 7, 9)), len(row))
            assert row[:end] == other[:end]
        return
    assert_equal_answers(theirs, ours, case, **options)


@MODELS
@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("beams", [1, 3])
def test_lengths_by_default(kind: str, formulation: str, beams: int, tmp_path: Path):
    theirs, ours = pair(formulation, kind, 1, tmp_path)
    case = Case(2)
    options = {"num_beams": beams, "eos_token_id": 3, "max_new_tokens": None}
    expected = theirs.generate(**case.arguments, **options)
    got = ours.generate(**numpy_of(case.arguments), **options)
    assert trimmed(got, 3, theirs.rag.special_tokens.pad) == trimmed(
        expected, 3, theirs.rag.special_tokens.pad
    )


@pytest.mark.parametrize("token", [0, 1])  # T5's padding, which starts its answers, and its end token
@pytest.mark.parametrize("decoding", ["thorough", "fast"])
@pytest.mark.parametrize("beams", [1, 2])
def test_answers_without_a_word(token: int, decoding: str, beams: int, tmp_path: Path):
    theirs, ours = pair("sequence", "t5", 0, tmp_path)
    options = {"prefix_allowed_tokens_fn": lambda question, tokens: [token], "decoding": decoding}
    assert_equal_answers(theirs, ours, Case(1), num_beams=beams, num_return_sequences=2, **options)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_mixtures_of_one_passage(formulation: str, tmp_path: Path):
    theirs, ours = pair(formulation, "bart", 3, tmp_path)
    case = Case(5)
    case.arguments = contexts(2, 1, 6, seed=5)
    assert_equal_answers(theirs, ours, case, repetition_penalty=1.7)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_allowed_tokens_depend_on_the_question(formulation: str, tmp_path: Path):
    theirs, ours = pair(formulation, "bart", 0, tmp_path)
    case = Case(1)

    def allowed(question: int, tokens: Any) -> list[int]:
        return [2, 10 + question, 20 + len(tokens)]

    options = {"prefix_allowed_tokens_fn": allowed, "num_beams": 2}
    assert_equal_answers(theirs, ours, case, **options)


def test_custom_processors(tmp_path: Path):
    _, ours = pair("token", "bart", 0, tmp_path)

    def only_eleven(ids: Any, scores: Any) -> Any:
        return np.where(np.arange(scores.shape[1]) == 11, scores, -np.inf)

    answers = ours.generate(**numpy_of(Case(0).arguments), max_new_tokens=3, logits_processor=[only_eleven])
    assert (array(answers)[:, 1:] == 11).all()


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_the_seed_determines_samples(formulation: str, tmp_path: Path):
    _, ours = pair(formulation, "bart", 0, tmp_path)
    inputs = {
        **numpy_of(Case(0).arguments),
        "do_sample": True,
        "num_return_sequences": 3,
        "max_new_tokens": 6,
    }
    first, again, other = (array(ours.generate(**inputs, seed=seed)).tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("options", [{"temperature": 1e-4}, {"top_k": 1}, {"top_p": 1e-6}], ids=str)
def test_sampling_the_most_probable_token_is_greedy(options: dict[str, float], tmp_path: Path):
    _, ours = pair("token", "bart", 0, tmp_path)
    inputs = {**numpy_of(Case(0).arguments), "max_new_tokens": 6}
    drawn = array(ours.generate(**inputs, do_sample=True, seed=0, **options))
    assert drawn.tolist() == array(ours.generate(**inputs)).tolist()


def test_samples_follow_the_probabilities(tmp_path: Path):
    theirs, ours = pair("token", "bart", 0, tmp_path)
    case = Case(0)
    drawn = array(
        ours.generate(
            **numpy_of(case.arguments),
            do_sample=True,
            top_k=0,
            num_return_sequences=4000,
            max_new_tokens=1,
            temperature=2.0,
            seed=0,
        )
    )
    questions = len(case.arguments["doc_scores"])
    start = torch.full((questions, 1), theirs.rag.special_tokens.decoder_start)
    with torch.no_grad():
        logits = theirs(**case.arguments, decoder_input_ids=start, do_marginalize=True).logits[:, -1]
    expected = (logits / 2.0).softmax(-1)
    for question, sample in enumerate(drawn[:, 1].reshape(questions, -1)):
        shares = np.bincount(sample, minlength=expected.shape[1]) / len(sample)
        assert 0.5 * np.abs(shares - expected[question].numpy()).sum() < 0.1


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_sampled_beams_of_a_low_temperature_are_the_best_ones(formulation: str, tmp_path: Path):
    _, ours = pair(formulation, "bart", 0, tmp_path)
    inputs = {**numpy_of(Case(0).arguments), **BEAMS, "max_new_tokens": 6}
    sampled = ours.generate(**inputs, do_sample=True, temperature=1e-4, top_k=0, seed=0)
    assert array(sampled).tolist() == array(ours.generate(**inputs)).tolist()


@pytest.mark.skipif(CACHE != "cache", reason="before 5.24, transformers does not sort what it has sampled")
def test_sampled_beams_follow_the_probabilities(tmp_path: Path):
    theirs, ours = pair("token", "bart", 0, tmp_path)
    arguments = {name: value.repeat(1500, 1) for name, value in contexts(1, 1, 5, seed=3).items()}
    options = {"num_beams": 2, "do_sample": True, "top_k": 3, "temperature": 2.0, "max_new_tokens": 2}
    torch.manual_seed(0)
    shares = [
        np.bincount(array(answers)[:, 1:3] @ [40, 1], minlength=1600) / 1500
        for answers in (
            theirs.generate(**arguments, **options),
            ours.generate(**numpy_of(arguments), **options, seed=0),
        )
    ]
    assert 0.5 * np.abs(shares[0] - shares[1]).sum() < 0.1
    assert (shares[0] > 0.02).sum() > 2


def test_a_generation_config_is_used_and_not_changed(tmp_path: Path):
    theirs, ours = pair("token", "bart", 0, tmp_path)
    config = GenerationConfig(num_beams=3, max_new_tokens=5)
    before = config.to_dict()
    assert_equal_answers(theirs, ours, Case(0), generation_config=config, max_new_tokens=5)
    assert config.to_dict() == before


def test_encoded_contexts_are_reused(tmp_path: Path):
    _, ours = pair("sequence", "t5", 0, tmp_path)
    inputs = numpy_of(Case(0).arguments)
    encoded = ours.rag.encode_contexts(ours.rag.prepare_contexts(**inputs))
    once = array(ours.generate(**inputs, num_beams=2, max_new_tokens=5))
    assert (
        array(ours.generate(**inputs, encoder_outputs=encoded, num_beams=2, max_new_tokens=5)).tolist()
        == once.tolist()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty_alpha": 0.6}, "penalty_alpha"),
        ({"num_beams": 4, "num_beam_groups": 2}, "num_beam_groups"),
        ({"num_beams": 2, "num_return_sequences": 3, "do_sample": True}, "num_return_sequences"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_length": 1}, "1 or more"),
    ],
    ids=str,
)
def test_impossible_options_are_named(options: dict[str, Any], message: str, tmp_path: Path):
    _, ours = pair("token", "bart", 0, tmp_path)
    with pytest.raises(ValueError, match=message):  # transformers' configuration raises some of them
        ours.generate(**numpy_of(Case(0).arguments), **options)


def test_unknown_arguments_are_refused(tmp_path: Path):
    _, ours = pair("token", "bart", 0, tmp_path)
    with pytest.raises(TypeError, match="beans"):
        ours.generate(**numpy_of(Case(0).arguments), beans=3)


def test_unknown_decodings_are_refused(tmp_path: Path):
    _, ours = pair("sequence", "bart", 0, tmp_path)
    with pytest.raises(ConfigurationError, match="'thorough' or 'fast'"):
        ours.generate(**numpy_of(Case(0).arguments), decoding="quick")

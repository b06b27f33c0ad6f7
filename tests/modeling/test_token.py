"""RAG-Token: the mixture, its decoding by transformers' loops, and the options of these loops."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.generation.streamers import BaseStreamer

from ragweave import RagTokenForGeneration, RetrievAugLMMarginOutput
from ragweave.errors import ConfigurationError
from tests.support import direct, models
from tests.support.models import CAUSAL, DECODERS, GENERATORS, SEQ2SEQ, rag_model, shared_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

everywhere = pytest.mark.parametrize("generator", DECODERS)


def token_model(generator: str = "bart") -> Any:
    return shared_model("token", generator)


def one_at_a_time(model: Any, inputs: dict[str, Tensor], **options: Any) -> list[list[int]]:
    """Answers without trailing padding, each question decoded alone."""
    rows = [
        model.generate(**models.one_question(inputs, q), **options) for q in range(len(inputs["doc_scores"]))
    ]
    return [cut(row, model) for output in rows for row in output.tolist()]


def cut(row: list[int], model: Any) -> list[int]:
    if model.rag.special_tokens.eos in row[1:]:
        return row[: row.index(model.rag.special_tokens.eos, 1) + 1]
    return row


# Logits.


@pytest.mark.parametrize("generator", GENERATORS)
def test_logits_are_the_generators_under_each_passage(generator: str) -> None:
    model, inputs, read = token_model(generator), models.contexts(), models.words(2, 4)
    read[:, 0] = model.rag.special_tokens.decoder_start
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=read).logits
    assert logits.shape == (6, 4, models.VOCABULARY)
    for question, passage in itertools.product(range(2), range(3)):
        context = direct.context_of(inputs, question, passage)
        expected = direct.next_token_log_probs(model, context, read[question].tolist())
        got = logits[question * 3 + passage].double().log_softmax(-1)
        assert torch.allclose(got, expected, atol=1e-4)


@everywhere
def test_marginalised_logits_are_the_mixture(generator: str) -> None:
    model, inputs, read = token_model(generator), models.contexts(), models.words(2, 4)
    read[:, 0] = model.rag.special_tokens.decoder_start
    with torch.no_grad():
        output = model(**inputs, decoder_input_ids=read, do_marginalize=True)
        flat = model(**inputs, decoder_input_ids=read).logits
    assert output.logits.shape == (2, 4, models.VOCABULARY)
    for question in range(2):
        prior = direct.log_prior(inputs, question)
        mixture = sum(
            prior[k].exp()
            * direct.next_token_log_probs(
                model, direct.context_of(inputs, question, k), read[question].tolist()
            ).exp()
            for k in range(3)
        )
        assert torch.allclose(output.logits[question].double().exp(), mixture, atol=1e-5)
    assert torch.allclose(model.marginalize(flat, inputs["doc_scores"]), output.logits, atol=1e-6)


def test_configuration_marginalises_too() -> None:
    inputs, read = models.contexts(), models.words(2, 4)
    by_config = rag_model(RagTokenForGeneration, do_marginalize=True)(**inputs, decoder_input_ids=read)
    assert by_config.logits.shape == (2, 4, models.VOCABULARY)


def test_several_decoder_rows_per_question() -> None:
    model, inputs, read = token_model(), models.contexts(), models.words(4, 5)  # R = 2
    with torch.no_grad():
        both = model(**inputs, decoder_input_ids=read, do_marginalize=True).logits
        rows = [
            model(**inputs, decoder_input_ids=read[[r, 2 + r]], do_marginalize=True).logits for r in (0, 1)
        ]
    assert both.shape[0] == 4
    assert torch.allclose(both[[0, 2]], rows[0], atol=1e-5)
    assert torch.allclose(both[[1, 3]], rows[1], atol=1e-5)


# Decoding.


@pytest.mark.parametrize("beams", [1, 3])
@everywhere
def test_cached_decoding_equals_uncached(generator: str, beams: int) -> None:
    model, inputs = token_model(generator), models.contexts()
    options = {
        "max_new_tokens": 8,
        "num_beams": beams,
        "num_return_sequences": beams,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    cached, uncached = (model.generate(**inputs, **options, use_cache=flag) for flag in (True, False))
    assert cached.past_key_values is not None
    assert uncached.past_key_values is None
    assert torch.equal(cached.sequences, uncached.sequences)
    if beams > 1:
        assert torch.allclose(cached.sequences_scores, uncached.sequences_scores, atol=1e-4)


@pytest.mark.parametrize("generator", GENERATORS)
def test_greedy_answers_are_the_argmax_of_the_mixture(generator: str) -> None:
    model, inputs = token_model(generator), models.contexts(3)
    answers = model.generate(**inputs, max_new_tokens=6)
    for question, answer in enumerate(answers.tolist()):
        assert cut(answer, model) == direct.greedy_token_answer(model, inputs, question, 6)


@pytest.mark.parametrize("generator", ["llama", "bart"])
def test_a_wide_beam_finds_the_best_answer_of_all(generator: str) -> None:
    vocabulary, steps = 5, 3
    model = rag_model(RagTokenForGeneration, generator, vocab_size=vocabulary, seed=3)
    inputs = models.contexts(2, 3, 5, vocab_size=vocabulary)
    output = model.generate(
        **inputs,
        max_new_tokens=steps,
        num_beams=vocabulary**2,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    end = model.rag.special_tokens.eos
    answers = {
        tokens[: tokens.index(end) + 1] if end in tokens else tokens
        for tokens in itertools.product(range(vocabulary), repeat=steps)
    }
    for question in range(2):
        scores = {
            answer: direct.answer_log_likelihood("token", model, inputs, question, list(answer))
            for answer in answers
        }
        best = max(scores, key=scores.__getitem__)
        assert output.sequences_scores[question].item() == pytest.approx(scores[best], abs=1e-4)
        assert tuple(cut(output.sequences[question].tolist(), model)[1 : len(best) + 1]) == best


@pytest.mark.parametrize("beams", [1, 4])
@everywhere
def test_batched_questions_equal_one_at_a_time(generator: str, beams: int) -> None:
    model, inputs = token_model(generator), models.contexts(3)
    together = model.generate(**inputs, max_new_tokens=7, num_beams=beams).tolist()
    alone = one_at_a_time(model, inputs, max_new_tokens=7, num_beams=beams)
    assert [cut(row, model) for row in together] == alone


@pytest.mark.parametrize("beams", [1, 3])
@everywhere
def test_one_passage_gives_the_plain_generators_answers(generator: str, beams: int) -> None:
    model, inputs = token_model(generator), models.contexts(3, 1, padding=None)
    options = {"max_new_tokens": 6, "num_beams": beams}
    ours = model.generate(**inputs, **options)
    plain = model.generator.generate(
        inputs["context_input_ids"],
        attention_mask=inputs["context_attention_mask"],
        pad_token_id=model.rag.special_tokens.pad_or_eos,
        **options,
    )
    if generator in CAUSAL:
        plain, ours = plain[:, inputs["context_input_ids"].shape[1] :], ours[:, 1:]
    assert torch.equal(ours, plain)


def test_max_new_tokens_is_honoured() -> None:
    model, inputs = token_model(), models.contexts()
    for count in (1, 5, 8):
        answers = model.generate(**inputs, max_new_tokens=count, min_new_tokens=count)
        assert answers.shape == (2, count + 1)
    assert model.generate(**inputs, max_length=4, min_length=4).shape == (2, 4)


def test_sampling_follows_the_seed_and_returns_as_many_as_asked() -> None:
    model, inputs = token_model("llama"), models.contexts()
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(model.generate(**inputs, do_sample=True, num_return_sequences=4, max_new_tokens=6))
    assert draws[0].shape[0] == 8
    assert torch.equal(draws[0], draws[1])
    assert draws[0].shape != draws[2].shape or not torch.equal(draws[0], draws[2])
    assert len({tuple(row) for row in draws[0].tolist()}) > 4


def test_samples_are_drawn_from_the_mixture() -> None:
    model, inputs = token_model("llama"), models.contexts(2)
    torch.manual_seed(0)
    count = 3000
    drawn = model.generate(
        **inputs, do_sample=True, num_return_sequences=count, max_new_tokens=1, top_k=0, top_p=1.0
    )
    with torch.no_grad():
        start = drawn.new_full((2, 1), model.rag.special_tokens.decoder_start)
        expected = model(**inputs, decoder_input_ids=start, do_marginalize=True).logits[:, 0].exp()
    for question in range(2):
        mine = drawn[question * count : (question + 1) * count, 1]
        frequency = torch.bincount(mine, minlength=models.VOCABULARY) / count
        assert (frequency - expected[question]).abs().max() < 0.04


def test_beam_sampling_runs_with_and_without_cache() -> None:
    model, inputs = token_model(), models.contexts()
    answers = []
    for flag in (True, False):
        torch.manual_seed(0)
        answers.append(
            model.generate(**inputs, do_sample=True, num_beams=3, max_new_tokens=5, use_cache=flag).tolist()
        )
    assert answers[0] == answers[1]


# What transformers' loops are given.


class Collector(BaseStreamer):
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("generator", ["bart", "llama"])
def test_a_streamer_receives_the_greedy_answer_token_by_token(generator: str) -> None:
    model, inputs, streamer = token_model(generator), models.contexts(1), Collector()
    answer = model.generate(**inputs, max_new_tokens=6, streamer=streamer)
    assert streamer.tokens == answer[0].tolist()
    assert streamer.ended


@pytest.mark.parametrize("beams", [1, 2])
def test_allowed_tokens_are_asked_by_question(beams: int) -> None:
    model, inputs, questions = token_model(), models.contexts(), set()

    def allowed(question: int, tokens: Tensor) -> list[int]:
        questions.add(question)
        return [10 + question, 20 + question]

    answers = model.generate(**inputs, max_new_tokens=4, num_beams=beams, prefix_allowed_tokens_fn=allowed)
    assert questions == {0, 1}
    for question, answer in enumerate(answers.tolist()):
        assert set(answer[1:]) <= {10 + question, 20 + question}


def test_stopping_criteria_stop() -> None:
    class AtLength(tf.StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
            return torch.full((len(input_ids),), input_ids.shape[1] >= 3, dtype=torch.bool)

    answers = token_model("llama").generate(
        **models.contexts(), max_new_tokens=9, stopping_criteria=tf.StoppingCriteriaList([AtLength()])
    )
    assert answers.shape[1] == 3


def test_logits_processors_process() -> None:
    class Only(tf.LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            only_nine = torch.full_like(scores, -torch.inf)
            only_nine[:, 9] = 0.0
            return only_nine

    answers = token_model().generate(
        **models.contexts(), max_new_tokens=3, logits_processor=tf.LogitsProcessorList([Only()])
    )
    assert answers[:, 1:].eq(9).all()


def test_processors_of_the_encoders_input_see_all_passages_of_the_question() -> None:
    model, inputs = token_model(), models.contexts(1, 3, 30, padding=None)
    seen = set(inputs["context_input_ids"].flatten().tolist())
    answer = model.generate(**inputs, max_new_tokens=8, encoder_repetition_penalty=1000.0)
    assert set(answer[0, 1:].tolist()) <= seen | {model.rag.special_tokens.eos}


def test_output_of_generate_as_a_dictionary() -> None:
    model, inputs = token_model(), models.contexts()
    greedy = model.generate(
        **inputs, max_new_tokens=4, return_dict_in_generate=True, output_scores=True, output_logits=True
    )
    assert greedy.sequences.shape[0] == 2
    assert greedy.scores[0].shape == (2, models.VOCABULARY)
    assert torch.allclose(greedy.logits[0].exp().sum(-1), torch.ones(2), atol=1e-5)
    beams = model.generate(
        **inputs,
        max_new_tokens=4,
        num_beams=3,
        num_return_sequences=2,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert beams.sequences.shape[0] == 4
    assert beams.sequences_scores.shape == (4,)
    for output in (greedy, beams):
        for name, value in inputs.items():
            assert torch.equal(output[name], value)
        assert "retrieved_doc_ids" not in output


@pytest.mark.parametrize("beams", [1, 2])
def test_output_as_a_dictionary_says_what_was_retrieved(beams: int) -> None:
    retriever = models.VectorRetriever()
    model = rag_model(RagTokenForGeneration, retriever=retriever)
    questions = models.words(2, 5)
    output = model.generate(
        input_ids=questions, max_new_tokens=4, num_beams=beams, return_dict_in_generate=True
    )
    expected = model.rag.retrieve(questions)
    assert torch.equal(output.retrieved_doc_ids, expected.retrieved_doc_ids)
    assert torch.equal(output.context_input_ids, expected.context_input_ids)
    assert torch.allclose(output.doc_scores, expected.doc_scores)


# GenerationConfig.


def test_the_callers_generation_config_wins_and_is_left_alone() -> None:
    model, inputs = rag_model(RagTokenForGeneration), models.contexts()
    model.generation_config.max_new_tokens = 3
    model.generation_config.num_beams = 2
    config = tf.GenerationConfig(max_new_tokens=5, min_new_tokens=5, num_beams=1)
    before = copy.deepcopy(config.to_dict())
    answers = model.generate(**inputs, generation_config=config)
    assert answers.shape[1] == 6
    assert torch.equal(answers, model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, num_beams=1))
    assert config.to_dict() == before


def test_arguments_win_over_the_generation_config() -> None:
    config = tf.GenerationConfig(max_new_tokens=5, min_new_tokens=2)
    answers = token_model().generate(**models.contexts(), generation_config=config, max_new_tokens=2)
    assert answers.shape[1] == 3


def test_generate_leaves_the_models_generation_config_alone() -> None:
    model, inputs = rag_model(RagTokenForGeneration), models.contexts()
    config, before = model.generation_config, copy.deepcopy(model.generation_config.to_dict())
    model.generate(**inputs, max_new_tokens=2)
    assert model.generation_config is config
    assert config.to_dict() == before
    config.max_new_tokens, config.min_new_tokens = 4, 4  # and what is set afterwards counts
    assert model.generate(**inputs).shape[1] == 5


@pytest.mark.parametrize("generator", SEQ2SEQ)
def test_a_question_tokenizers_token_types_are_no_obstacle(generator: str) -> None:
    model, inputs = token_model(generator), models.contexts()
    plain = model.generate(**inputs, max_new_tokens=3)
    with_types = model.generate(**inputs, max_new_tokens=3, token_type_ids=torch.zeros(2, 4))
    assert torch.equal(plain, with_types)


def test_unknown_arguments_of_generate_are_refused() -> None:
    with pytest.raises(ValueError, match="num_beems"):
        token_model().generate(**models.contexts(), num_beems=3)


# Steps by hand.


@pytest.mark.parametrize("beams", [1, 2])
@everywhere
def test_decoding_step_by_step_with_the_returned_cache(generator: str, beams: int) -> None:
    model, inputs, read = token_model(generator), models.contexts(), models.words(2 * beams, 5)
    with torch.no_grad():
        whole = model(**inputs, decoder_input_ids=read, do_marginalize=True).logits
        first = model(**inputs, decoder_input_ids=read[:, :3], use_cache=True, do_marginalize=True)
        rest = model(
            **inputs,
            past_key_values=first.past_key_values,
            decoder_input_ids=read[:, 3:],
            do_marginalize=True,
        )
    assert isinstance(first, RetrievAugLMMarginOutput)
    assert torch.allclose(torch.cat([first.logits, rest.logits], 1), whole, atol=1e-4)


@pytest.mark.parametrize("generator", SEQ2SEQ)
def test_decoding_step_by_step_from_encoder_states(generator: str) -> None:
    model, inputs, read = token_model(generator), models.contexts(), models.words(2, 5)
    with torch.no_grad():
        whole = model(**inputs, decoder_input_ids=read, do_marginalize=True).logits
        first = model(**inputs, decoder_input_ids=read[:, :3], use_cache=True, do_marginalize=True)
        rest = model(
            encoder_outputs=(first.generator_enc_last_hidden_state,),
            context_attention_mask=inputs["context_attention_mask"],
            doc_scores=inputs["doc_scores"],
            past_key_values=first.past_key_values,
            decoder_input_ids=read[:, 3:],
            do_marginalize=True,
        )
    assert torch.allclose(torch.cat([first.logits, rest.logits], 1), whole, atol=1e-4)


def test_a_cache_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="past_key_values is a DynamicCache"):
        token_model("llama")(
            **models.contexts(), decoder_input_ids=models.words(2, 1), past_key_values=DynamicCache()
        )


@pytest.mark.parametrize("beams", [1, 3])
@everywhere
def test_contexts_read_ahead_serve_several_decodings(generator: str, beams: int) -> None:
    model, inputs = token_model(generator), models.contexts()
    expected = model.generate(**inputs, max_new_tokens=5, num_beams=beams)
    with torch.no_grad():
        read = model.rag.encode_contexts(model.rag.prepare_contexts(**inputs), reuse=True)
    for _ in range(2):
        answers = model.generate(**inputs, encoder_outputs=read, max_new_tokens=5, num_beams=beams)
        assert torch.equal(answers, expected)

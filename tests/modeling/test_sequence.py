"""RAG-Sequence: hypotheses of every passage, scored under all passages or, in fast decoding, where proposed."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

from ragweave import RagSequenceForGeneration, RagSequenceGenerateOutput
from ragweave.errors import ConfigurationError
from tests.support import direct, models
from tests.support.models import CAUSAL, DECODERS, GENERATORS, rag_model, shared_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

everywhere = pytest.mark.parametrize("generator", DECODERS)
DECODINGS = pytest.mark.parametrize("decoding", ["thorough", "fast"])


def sequence_model(generator: str = "bart") -> Any:
    return shared_model("sequence", generator)


def answers_of(output: RagSequenceGenerateOutput, model: Any, question: int, per_question: int) -> list[Any]:
    """(score, answer) pairs of one question, without start token and padding."""
    rows = range(question * per_question, (question + 1) * per_question)
    pairs = []
    for row in rows:
        tokens = output.sequences[row, 1:].tolist()
        if model.rag.special_tokens.eos in tokens:
            tokens = tokens[: tokens.index(model.rag.special_tokens.eos) + 1]
        pairs.append((output.sequences_scores[row].item(), tuple(tokens)))
    return pairs


def decode(model: Any, inputs: dict[str, Tensor], **options: Any) -> RagSequenceGenerateOutput:
    defaults = {
        "max_new_tokens": 5,
        "return_dict_in_generate": True,
        "suppress_tokens": direct.padding_of(model),
    }
    return model.generate(**inputs, **{**defaults, **options})


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("generator", GENERATORS)
def test_decoding_is_that_of_the_paper(generator: str, beams: int) -> None:
    """Proposals by the plain generator, one context at a time; scores by direct evaluation."""
    model, inputs = sequence_model(generator), models.contexts(2, 3)
    count = 3 * beams
    ranked = [direct.ranked_answers(model, inputs, question, beams, 5) for question in range(2)]
    for decoding in ("thorough", "fast"):
        output = decode(model, inputs, num_beams=beams, num_return_sequences=count, decoding=decoding)
        assert output.sequences.shape[0] == 2 * count
        for question in range(2):
            expected, answers = ranked[question][decoding], answers_of(output, model, question, count)
            assert [score for score, _ in answers[: len(expected)]] == pytest.approx(
                [score for score, _ in expected], abs=1e-3
            )
            assert [answer for _, answer in answers[: len(expected)]] == [answer for _, answer in expected]
            for score, answer in answers[len(expected) :]:
                assert score == -torch.inf
                assert set(answer) <= {model.rag.special_tokens.pad_or_eos}


def test_a_wide_beam_finds_the_best_answer_of_all() -> None:
    vocabulary, steps = 5, 3
    model = rag_model(RagSequenceForGeneration, "gpt2", vocab_size=vocabulary, seed=2)
    inputs = models.contexts(2, 3, 5, vocab_size=vocabulary)
    output = decode(model, inputs, max_new_tokens=steps, num_beams=vocabulary**2, length_penalty=0.0)
    end = model.rag.special_tokens.eos
    everything = {
        tokens[: tokens.index(end) + 1] if end in tokens else tokens
        for tokens in itertools.product(range(vocabulary), repeat=steps)
    }
    for question in range(2):
        scores = {
            answer: direct.answer_log_likelihood("sequence", model, inputs, question, list(answer))
            for answer in everything
        }
        best = max(scores, key=scores.__getitem__)
        ((score, answer),) = answers_of(output, model, question, 1)
        assert score == pytest.approx(scores[best], abs=1e-4)
        assert answer[: len(best)] == best


@pytest.mark.parametrize("beams", [1, 3])
@everywhere
def test_cached_decoding_equals_uncached(generator: str, beams: int) -> None:
    model, inputs = sequence_model(generator), models.contexts()
    cached, uncached = (
        decode(model, inputs, num_beams=beams, num_return_sequences=2, use_cache=flag)
        for flag in (True, False)
    )
    assert torch.equal(cached.sequences, uncached.sequences)
    assert torch.allclose(cached.sequences_scores, uncached.sequences_scores, atol=1e-4)


@everywhere
@DECODINGS
def test_batched_questions_equal_one_at_a_time(decoding: str, generator: str) -> None:
    model, inputs = sequence_model(generator), models.contexts(3)
    options = {"num_beams": 2, "num_return_sequences": 2, "decoding": decoding}
    together = decode(model, inputs, **options)
    for question in range(3):
        alone = decode(model, models.one_question(inputs, question), **options)
        mine, alone_answers = answers_of(together, model, question, 2), answers_of(alone, model, 0, 2)
        assert [answer for _, answer in mine] == [answer for _, answer in alone_answers]
        assert [score for score, _ in mine] == pytest.approx([score for score, _ in alone_answers], abs=1e-4)


def test_answers_are_as_wide_as_the_longest_that_is_returned() -> None:
    model, inputs = sequence_model("t5"), models.contexts(4)
    options = {"num_beams": 3, "max_new_tokens": 12}
    best = decode(model, inputs, **options, num_return_sequences=1)
    longest = max(len(answers_of(best, model, question, 1)[0][1]) for question in range(4))
    assert best.sequences.shape[1] == 1 + longest
    assert decode(model, inputs, **options, num_return_sequences=9).sequences.shape[1] > 1 + longest


@everywhere
def test_scores_are_minus_the_loss_of_the_answers(generator: str) -> None:
    model, inputs = sequence_model(generator), models.contexts(2)
    output = decode(model, inputs, num_beams=2, min_new_tokens=5)
    labels = output.sequences if generator not in CAUSAL else output.sequences[:, 1:]
    with torch.no_grad():
        loss = model(**inputs, labels=labels).loss
    assert torch.allclose(-loss, output.sequences_scores, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
@everywhere
def test_one_passage_ranks_the_plain_generators_answers(generator: str, beams: int) -> None:
    model, inputs = sequence_model(generator), models.contexts(2, 1, padding=None)
    output = decode(model, inputs, num_beams=beams, num_return_sequences=beams)
    for question in range(2):
        mine = {answer for _, answer in answers_of(output, model, question, beams)}
        assert mine == set(direct.proposals(model, inputs, question, 0, beams, 5))


def test_scoring_in_slices_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = sequence_model(), models.contexts()
    whole = decode(model, inputs, num_beams=3, num_return_sequences=4)
    monkeypatch.setattr("ragweave.modeling.sequence.MAX_LOGITS", 1)
    sliced = decode(model, inputs, num_beams=3, num_return_sequences=4)
    assert torch.equal(whole.sequences, sliced.sequences)
    assert torch.allclose(whole.sequences_scores, sliced.sequences_scores, atol=1e-5)


# How many answers.


@DECODINGS
def test_rows_of_padding_stand_for_answers_that_are_lacking(decoding: str) -> None:
    model, inputs = sequence_model(), models.contexts(2, 2)
    output = decode(model, inputs, num_beams=1, num_return_sequences=5, decoding=decoding)
    assert output.sequences.shape[0] == 10
    missing = output.sequences_scores == -torch.inf
    assert missing.view(2, 5)[:, 2:].all()
    assert not missing.view(2, 5)[:, 0].any()
    assert (output.sequences[missing] == model.rag.special_tokens.pad).all()
    descending = output.sequences_scores.view(2, 5)
    assert (descending[:, :-1] >= descending[:, 1:]).all()


def test_equal_hypotheses_are_kept_where_asked_for() -> None:
    model = sequence_model()
    inputs = models.contexts(1, 1, padding=None)
    inputs = {
        "context_input_ids": inputs["context_input_ids"].repeat(3, 1),
        "context_attention_mask": inputs["context_attention_mask"].repeat(3, 1),
        "doc_scores": torch.randn(1, 3),
    }
    once = decode(model, inputs, num_return_sequences=3)
    thrice = decode(model, inputs, num_return_sequences=3, do_deduplication=False)
    assert once.sequences_scores.isinf().tolist() == [False, True, True]
    assert thrice.sequences_scores.isfinite().all()
    assert torch.allclose(thrice.sequences_scores, once.sequences_scores[:1].expand(3))
    assert thrice.sequences.unique(dim=0).shape[0] == 1
    by_config = rag_model(RagSequenceForGeneration, do_deduplication=False)
    assert decode(by_config, inputs, num_return_sequences=3).sequences_scores.isfinite().all()


def test_sampling_follows_the_seed_and_returns_as_many_as_asked() -> None:
    model, inputs = sequence_model("llama"), models.contexts()
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(decode(model, inputs, do_sample=True, num_return_sequences=4))
    assert draws[0].sequences.shape[0] == 8
    assert draws[0].sequences_scores.isfinite().all()  # 3 passages with 4 samples each are enough for 4
    assert torch.equal(draws[0].sequences, draws[1].sequences)
    assert draws[0].sequences.tolist() != draws[2].sequences.tolist()


def test_max_new_tokens_is_honoured() -> None:
    model, inputs = sequence_model(), models.contexts()
    for count in (1, 4):
        answers = model.generate(**inputs, max_new_tokens=count, min_new_tokens=count)
        assert answers.shape == (2, count + 1)


def test_output_as_a_dictionary_says_what_was_read() -> None:
    model, inputs = sequence_model(), models.contexts()
    output = decode(model, inputs)
    assert isinstance(output, RagSequenceGenerateOutput)
    assert torch.equal(output.sequences, decode(model, inputs, return_dict_in_generate=False))
    for name, value in inputs.items():
        assert torch.equal(output[name], value)
    assert output.retrieved_doc_ids is None


def test_other_words_for_decoding_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"decoding is 'quick'; choose 'thorough' or 'fast'"):
        sequence_model().generate(**models.contexts(), decoding="quick")


# What the search is given.


@pytest.mark.parametrize("beams", [1, 2])
def test_allowed_tokens_are_asked_by_question(beams: int) -> None:
    questions = set()

    def allowed(question: int, tokens: Tensor) -> list[int]:
        questions.add(question)
        return [10 + question, 20 + question]

    answers = sequence_model().generate(
        **models.contexts(), max_new_tokens=4, num_beams=beams, prefix_allowed_tokens_fn=allowed
    )
    assert questions == {0, 1}
    for question, answer in enumerate(answers.tolist()):
        assert set(answer[1:]) <= {10 + question, 20 + question}


def test_stopping_criteria_stop() -> None:
    class AtLength(tf.StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
            return torch.full((len(input_ids),), input_ids.shape[1] >= 3, dtype=torch.bool)

    answers = sequence_model("llama").generate(
        **models.contexts(), max_new_tokens=9, stopping_criteria=tf.StoppingCriteriaList([AtLength()])
    )
    assert answers.shape[1] <= 3


def test_the_callers_generation_config_wins_and_is_left_alone() -> None:
    model, inputs = rag_model(RagSequenceForGeneration), models.contexts()
    model.generation_config.max_new_tokens = 3
    model.generator.generation_config.num_beams = 3
    config = tf.GenerationConfig(
        max_new_tokens=5, min_new_tokens=5, num_beams=2, num_return_sequences=2, return_dict_in_generate=True
    )
    before = copy.deepcopy(config.to_dict())
    output = model.generate(**inputs, generation_config=config)
    assert isinstance(output, RagSequenceGenerateOutput)
    assert output.sequences.shape == (4, 6)
    assert config.to_dict() == before
    assert model.generate(**inputs, generation_config=config, num_return_sequences=1).sequences.shape[0] == 2


def test_generation_configs_of_the_model_and_then_of_the_generator_count() -> None:
    model, inputs = rag_model(RagSequenceForGeneration), models.contexts()
    model.generator.generation_config.max_new_tokens = 2
    model.generator.generation_config.min_new_tokens = 2
    assert model.generate(**inputs).shape[1] == 3
    model.generation_config.max_new_tokens = 4
    model.generation_config.min_new_tokens = 4
    config, before = model.generation_config, copy.deepcopy(model.generation_config.to_dict())
    assert model.generate(**inputs).shape[1] == 5
    assert model.generation_config is config
    assert config.to_dict() == before


def test_a_question_tokenizers_token_types_are_no_obstacle() -> None:
    model, inputs = sequence_model(), models.contexts()
    with_types = model.generate(**inputs, max_new_tokens=3, token_type_ids=torch.zeros(2, 4))
    assert torch.equal(model.generate(**inputs, max_new_tokens=3), with_types)


def test_a_beginning_of_sequence_that_all_answers_have_is_not_scored() -> None:
    """BART's forced ``<s>`` has no information and is not scored, as in transformers."""
    model, inputs = sequence_model(), models.contexts(2)
    output = decode(model, inputs, num_beams=2, forced_bos_token_id=0, min_new_tokens=4)
    assert (output.sequences[:, 1] == 0).all()
    for question in range(2):
        answer = output.sequences[question, 1:].tolist()
        table = direct.answer_table(model, inputs, question, answer)
        table[:, 0] = 0.0
        expected = direct.log_likelihood("sequence", table, direct.log_prior(inputs, question))
        assert output.sequences_scores[question].item() == pytest.approx(expected, abs=1e-3)

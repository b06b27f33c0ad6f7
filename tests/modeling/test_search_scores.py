"""The log-probabilities that a search records are the generator's, and are not computed again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

from ragweave.modeling.contexts import TokenScores
from ragweave.modeling.generators import DecodeOptions
from ragweave.modeling.sequence import SearchScores
from tests.support import models
from tests.support.models import DECODERS, shared_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "many beams": {"num_beams": 8},
    "samples": {"do_sample": True, "num_return_sequences": 4, "top_k": 5},
    "sampled beams": {"do_sample": True, "num_beams": 3, "temperature": 2.0},
    "length penalty": {"num_beams": 3, "length_penalty": -1.0, "early_stopping": True},
    "suppressed": {"num_beams": 3, "suppress_tokens": [1, 7], "no_repeat_ngram_size": 1},
    "forced": {"num_beams": 2, "forced_bos_token_id": 9, "forced_eos_token_id": 2},
    "long": {"num_beams": 2, "min_new_tokens": 6},
}


class WritesInPlace(tf.LogitsProcessor):
    """A processor that changes scores in place, as many users write them."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, 11:] = 0.0
        scores[:, 5:8] -= 100.0
        return scores


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """The arguments and results of `log_probs` of what recorded the search."""
    log_probs: list[tuple[Tensor, Tensor]] = []

    def spied(genuine: Any) -> Any:
        def spy(self: Any, sequences: Tensor) -> Tensor:
            log_probs.append((sequences, genuine(self, sequences)))
            return log_probs[-1][1]

        return spy

    for cls in (SearchScores, TokenScores):
        monkeypatch.setattr(cls, "log_probs", spied(cls.log_probs))
    return log_probs


def direct(model: Any, inputs: dict[str, Tensor], sequences: Tensor) -> Tensor:
    """Log-probabilities of all tokens but the first by teacher forcing, (B*K, S, T-1)."""
    with torch.no_grad():
        read = model.rag.encode_contexts(model.rag.prepare_contexts(**inputs))
        logits = model.rag.wrapped_generator.decode(read, sequences[:, :-1], options=DecodeOptions())[
            "logits"
        ]
    chosen = logits.log_softmax(-1).gather(-1, sequences[:, 1:, None]).squeeze(-1)
    return chosen.view(len(read), -1, sequences.shape[1] - 1)


def through_the_end(model: Any, sequences: Tensor) -> Tensor:
    """Which tokens but the first belong to the hypotheses, (B*K*S, T-1)."""
    is_end = (sequences[:, 1:] == model.rag.special_tokens.eos).long()
    return is_end.cumsum(-1) - is_end == 0


def test_transformers_still_has_the_private_method_that_orders_processors() -> None:
    assert callable(tf.GenerationMixin._get_logits_processor)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("generator", DECODERS)
def test_it_heard_what_the_generator_says(
    generator: str, search: str, recorded: list[tuple[Tensor, Tensor]]
) -> None:
    model, inputs = shared_model("sequence", generator), models.contexts(2, 3)
    torch.manual_seed(0)
    model.generate(**inputs, max_new_tokens=6, **SEARCHES[search])
    ((sequences, log_probs),) = recorded
    real = through_the_end(model, sequences).view(log_probs.shape)
    assert not log_probs[real].isnan().any()
    assert torch.allclose(log_probs[real], direct(model, inputs, sequences)[real], atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_processors_that_write_in_place(beams: int, recorded: list[tuple[Tensor, Tensor]]) -> None:
    model, inputs = shared_model("sequence"), models.contexts(2, 3)
    model.generate(**inputs, max_new_tokens=6, num_beams=beams, logits_processor=[WritesInPlace()])
    ((sequences, log_probs),) = recorded
    real = through_the_end(model, sequences).view(log_probs.shape)
    assert torch.allclose(log_probs[real], direct(model, inputs, sequences)[real], atol=1e-4)


def test_hypotheses_that_stopped_without_an_end_token(recorded: list[tuple[Tensor, Tensor]]) -> None:
    """The recorder does not know why they stopped; the model scores them like others."""

    class AfterThree(tf.StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
            return (input_ids[:, -1] % 3 == 0) & torch.tensor(input_ids.shape[1] > 2)

    model, inputs = shared_model("sequence"), models.contexts(2, 3)
    options = {"max_new_tokens": 6, "num_beams": 3, "stopping_criteria": [AfterThree()]}
    output = model.generate(**inputs, **options, return_dict_in_generate=True)
    ((sequences, log_probs),) = recorded
    expected = direct(model, inputs, sequences)
    assert torch.allclose(log_probs[~log_probs.isnan()], expected[~log_probs.isnan()], atol=1e-4)
    labels = output.sequences
    with torch.no_grad():
        assert torch.allclose(-model(**inputs, labels=labels).loss, output.sequences_scores, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("generator", ["bart", "llama"])
def test_fast_decoding_asks_for_nothing_beside_the_search(
    generator: str, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = shared_model("sequence", generator), models.contexts(2, 3)
    computed = []
    genuine = type(model)._log_probs

    def spy(self: Any, read: Any, hypotheses: Any, missing: Tensor, scored: Tensor) -> Tensor:
        computed.append(missing & (hypotheses.proposal >= 0))
        return genuine(self, read, hypotheses, missing, scored)

    monkeypatch.setattr(type(model), "_log_probs", spy)
    model.generate(**inputs, max_new_tokens=6, num_beams=beams, decoding="fast")
    assert computed == []
    model.generate(**inputs, max_new_tokens=6, num_beams=beams, decoding="thorough")
    assert not any(some.any() for some in computed)


def test_tokens_that_the_caller_began_with_are_scored_too() -> None:
    model, inputs = shared_model("sequence"), models.contexts(2, 3)
    begun = torch.tensor([[2, 5, 6]]).repeat(6, 1)
    output = model.generate(
        **inputs, decoder_input_ids=begun, max_new_tokens=4, num_beams=2, return_dict_in_generate=True
    )
    assert (output.sequences[:, :3] == begun[:2]).all()
    with torch.no_grad():
        loss = model(**inputs, labels=output.sequences).loss
    assert torch.allclose(-loss, output.sequences_scores, atol=1e-4)


def test_a_search_that_never_began() -> None:
    listener = SearchScores(2, normalised=True, ends=[2], copy=False)
    assert listener.log_probs(torch.zeros(2, 4, dtype=torch.long)).isnan().all()

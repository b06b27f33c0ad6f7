"""Beams that share the keys and values of their context: the same numbers as with a copy for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ragweave.decoding.attention import NAME, share_context_keys, shared_sdpa_attention
from tests.support import models
from tests.support.models import FORMULATIONS, rag_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

KINDS = (*models.SEQ2SEQ, "umt5", "marian", "m2m_100", "blenderbot", "blenderbot-small", "mt5", "plbart")
SHARING = tuple(kind for kind in KINDS if kind != "umt5")


class Attention(torch.nn.Module):
    """What an attention function reads of the module that calls it."""

    is_causal = False


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("masked", ["no", "for all queries", "for each query"])
@pytest.mark.parametrize("biased", [False, True])
def test_sharing_equals_repeating(rows: int, length: int, masked: str, biased: bool) -> None:
    source = torch.Generator().manual_seed(rows)
    n, heads, keys, size = 2, 3, 5, 4
    query = torch.randn(n * rows, heads, length, size, generator=source)
    key, value = (torch.randn(n, heads, keys, size, generator=source) for _ in range(2))
    mask = None
    if masked != "no":
        queries = 1 if masked == "for all queries" else length
        mask = torch.rand(n, 1, queries, keys, generator=source) < 0.7
        mask[..., 0] = True
    bias = torch.randn(1, heads, length, keys, generator=source) if biased else None
    shared, weights = shared_sdpa_attention(
        Attention(), query, key, value, mask, position_bias=bias, scaling=0.5
    )
    repeated, _ = sdpa_attention_forward(
        Attention(),
        query,
        key.repeat_interleave(rows, 0),
        value.repeat_interleave(rows, 0),
        None if mask is None else mask.repeat_interleave(rows, 0),
        position_bias=bias,
        scaling=0.5,
    )
    assert weights is None
    assert shared.shape == (n * rows, length, heads, size)
    assert torch.allclose(shared, repeated, atol=1e-6)


@pytest.mark.parametrize("padding", ["right", None])
@pytest.mark.parametrize("generator", KINDS)
@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_beams_find_what_they_find_without_sharing(
    formulation: str, generator: str, padding: str | None
) -> None:
    """9 context tokens under 3 beams: a model that counts rows by the queries would cut them in three."""
    model, given = rag_model(models.CLASSES[formulation], generator), models.contexts(padding=padding)
    options: dict[str, Any] = {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 3}
    plain = model.generator.config._attn_implementation
    assert plain == "sdpa"
    sharing = model.generate(**given, **options)
    model.set_attn_implementation("eager")
    assert torch.equal(model.generate(**given, **options), sharing)


@pytest.mark.parametrize("generator", KINDS)
def test_only_generators_that_can_share_do(generator: str) -> None:
    model = rag_model(models.CLASSES["token"], generator)
    assert share_context_keys(model.generator) == (generator in SHARING)
    assert (model.generator.config._attn_implementation == NAME) == (generator in SHARING)


def test_another_attention_of_the_callers_choice_is_kept() -> None:
    model = rag_model(models.CLASSES["token"])
    model.set_attn_implementation("eager")
    assert not share_context_keys(model.generator)
    assert model.generator.config._attn_implementation == "eager"


@pytest.mark.parametrize("generator", models.SEQ2SEQ)
def test_the_generator_alone_is_as_before(generator: str) -> None:
    """Its attention has another name after a beam search, and does the same."""
    model, given = rag_model(models.CLASSES["token"], generator), models.contexts()
    plain, labels = model.generator, models.words(6, 4)
    inputs = {
        "input_ids": given["context_input_ids"],
        "attention_mask": given["context_attention_mask"],
    }
    with torch.no_grad():
        before = plain(**inputs, labels=labels).logits
        answers = plain.generate(**inputs, num_beams=3, max_new_tokens=5)
        model.generate(**given, num_beams=3, max_new_tokens=3)
        assert torch.equal(plain(**inputs, labels=labels).logits, before)
        assert torch.equal(plain.generate(**inputs, num_beams=3, max_new_tokens=5), answers)


def test_a_model_that_shares_saves_and_loads_as_any(tmp_path: Any) -> None:
    model, given = rag_model(models.CLASSES["token"]), models.contexts()
    answers = model.generate(**given, num_beams=3, max_new_tokens=5)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    loaded = models.CLASSES["token"].from_pretrained(tmp_path)
    assert torch.equal(loaded.generate(**given, num_beams=3, max_new_tokens=5), answers)
    assert isinstance(tf.RagTokenForGeneration.from_pretrained(tmp_path), tf.RagTokenForGeneration)

"""Beams that share the keys and values of their context give the same numbers as beams with copies."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers as tf
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ragweave.modeling.attention import (
    NAME,
    PROMPT_SHARING_TYPES,
    GrowingLayer,
    PromptLayer,
    attention_implementation,
    prompt_attention,
    share_keys,
    shared_sdpa_attention,
)
from tests.support import models
from tests.support.models import FORMULATIONS, rag_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

KINDS = (*models.SEQ2SEQ, "umt5", "marian", "m2m_100", "blenderbot", "blenderbot-small", "mt5", "plbart")
# transformers before 5.15 has no sdpa for T5, which shares nothing there.
WITHOUT_SDPA = tuple(
    kind for kind in ("t5", "gated_t5", "mt5", "umt5") if not tf.T5ForConditionalGeneration._supports_sdpa
)
SHARING = tuple(kind for kind in KINDS if kind not in ("umt5", *WITHOUT_SDPA))


def searches(kinds: Sequence[str], thorough: Sequence[str]) -> list[tuple[str, str, str | None]]:
    """Formulation, generator and padding: all combinations of them for some generators, and one for the others."""
    return [
        (formulation, kind, padding)
        for kind in kinds
        for formulation in FORMULATIONS
        for padding in ("right", None)
        if kind in thorough or (formulation, padding) == ("token", "right")
    ]


class Attention(torch.nn.Module):
    """The attributes of a module that attention functions use."""

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


@pytest.mark.parametrize(("formulation", "generator", "padding"), searches(KINDS, ("bart", "t5")))
def test_beams_find_what_they_find_without_sharing(
    formulation: str, generator: str, padding: str | None
) -> None:
    """9 context tokens and 3 beams: a model that counts rows by the queries would cut them in three."""
    model, inputs = rag_model(models.CLASSES[formulation], generator), models.contexts(padding=padding)
    options: dict[str, Any] = {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 3}
    plain = attention_implementation(model.generator)
    assert plain == ("eager" if generator in WITHOUT_SDPA else "sdpa")
    sharing = model.generate(**inputs, **options)
    model.set_attn_implementation("eager")
    assert torch.equal(model.generate(**inputs, **options), sharing)


@pytest.mark.parametrize("generator", KINDS)
def test_only_generators_that_can_share_do(generator: str) -> None:
    model = rag_model(models.CLASSES["token"], generator)
    assert share_keys(model.generator) == (generator in SHARING)
    assert (attention_implementation(model.generator) == NAME) == (generator in SHARING)


# Prompts of causal generators.


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("mask_type", [None, torch.bool, torch.float32])
def test_a_prompt_of_all_rows_equals_one_of_each(
    rows: int, length: int, groups: int, mask_type: torch.dtype | None
) -> None:
    source = torch.Generator().manual_seed(rows)
    n, key_heads, prompt, answer, size = 2, 3, 5, 6, 4

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, size, generator=source) * 3

    query = random(n * rows, key_heads * groups, length)
    key, value = random(n * rows, key_heads, answer), random(n * rows, key_heads, answer)
    prompt_key, prompt_value = random(n, key_heads, prompt), random(n, key_heads, prompt)
    visible = torch.ones(n * rows, 1, length, prompt + answer, dtype=torch.bool)
    mask = None
    if mask_type is not None:
        padding = torch.rand(n, 1, 1, prompt, generator=source) < 0.6
        visible[..., :prompt] = padding.repeat_interleave(rows, 0)
        visible[..., prompt:] = torch.ones(length, answer, dtype=torch.bool).tril(answer - length)
        mask = visible if mask_type is torch.bool else torch.where(visible, 0.0, -1e9)
    shared = prompt_attention(query, key, value, prompt_key, prompt_value, mask, scaling=0.5)
    keys, values = (
        torch.cat([first.repeat_interleave(rows, 0), answers], 2).repeat_interleave(groups, 1)
        for first, answers in ((prompt_key, key), (prompt_value, value))
    )
    expected = torch.nn.functional.scaled_dot_product_attention(query, keys, values, visible, scale=0.5)
    assert torch.allclose(shared, expected.transpose(1, 2), atol=1e-5)


@pytest.mark.parametrize(
    ("formulation", "generator", "padding"), searches(sorted(PROMPT_SHARING_TYPES), ("llama", "gpt2"))
)
def test_beams_find_what_they_find_with_a_prompt_each(
    formulation: str, generator: str, padding: str | None
) -> None:
    fields = {"sliding_window": None} if generator == "mistral" else {}
    model = rag_model(models.CLASSES[formulation], generator, generator_fields=fields)
    inputs = models.contexts(padding=padding)
    options: dict[str, Any] = {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 3}
    options |= {"return_dict_in_generate": True, "output_scores": True}
    assert attention_implementation(model.generator) == "sdpa"
    sharing = model.generate(**inputs, **options)
    assert attention_implementation(model.generator) == NAME
    model.set_attn_implementation("eager")
    plain = model.generate(**inputs, **options)
    assert torch.equal(plain.sequences, sharing.sequences)
    assert torch.allclose(plain.sequences_scores, sharing.sequences_scores, atol=1e-4)


@pytest.mark.parametrize("generator", ["llama", "gpt2"])
def test_prompts_are_kept_once_and_never_moved(generator: str) -> None:
    model, inputs = rag_model(models.CLASSES["token"], generator), models.contexts()
    output = model.generate(**inputs, max_new_tokens=5, num_beams=4, return_dict_in_generate=True)
    read = model.rag.encode_contexts(model.rag.prepare_contexts(**inputs), reuse=True)
    for layer, prompt_layer in zip(
        output.past_key_values.self_attention_cache.layers, read.prompt_cache.layers, strict=True
    ):
        assert torch.equal(layer.prompt[0], prompt_layer.keys)  # (B*K, ...): 6 rows, not 24
        assert layer.keys.shape[0] == 24
        assert layer.get_seq_length() == prompt_layer.keys.shape[2] + layer.keys.shape[2]


@pytest.mark.parametrize("inference", [True, False])
def test_layers_that_grow_keep_what_their_copies_need(inference: bool) -> None:
    """Two continuations of one prompt, one cropped, one repeated, against layers that copy at every token."""
    source = torch.Generator().manual_seed(0)

    def append(layers: list[tf.DynamicLayer], length: int) -> None:
        rows = 1 if not layers[0].get_seq_length() else layers[0].keys.shape[0]
        keys, values = torch.randn(2, rows, 3, length, 4, generator=source)
        for layer in layers:
            layer.update(keys.clone(), values.clone())

    def pair() -> list[tf.DynamicLayer]:
        return [GrowingLayer(), tf.DynamicLayer()]

    prompt = pair()
    with torch.inference_mode(inference), torch.no_grad():
        append(prompt, 5)
        first, second, third = ([copy.copy(layer) for layer in prompt] for _ in range(3))
        append(first, 2)
        append(second, 70)
        for layer in third:
            layer.crop(-2)
            layer.batch_repeat_interleave(2)
    with torch.no_grad():  # what was made in inference mode must not be changed outside of it
        for layers in (third, first, prompt, second, first):
            append(layers, 1)
        for layer in first:
            layer.crop(-2)
        append(first, 3)
    for grown, copied in (prompt, first, second, third):
        assert torch.equal(grown.keys, copied.keys) and torch.equal(grown.values, copied.values)
        assert grown.get_seq_length() == copied.get_seq_length()


@pytest.mark.parametrize("generator", ["mistral", "gemma3"])
def test_sliding_windows_share_no_prompts(generator: str) -> None:
    model = rag_model(models.CLASSES["token"], generator)
    output = model.generate(**models.contexts(), max_new_tokens=2, return_dict_in_generate=True)
    layers = output.past_key_values.self_attention_cache.layers
    assert not any(isinstance(layer, PromptLayer) for layer in layers)


def test_gradient_passes_through_shared_prompts() -> None:
    model, inputs, read = rag_model(models.CLASSES["token"], "llama"), models.contexts(), models.words(2, 4)
    gradients = []
    for flag in (False, True):
        model.zero_grad()
        output = model(**inputs, decoder_input_ids=read, use_cache=flag, do_marginalize=True)
        output.logits[..., 5].sum().backward()
        gradients.append(model.generator.get_input_embeddings().weight.grad.clone())
    assert gradients[0].abs().sum() > 0
    assert torch.allclose(*gradients, atol=1e-3)


def test_another_attention_of_the_callers_choice_is_kept() -> None:
    model = rag_model(models.CLASSES["token"])
    model.set_attn_implementation("eager")
    assert not share_keys(model.generator)
    assert attention_implementation(model.generator) == "eager"


@pytest.mark.parametrize("generator", models.SEQ2SEQ)
def test_the_generator_alone_is_as_before(generator: str) -> None:
    """Its attention has another name after a beam search, and the same results."""
    model, inputs = rag_model(models.CLASSES["token"], generator), models.contexts()
    plain, labels = model.generator, models.words(6, 4)
    generator_inputs = {
        "input_ids": inputs["context_input_ids"],
        "attention_mask": inputs["context_attention_mask"],
    }
    with torch.no_grad():
        before = plain(**generator_inputs, labels=labels).logits
        answers = plain.generate(**generator_inputs, num_beams=3, max_new_tokens=5)
        model.generate(**inputs, num_beams=3, max_new_tokens=3)
        assert torch.equal(plain(**generator_inputs, labels=labels).logits, before)
        assert torch.equal(plain.generate(**generator_inputs, num_beams=3, max_new_tokens=5), answers)


def test_a_model_that_shares_saves_and_loads_as_any(tmp_path: Any) -> None:
    model, inputs = rag_model(models.CLASSES["token"]), models.contexts()
    answers = model.generate(**inputs, num_beams=3, max_new_tokens=5)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    loaded = models.CLASSES["token"].from_pretrained(tmp_path)
    assert torch.equal(loaded.generate(**inputs, num_beams=3, max_new_tokens=5), answers)
    assert isinstance(tf.RagTokenForGeneration.from_pretrained(tmp_path), tf.RagTokenForGeneration)

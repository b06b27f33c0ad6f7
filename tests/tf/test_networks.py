"""Every network equals the class of transformers with the same weights, on random configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention

from ragweave.errors import ConfigurationError
from ragweave.tf.layers import activation
from ragweave.tf.t5 import bucket_table
from ragweave.tf.tf_pretrained import build_network
from tests.tf.support import (
    GENERATOR_CONFIGS,
    array,
    assert_all_close,
    assert_close,
    bart_config,
    encoder_config,
    loaded,
    right_padded,
    t5_config,
    tensor,
    tokens,
    torch_network,
)

NAMED = """gelu gelu_python gelu_new gelu_fast gelu_pytorch_tanh gelu_python_tanh gelu_accurate quick_gelu relu relu2
relu6 leaky_relu silu swish mish tanh sigmoid linear""".split()  # noqa: SIM905
ALL = {"output_attentions": True, "output_hidden_states": True}


def both_generators(config: Any, folder: Path, seed: int = 0) -> tuple[Any, Any]:
    theirs = torch_network(config, seed)
    theirs.save_pretrained(folder)
    return theirs, loaded(build_network("generator", config), folder)


def assert_equal_outputs(theirs: Any, ours: Any, seed: int) -> None:
    ids, mask, decoder_ids = tokens(5, 9, seed=seed), right_padded(5, 9, seed), tokens(5, 6, seed=seed + 1)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids, **ALL)
    encoded = ours.encode(tensor(ids), tensor(mask), **ALL)
    cross = ours.cross_keys_values(encoded.last_hidden_state)
    got = ours.decode(cross, tensor(mask), tensor(decoder_ids), **ALL)
    assert_close(got.logits, expected.logits)
    real = mask.bool().numpy()  # padding has no states that matter
    for actual, reference in zip(encoded.hidden_states, expected.encoder_hidden_states, strict=True):
        assert_close(array(actual)[real], array(reference)[real])
    assert len(encoded.attentions) == len(expected.encoder_attentions)
    for actual, reference in zip(encoded.attentions, expected.encoder_attentions, strict=True):
        assert_close(np.swapaxes(array(actual), 1, 2)[real], np.swapaxes(array(reference), 1, 2)[real])
    assert_all_close(got.hidden_states, expected.decoder_hidden_states)
    assert_all_close(got.attentions, expected.decoder_attentions)
    assert_all_close(got.cross_attentions, expected.cross_attentions)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", GENERATOR_CONFIGS)
def test_generators(kind: str, seed: int, tmp_path: Path):
    assert_equal_outputs(*both_generators(GENERATOR_CONFIGS[kind](seed), tmp_path, seed), seed)


@pytest.mark.parametrize("name", ["lm_head", "encoder", "decoder"])
@pytest.mark.parametrize("kind", GENERATOR_CONFIGS)
def test_untied_tables_stay_separate(kind: str, name: str, tmp_path: Path):
    theirs = torch_network(GENERATOR_CONFIGS[kind](3))
    owner = (
        theirs.lm_head
        if name == "lm_head"
        else getattr(theirs.model if kind == "bart" else theirs, name).embed_tokens
    )
    owner.weight = torch.nn.Parameter(torch.randn_like(owner.weight))
    theirs.save_pretrained(tmp_path)
    assert_equal_outputs(theirs, loaded(build_network("generator", theirs.config), tmp_path), 0)


def test_bart_is_untied_where_its_configuration_says_so(tmp_path: Path):
    theirs, ours = both_generators(bart_config(1, tie_word_embeddings=False), tmp_path)
    assert_equal_outputs(theirs, ours, 1)


@pytest.mark.parametrize("kind", ["dpr", "bert"])
@pytest.mark.parametrize("seed", range(4))
def test_question_encoders(kind: str, seed: int, tmp_path: Path):
    theirs = torch_network(encoder_config(seed, kind), seed)
    theirs.save_pretrained(tmp_path)
    ours = loaded(build_network("question_encoder", theirs.config), tmp_path)
    ids, mask = tokens(4, 7, seed=seed, vocabulary=30), right_padded(4, 7, seed)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, return_dict=True, **ALL)
    got = ours(tensor(ids), tensor(mask), **ALL)
    assert_close(got.pooled, expected.pooler_output)
    real = mask.bool().numpy()
    for actual, reference in zip(got.hidden_states, expected.hidden_states, strict=True):
        assert_close(array(actual)[real], array(reference)[real])
    assert_all_close([array(weights)[real[:, 0]] for weights in got.attentions], expected.attentions)


@pytest.mark.parametrize("kind", GENERATOR_CONFIGS)
def test_a_cache_continues_earlier_tokens(kind: str, tmp_path: Path):
    ours = both_generators(GENERATOR_CONFIGS[kind](5), tmp_path)[1]
    ids, mask, decoder_ids = (
        tensor(tokens(2, 9, seed=0)),
        tensor(right_padded(2, 9, 0)),
        tensor(tokens(6, 7, seed=1)),
    )
    cross = ours.cross_keys_values(ours.encode(ids, mask).last_hidden_state)
    whole = ours.decode(cross, mask, decoder_ids).logits  # three rows under each of two contexts
    cache = ours.empty_cache(cross, 3, 12)
    for begin, end in ((0, 4), (4, 5), (5, 7)):
        got = ours.decode(cross, mask, decoder_ids[:, begin:end], past=cache, use_cache=True)
        assert_close(got.logits, array(whole)[:, begin:end])
        cache = got.cache
    assert int(cache.length) == 7


def test_masked_decoder_tokens_have_no_effect(tmp_path: Path):
    theirs, ours = both_generators(t5_config(2), tmp_path)
    ids, decoder_ids = tokens(3, 5, seed=0), tokens(3, 6, seed=1)
    decoder_mask = torch.ones_like(decoder_ids)
    decoder_mask[1, 1:3] = 0
    with torch.no_grad():
        expected = theirs(
            input_ids=ids, decoder_input_ids=decoder_ids, decoder_attention_mask=decoder_mask
        ).logits
    mask = tensor(torch.ones_like(ids))
    cross = ours.cross_keys_values(ours.encode(tensor(ids), mask).last_hidden_state)
    got = ours.decode(cross, mask, tensor(decoder_ids), decoder_attention_mask=tensor(decoder_mask)).logits
    assert_close(got, expected)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20), (16, 64), (32, 100), (20, 50)])
def test_buckets_of_positions(buckets: int, max_distance: int, bidirectional: bool):
    distances = torch.arange(2 * max_distance)
    expected = T5Attention._relative_position_bucket(-distances, bidirectional, buckets, max_distance)
    table = bucket_table(buckets // 2 if bidirectional else buckets, max_distance)
    assert table[np.minimum(distances.numpy(), max_distance)].tolist() == expected.tolist()


@pytest.mark.parametrize("name", NAMED)
def test_activations(name: str):
    states = torch.linspace(-6, 8, 50)
    assert_close(activation(name)(tensor(states)), transformers.activations.ACT2FN[name](states), 1e-5)


def test_other_activations_are_refused_by_name():
    with pytest.raises(ConfigurationError, match=r"'laplace' is not supported.*gelu"):
        build_network("generator", bart_config(0, activation_function="laplace"))


@pytest.mark.parametrize(
    "config", [transformers.PegasusConfig(), transformers.LlamaConfig()], ids=lambda c: c.model_type
)
def test_other_generators_are_refused_by_name(config: Any):
    with pytest.raises(
        ConfigurationError, match=f"no generator of type '{config.model_type}'; it has bart and t5"
    ):
        build_network("generator", config)


def test_other_question_encoders_are_refused_by_name():
    with pytest.raises(
        ConfigurationError, match="no question_encoder of type 'roberta'; it has bert and dpr"
    ):
        build_network("question_encoder", transformers.RobertaConfig())
    with pytest.raises(ConfigurationError, match="is_decoder"):
        build_network("question_encoder", encoder_config(0, "bert", is_decoder=True))

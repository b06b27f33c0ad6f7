"""Recorded attention equals what the generator returns, and ADist uses it."""

from __future__ import annotations

import pytest
import torch

from ragweave.errors import ConfigurationError
from ragweave.modeling.attention import attention_implementation
from ragweave.training.attention_recording import record_attention
from ragweave.training.losses import LOSSES, LossInputs
from ragweave.training.trainer import RagTrainer
from tests.support.pipelines import save_rag_model
from tests.support.training import EXAMPLES, arguments, pipeline_of, without_dropout


@pytest.mark.parametrize("kind", ["bart", "t5", "llama", "mistral", "gpt2"])
def test_attention_is_distilled(tmp_path, tmp_path_factory, tiny_encoder_path, kb, kind):
    path = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, "token", kind)
    pipeline = pipeline_of(path, kb)
    plain = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
    batch = plain.data_collator(EXAMPLES)
    both = RagTrainer(pipeline, arguments(tmp_path, retriever_loss="adist"), EXAMPLES)
    model = pipeline.model.train()
    without_dropout(model)
    loss = both.compute_loss(model, batch) - plain.compute_loss(model, batch)
    with record_attention(model.generator) as record:
        output = model(**batch, reduce_loss=False, output_retrieved=True)
    attention = record.by_passage(2, output.context_attention_mask)
    assert attention.value_norms.shape == (4, 2, attention.scores.shape[2], attention.scores.shape[4])
    # The softmax of the recorded scores equals the attention weights that the generator returns.
    scores = attention.scores.masked_fill(~attention.mask[:, :, None, None], float("-inf"))
    expected = eager_attention(model, batch, scores.shape[-1])
    assert torch.allclose(scores.softmax(-1).nan_to_num(), expected, atol=1e-5)
    per_passage, scored = model.per_passage_log_probs(batch["labels"], output.logits, 2)
    inputs = LossInputs(output.doc_scores, per_passage, scored, "token", attention)
    assert loss.item() == pytest.approx(LOSSES["adist"](inputs).item(), abs=1e-4)


def eager_attention(model, batch, tokens):
    """The attention weights from answers to contexts that the generator returns, normalised, (4, 2, H, T, S)."""
    implementation = attention_implementation(model.generator)
    model.generator.set_attn_implementation("eager")
    causal = model.config.generator_is_causal
    output = model(**batch, reduce_loss=False, output_attentions=True, output_retrieved=True)
    model.generator.set_attn_implementation(implementation)
    if not causal:
        weights = torch.cat(output.generator_cross_attentions, 1).unflatten(0, (-1, 2))
        assert not weights[..., tokens:].any()  # padding
        return weights[..., :tokens]
    length = batch["labels"].shape[1]
    weights = torch.cat(output.generator_dec_attentions, 1)[:, :, -length:, :tokens].unflatten(0, (-1, 2))
    return (weights / weights.sum(-1, keepdim=True)).nan_to_num()


def test_attention_other_than_sdpa_is_rejected(tmp_path, tmp_path_factory, tiny_encoder_path, kb):
    path = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, "token", "llama")
    pipeline = pipeline_of(path, kb)
    pipeline.model.generator.set_attn_implementation("eager")
    trainer = RagTrainer(pipeline, arguments(tmp_path, retriever_loss="adist"), EXAMPLES)
    with pytest.raises(ConfigurationError, match="sdpa attention, and LlamaForCausalLM has eager"):
        trainer.train()


def test_attention_that_cannot_be_recorded_is_rejected(tmp_path, tmp_path_factory, tiny_encoder_path, kb):
    path = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, "token", "llama")
    pipeline = pipeline_of(path, kb)
    trainer = RagTrainer(pipeline, arguments(tmp_path, retriever_loss="adist"), EXAMPLES)
    for module in pipeline.model.generator.modules():
        if hasattr(module, "q_proj"):  # an attention that does not use transformers' attention functions
            module.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(ConfigurationError, match="Choose emdr2, pdist or loop"):
        trainer.train()

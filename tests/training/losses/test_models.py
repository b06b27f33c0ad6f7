"""The losses on what real generators say, against generators that are run once more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ragweave.marginalization import scored_positions, target_log_probs
from ragweave.modeling.parts import IGNORE_INDEX
from ragweave.training.losses import CrossAttention, leave_one_out_log_likelihood, passage_attention
from tests.support.models import FORMULATIONS, contexts, shared_model, words

pytestmark = pytest.mark.usefixtures("quiet_transformers")


@pytest.mark.parametrize("generator", ["bart", "t5"])
@pytest.mark.parametrize("formulation", FORMULATIONS)
@torch.no_grad()
def test_leave_one_out_needs_no_second_run(formulation: str, generator: str) -> None:
    """Another run of the model without the passage says the same."""
    model = shared_model(formulation, generator)
    b, k, labels = 2, 3, words(2, 4)
    labels[1, 3] = IGNORE_INDEX
    inputs = contexts(b, k)
    scores = inputs["doc_scores"]
    answer = {"labels": labels, "decoder_input_ids": model.shift_tokens_right(labels)}
    logits = model(**inputs, **answer, do_marginalize=False).logits
    computed = leave_one_out_log_likelihood(
        target_log_probs(logits.view(b, k, *logits.shape[1:]), labels),
        scored_positions(labels, None, None),
        scores,
        formulation,
    )
    for left_out in range(k):
        rest = [j for j in range(k) if j != left_out]
        rows = [question * k + j for question in range(b) for j in rest]
        again = model(
            context_input_ids=inputs["context_input_ids"][rows],
            context_attention_mask=inputs["context_attention_mask"][rows],
            doc_scores=scores[:, rest],
            **answer,
            reduce_loss=False,
        )
        assert torch.allclose(computed[:, left_out], -again.loss, atol=1e-4)


@torch.no_grad()
def test_attention_of_the_first_layer_is_that_of_fusion_in_decoder() -> None:
    """A decoder that sees all passages at once, and one that sees each alone, whose scores are put together."""
    bart = shared_model("sequence").generator.model
    inputs = contexts(1, 3)
    k, s = inputs["context_input_ids"].shape
    mask = inputs["context_attention_mask"]
    states = bart.encoder(inputs["context_input_ids"], attention_mask=mask).last_hidden_state
    answer = words(1, 4)
    layer = bart.decoder.layers[0].encoder_attn
    queries: list[Tensor] = []
    handle = layer.q_proj.register_forward_hook(lambda module, args, output: queries.append(output))
    try:
        bart.decoder(answer.expand(k, -1), encoder_hidden_states=states, encoder_attention_mask=mask)
        queries_alone = queries.pop()
        bart.decoder(
            answer,
            encoder_hidden_states=states.view(1, k * s, -1),
            encoder_attention_mask=mask.view(1, -1),
        )
        queries_of_all = queries.pop()
    finally:
        handle.remove()

    def heads(rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:2], layer.num_heads, layer.head_dim).transpose(1, 2)

    keys, values = heads(layer.k_proj(states)), heads(layer.v_proj(states))  # (K, H, S, D)
    scores = heads(queries_alone) @ keys.transpose(2, 3) * layer.scaling  # (K, H, T, S)
    computed = passage_attention(
        CrossAttention(scores[None], values.norm(dim=-1)[None], mask.bool()[None]),
        torch.ones(1, k, dtype=torch.bool),
        torch.ones(1, 4, dtype=torch.bool),
    )
    in_one_row = keys.transpose(0, 1).reshape(layer.num_heads, k * s, -1)
    fused = heads(queries_of_all)[0] @ in_one_row.transpose(1, 2) * layer.scaling  # (H, T, K*S)
    weights = fused.masked_fill(mask.view(-1) == 0, float("-inf")).softmax(-1)
    norms = values.norm(dim=-1).transpose(0, 1).reshape(layer.num_heads, 1, k * s)
    expected = (weights * norms).view(layer.num_heads, 4, k, s).sum(-1).mean((0, 1))
    assert torch.allclose(computed[0], expected, atol=1e-5)
    assert expected.max() > 1.05 * expected.min()

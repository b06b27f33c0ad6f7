"""The models that decoding and training are measured on: BART-base size with random weights, ours and the peer's."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from ragweave import RagConfig


def pair(formulation: str, *, size: str = "base", n_docs: int = 5) -> tuple[Any, Any]:
    """The peer's model and ours, with the same weights.

    Args:
        formulation: "token" or "sequence".
        size: "base" for BART-base's size, "tiny" to try the benchmark itself.
        n_docs: K.
    """
    import ragweave

    name = {"token": "RagTokenForGeneration", "sequence": "RagSequenceForGeneration"}[formulation]
    shape = {
        "base": {},
        "tiny": {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 500},
    }[size]
    layers = 6 if size == "base" else 2
    bart = {
        "d_model": 768,
        "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "encoder_attention_heads": 12 if size == "base" else 2,
        "decoder_attention_heads": 12 if size == "base" else 2,
        "forced_eos_token_id": None,
        **shape,
    }
    generator = transformers.BartConfig(**bart)
    encoder = transformers.DPRConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=500
    )
    special = {
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "n_docs": n_docs,
    }
    torch.manual_seed(0)
    peer_config = transformers.RagConfig.from_question_encoder_generator_configs(
        encoder, generator, **special
    )
    peer = getattr(transformers, name)(peer_config).eval()
    config = RagConfig.from_question_encoder_generator_configs(encoder, generator, **special)
    ours = getattr(ragweave, name)(config).eval()
    ours.load_state_dict(peer.state_dict(), strict=False)
    return peer, ours


def contexts(
    questions: int, n_docs: int, *, length: int, padded: int, vocabulary: int
) -> dict[str, torch.Tensor]:
    """Random contexts of about ``length`` tokens, padded to ``padded`` as transformers' retriever pads them."""
    generator = torch.Generator().manual_seed(0)
    rows = questions * n_docs
    ids = torch.randint(3, vocabulary, (rows, padded), generator=generator)
    lengths = torch.randint(int(length * 0.8), int(length * 1.2) + 1, (rows, 1), generator=generator)
    mask = (torch.arange(padded) < lengths).long()
    scores = torch.randn(questions, n_docs, generator=generator)
    return {
        "context_input_ids": ids.masked_fill(mask == 0, 1),
        "context_attention_mask": mask,
        "doc_scores": scores,
    }

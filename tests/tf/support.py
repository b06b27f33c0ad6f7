"""Random networks of transformers, their counterparts in Keras, and comparisons of tensors."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import transformers
from keras import ops

from ragweave.tf import checkpoints
from tests.support.models import randomise

VOCABULARY = 40
ACTIVATIONS = ("gelu", "relu", "gelu_new", "silu", "quick_gelu", "tanh")


def bart_config(seed: int, **fields: Any) -> Any:
    """BART of random sizes, with or without scaled embeddings, and with a random activation."""
    draw = Random(seed)  # noqa: S311
    return transformers.BartConfig(
        **{
            "vocab_size": VOCABULARY,
            "d_model": draw.choice((8, 16, 24)),
            "encoder_layers": draw.randint(1, 3),
            "decoder_layers": draw.randint(1, 3),
            "encoder_attention_heads": draw.choice((1, 2, 4)),
            "decoder_attention_heads": draw.choice((1, 2, 4)),
            "encoder_ffn_dim": draw.choice((12, 20)),
            "decoder_ffn_dim": draw.choice((12, 20)),
            "max_position_embeddings": 64,
            "scale_embedding": draw.random() < 0.5,
            "activation_function": draw.choice(ACTIVATIONS),
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
            **fields,
        }
    )


def t5_config(seed: int, **fields: Any) -> Any:
    """T5 of random sizes, plain or gated, with or without a scaled head."""
    draw = Random(seed)  # noqa: S311
    return transformers.T5Config(
        **{
            "vocab_size": VOCABULARY,
            "d_model": draw.choice((8, 16)),
            "d_kv": draw.choice((4, 6)),
            "d_ff": draw.choice((12, 20)),
            "num_layers": draw.randint(1, 3),
            "num_decoder_layers": draw.randint(1, 3),
            "num_heads": draw.choice((1, 2, 3)),
            "relative_attention_num_buckets": draw.choice((8, 16, 32)),
            "relative_attention_max_distance": draw.choice((10, 20, 128)),
            "feed_forward_proj": draw.choice(("relu", "gated-gelu", "gated-silu")),
            "tie_word_embeddings": draw.choice((True, False)),
            "decoder_start_token_id": 0,
            **fields,
        }
    )


def encoder_config(seed: int, kind: str = "dpr", **fields: Any) -> Any:
    """DPR, with or without a projection, or BERT, of random sizes."""
    draw = Random(seed)  # noqa: S311
    heads = draw.choice((1, 2, 4))
    shape = {
        "vocab_size": 30,
        "hidden_size": heads * 8,
        "num_hidden_layers": draw.randint(1, 3),
        "num_attention_heads": heads,
        "intermediate_size": draw.choice((12, 20)),
        "max_position_embeddings": 32,
        "hidden_act": draw.choice(("gelu", "gelu_new", "relu")),
        **({"projection_dim": draw.choice((0, 6))} if kind == "dpr" else {}),
        **fields,
    }
    return {"dpr": transformers.DPRConfig, "bert": transformers.BertConfig}[kind](**shape)


GENERATOR_CONFIGS = {"bart": bart_config, "t5": t5_config}
TORCH_CLASSES = {
    "bart": transformers.BartForConditionalGeneration,
    "t5": transformers.T5ForConditionalGeneration,
    "dpr": transformers.DPRQuestionEncoder,
    "bert": transformers.BertModel,
}


def torch_network(config: Any, seed: int = 0) -> Any:
    """A network of transformers that can return attentions, with random weights and biases."""
    model = TORCH_CLASSES[config.model_type]._from_config(config, attn_implementation="eager").eval()
    randomise_all(model, seed)
    return model


def randomise_all(model: torch.nn.Module, seed: int) -> None:
    """Draw random weights, biases and the bias of BART's logits."""
    randomise(model, seed)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=source))
        for name, buffer in model.named_buffers():
            if name.endswith("final_logits_bias"):
                buffer.normal_(generator=source)


def loaded(network: Any, folder: Path) -> Any:
    """A network with the weights of a folder."""
    with checkpoints.open_checkpoint(folder) as checkpoint:
        rename = checkpoints.renaming(network, checkpoint, network.base_model_prefix)
        checkpoints.load(network, checkpoint, rename, str(folder))
    return network


def tensor(value: Any, dtype: str | None = None) -> Any:
    """A tensor of the backend from one of torch or an array of numpy."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if dtype is None and value.dtype == np.int64:
        dtype = "int32"
    return ops.convert_to_tensor(value, dtype=dtype)


def array(value: Any) -> np.ndarray:
    """A numpy array from a tensor of either framework."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    return np.asarray(ops.convert_to_numpy(value))


def assert_close(got: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Check that shapes are equal and that values differ by at most a fraction of the largest."""
    got, expected = array(got), array(expected)
    assert got.shape == expected.shape
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * largest)


def assert_all_close(got: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Check `assert_close` layer by layer."""
    assert len(got) == len(expected) > 0
    for actual, reference in zip(got, expected, strict=True):
        assert_close(actual, reference, tolerance)


def tokens(*shape: int, seed: int, vocabulary: int = VOCABULARY) -> torch.Tensor:
    """Random token ids without special tokens."""
    return torch.randint(4, vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def right_padded(rows: int, columns: int, seed: int) -> torch.Tensor:
    """A mask of rows of random lengths, the first of them full."""
    lengths = torch.randint(1, columns + 1, (rows,), generator=torch.Generator().manual_seed(seed))
    lengths[0] = columns
    return (torch.arange(columns) < lengths[:, None]).long()


def trimmed(sequences: Any, ends: int, pad: int) -> list[tuple[int, ...]]:
    """Rows up to their end token, or without padding if they have none."""
    rows = []
    for row in array(sequences).tolist():
        length = next((n + 1 for n, token in enumerate(row) if n and token == ends), len(row))
        while length > 1 and row[length - 1] == pad:
            length -= 1
        rows.append(tuple(row[:length]))
    return rows

"""Tiny random models and inputs.

Weights are drawn wide (std 0.4), so that distributions are uneven, passages disagree and beams differ.
Shapes: B questions, K passages, S context tokens, T target tokens, V vocabulary, D vector size.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers as tf
from torch import Tensor

import ragweave

VOCABULARY = 40
QUESTION_VOCABULARY = 30
DIMENSION = 16
FIRST_WORD = 4  # ids below are special tokens in one model or another

SEQ2SEQ = ("bart", "t5", "gated_t5", "pegasus", "mbart")
CAUSAL = ("llama", "qwen2", "qwen3", "gpt2")
GENERATORS = SEQ2SEQ + CAUSAL
DECODERS = ("bart", "t5", "pegasus", "llama", "qwen3", "gpt2")
"""Those that batches, caches and beams can tell apart; the others differ from one of them within their layers."""


def question_encoder_config(kind: str = "dpr") -> Any:
    shape = {
        "vocab_size": QUESTION_VOCABULARY,
        "hidden_size": DIMENSION,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
    }
    return {"dpr": tf.DPRConfig, "bert": tf.BertConfig}[kind](**shape)


def generator_config(kind: str, vocab_size: int = VOCABULARY, **fields: Any) -> Any:
    bart = {
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 128,
        "forced_eos_token_id": None,
    }
    t5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    llama = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    gpt2 = {
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 128,
        "bos_token_id": 2,
        "eos_token_id": 2,
    }
    pegasus = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "decoder_start_token_id": 0}
    known: dict[str, tuple[Any, dict[str, Any]]] = {
        "bart": (tf.BartConfig, {**bart, "decoder_start_token_id": 2}),
        "mbart": (tf.MBartConfig, {**bart, "decoder_start_token_id": 3}),
        "pegasus": (tf.PegasusConfig, {**bart, **pegasus}),
        "t5": (tf.T5Config, t5),
        "gated_t5": (tf.T5Config, {**t5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
        "mt5": (tf.MT5Config, t5),
        "umt5": (tf.UMT5Config, t5),
        "marian": (tf.MarianConfig, {**bart, "decoder_start_token_id": 1, "pad_token_id": 1}),
        "m2m_100": (tf.M2M100Config, {**bart, "decoder_start_token_id": 2}),
        "blenderbot": (tf.BlenderbotConfig, {**bart, "decoder_start_token_id": 0}),
        "blenderbot-small": (tf.BlenderbotSmallConfig, {**bart, "decoder_start_token_id": 1}),
        "plbart": (tf.PLBartConfig, {**bart, "decoder_start_token_id": 2}),
        "llama": (tf.LlamaConfig, llama),
        "qwen2": (tf.Qwen2Config, {**llama, "bos_token_id": None}),
        "qwen3": (tf.Qwen3Config, {**llama, "bos_token_id": None, "head_dim": 8}),
        "gpt2": (tf.GPT2Config, gpt2),
        "gemma": (tf.GemmaConfig, {**llama, "head_dim": 8}),
        "gpt_neox": (tf.GPTNeoXConfig, {**llama, "num_key_value_heads": None}),
        "granite": (tf.GraniteConfig, llama),
        "olmo2": (tf.Olmo2Config, llama),
        "phi3": (tf.Phi3Config, llama),
        "smollm3": (tf.SmolLM3Config, llama),
        "mistral": (tf.MistralConfig, {**llama, "sliding_window": 4}),
        "gemma3": (
            tf.Gemma3TextConfig,
            {
                **llama,
                "head_dim": 8,
                "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention"],
            },
        ),
    }
    cls, defaults = known[kind]
    return cls(vocab_size=vocab_size, **{**defaults, **fields})


def randomise(model: torch.nn.Module, seed: int, std: float = 0.4) -> None:
    """Draw every weight matrix anew."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=std, generator=generator)


def rag_config(
    generator: str = "bart",
    question_encoder: str = "dpr",
    *,
    vocab_size: int = VOCABULARY,
    generator_fields: dict[str, Any] | None = None,
    **fields: Any,
) -> ragweave.RagConfig:
    return ragweave.RagConfig.from_question_encoder_generator_configs(
        question_encoder_config(question_encoder),
        generator_config(generator, vocab_size, **(generator_fields or {})),
        **{"n_docs": 3, "retrieval_vector_size": DIMENSION, **fields},
    )


def rag_model(
    cls: Any, generator: str = "bart", *, seed: int = 0, retriever: Any = None, **fields: Any
) -> Any:
    """A fresh RAG model in evaluation mode; ``fields`` as for `rag_config`."""
    model = cls(rag_config(generator, **fields), retriever=retriever).eval()
    randomise(model, seed)
    return model


@cache
def shared_model(formulation: str, generator: str = "bart", seed: int = 0) -> Any:
    """A RAG model that tests share, and therefore don't change; ``formulation`` is "token" or "sequence"."""
    return rag_model(CLASSES[formulation], generator, seed=seed)


CLASSES = {"token": ragweave.RagTokenForGeneration, "sequence": ragweave.RagSequenceForGeneration}
FORMULATIONS = tuple(CLASSES)


def contexts(
    n_questions: int = 2,
    n_docs: int = 3,
    length: int = 9,
    *,
    seed: int = 0,
    padding: str | None = "right",
    vocab_size: int = VOCABULARY,
) -> dict[str, Tensor]:
    """Random contexts (B*K, S), some of them padded, and scores (B, K)."""
    generator = torch.Generator().manual_seed(seed)
    rows = n_questions * n_docs
    ids = torch.randint(FIRST_WORD, vocab_size, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    if padding is not None:
        real = torch.randint(max(length // 2, 1), length + 1, (rows,), generator=generator)
        real[0] = length
        columns = torch.arange(length)
        mask = (columns < real[:, None] if padding == "right" else columns >= length - real[:, None]).long()
        ids = ids.masked_fill(mask == 0, 1)
    scores = torch.randn(n_questions, n_docs, generator=generator)
    return {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": scores}


def words(*shape: int, seed: int = 0, vocab_size: int = VOCABULARY) -> Tensor:
    """Random token ids without special tokens."""
    return torch.randint(FIRST_WORD, vocab_size, shape, generator=torch.Generator().manual_seed(1000 + seed))


def one_question(inputs: dict[str, Tensor], question: int) -> dict[str, Tensor]:
    """The contexts of one question out of a batch."""
    k = inputs["doc_scores"].shape[1]
    rows = slice(question * k, (question + 1) * k)
    return {
        "context_input_ids": inputs["context_input_ids"][rows],
        "context_attention_mask": inputs["context_attention_mask"][rows],
        "doc_scores": inputs["doc_scores"][question : question + 1],
    }


class VectorRetriever:
    """A real retriever, small enough for a test: exhaustive search over random vectors.

    Its contexts are a passage's tokens and then the question's. Passages have 2 to 5 tokens; where there are
    fewer than ``n_docs``, places stay empty (id -1).
    """

    def __init__(self, n_passages: int = 7, *, dimension: int = DIMENSION, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.vectors = torch.randn(n_passages, dimension, generator=generator)
        self.passages = [words(2 + number % 4, seed=number).tolist() for number in range(n_passages)]
        self.tokenised = torch.randint(FIRST_WORD, QUESTION_VOCABULARY, (n_passages, 6), generator=generator)
        self.return_tokenised = False
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self,
        question_input_ids: Any,
        question_hidden_states: Any,
        prefix: str | None = None,
        n_docs: int | None = None,
        return_tensors: str | None = None,
    ) -> dict[str, Tensor]:
        self.calls.append({"prefix": prefix, "n_docs": n_docs, "vectors": question_hidden_states})
        scores = torch.from_numpy(question_hidden_states) @ self.vectors.T  # (B, N)
        best = scores.topk(min(n_docs, len(self.vectors)), dim=1).indices
        doc_ids = torch.full((len(best), n_docs), -1)
        doc_ids[:, : best.shape[1]] = best
        rows = [
            [*(self.passages[passage] if passage >= 0 else []), *question.tolist()]
            for question, ids in zip(question_input_ids, doc_ids.tolist(), strict=True)
            for passage in ids
        ]
        longest = max(map(len, rows))
        result = {
            "context_input_ids": torch.tensor([row + [1] * (longest - len(row)) for row in rows]),
            "context_attention_mask": torch.tensor(
                [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
            ),
            "retrieved_doc_embeds": self.vectors[doc_ids.clamp(min=0)] * (doc_ids >= 0)[..., None],
            "doc_ids": doc_ids,
        }
        if self.return_tokenised:
            result["tokenized_doc_ids"] = self.tokenised[doc_ids.clamp(min=0)].flatten(0, 1)
            result["tokenized_doc_attention_mask"] = torch.ones_like(result["tokenized_doc_ids"])
        return result

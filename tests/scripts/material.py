"""Checkpoints with random weights, passages, and helpers that the scripts share.

Notation used for tensor shapes: B questions, S and T tokens. Dropout is off, so that training runs are comparable.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers as tf
from torch import Tensor

from tests.support import models, retrieval

SPECIAL = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
BYTES = slice(4, 260)  # tokens of single bytes follow the special tokens
CLASSES = {"token": "RagTokenForGeneration", "sequence": "RagSequenceForGeneration"}
QUESTIONS = ("where is paris ?", "who founded rome ?", "what is the nile ?", "where is london ?")
ANSWERS = ("on the Seine", "the kings", "a river", "on the Thames")


def question_encoder_config() -> Any:
    config = models.question_encoder_config()
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return config


def generator_config(kind: str = "bart") -> Any:
    dropout = {"bart": "dropout", "t5": "dropout_rate"}[kind]
    special = {**SPECIAL, "decoder_start_token_id": 1} if kind == "t5" else SPECIAL
    n_words = len(retrieval.generator_tokenizer())
    return models.generator_config(kind, n_words, **special, **{dropout: 0.0, "d_model": 48})


def random_model(cls: Any, config: Any, seed: int = 0) -> Any:
    """A model in evaluation mode whose weights depend on the seed only."""
    model = cls(config)
    models.randomise(model, seed)
    return model.eval()


def save_checkpoint(folder: Path, formulation: str = "token", generator: str = "bart", **fields: Any) -> str:
    """Save a RAG model and its tokenizers with transformers.

    Args:
        folder: Folder to write.
        formulation: "token" or "sequence".
        generator: "bart" or "t5".
        **fields: Fields of RagConfig.

    Returns:
        The folder.
    """
    generation = generator_config(generator)
    config = tf.RagConfig.from_question_encoder_generator_configs(
        question_encoder_config(),
        generation,
        **{
            **{name: getattr(generation, name) for name in SPECIAL},
            "n_docs": 3,
            "max_combined_length": 100,
            "retrieval_vector_size": models.DIMENSION,
            "index_name": "custom",
            **fields,
        },
    )
    model = random_model(getattr(tf, CLASSES[formulation]), config)
    make_varied(model)
    model.save_pretrained(folder)
    tf.RagTokenizer(retrieval.question_tokenizer(), retrieval.generator_tokenizer()).save_pretrained(folder)
    return str(folder)


def make_varied(model: Any) -> None:
    """Adjust random weights so that answers depend on the question and several passages matter."""
    models.randomise(model.generator, seed=1, std=0.3)
    with torch.no_grad():
        embeddings = model.generator.get_input_embeddings().weight
        embeddings.mul_(1.6 / embeddings.norm(dim=1, keepdim=True))  # without this, one token dominates
        last_layer = model.question_encoder.question_encoder.bert_model.encoder.layer[-1]
        last_layer.output.LayerNorm.weight.fill_(0.3)
        if hasattr(model.generator, "final_logits_bias"):
            model.generator.final_logits_bias[:, BYTES] = -6.0  # single bytes are not readable
            model.generator.final_logits_bias[:, SPECIAL["eos_token_id"]] = 2.5  # answers differ in length


def passages() -> Any:
    """A data set of titles, texts and vectors with a FAISS index of inner products."""
    return retrieval.dataset()


def save_passages(folder: Path) -> dict[str, str]:
    """Save the data set and its index; returns the arguments that open them."""
    folder.mkdir(parents=True, exist_ok=True)
    passages_path, index_path = retrieval.saved_dataset(folder)
    return {"index_name": "custom", "passages_path": passages_path, "index_path": index_path}


def load(lib: ModuleType, checkpoint: str, formulation: str = "token", cls: Any = None) -> tuple[Any, Any]:
    """Load a model with its retriever, and the tokenizer."""
    retriever = lib.RagRetriever.from_pretrained(checkpoint, indexed_dataset=passages())
    cls = cls or getattr(lib, CLASSES[formulation])
    model = cls.from_pretrained(checkpoint, retriever=retriever)
    return model, lib.RagTokenizer.from_pretrained(checkpoint)


def question_ids(tokenizer: Any, n_questions: int = 1) -> Tensor:
    """Tokens of the first questions, (B, S). The first two have equal lengths and need no mask."""
    encoded = tokenizer(list(QUESTIONS[:n_questions]), padding=True, return_tensors="pt")
    ids: Tensor = encoded["input_ids"]
    return ids


def answer_ids(tokenizer: Any, n_answers: int = 1) -> Tensor:
    """Tokens of the first answers in the generator's vocabulary, (B, T)."""
    encoded = tokenizer.generator(list(ANSWERS[:n_answers]), padding=True, return_tensors="pt")
    ids: Tensor = encoded["input_ids"]
    return ids


def without_padding(answers: Tensor) -> list[list[int]]:
    """Answers of RAG-Sequence without trailing padding: transformers pads them to the longest candidate."""
    rows: list[list[int]] = answers.tolist()
    for row in rows:
        while row[-1] == SPECIAL["pad_token_id"]:
            row.pop()
    return rows


def caught(error: type[Exception], call: Callable[[], Any]) -> bool:
    """Whether ``except error`` catches what a call raises; false if nothing is raised."""
    try:
        call()
    except error:
        return True
    except Exception:
        return False
    return False


def rag_name(lib: ModuleType, name: str) -> Any:
    """A name that transformers has in its RAG modules, but not at the top level."""
    if lib.__name__ == "ragweave":
        return getattr(lib, name)
    modules = (tf.models.rag.retrieval_rag, tf.models.rag.modeling_rag)
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def weights(model: Any) -> dict[str, Tensor]:
    """Copies of all parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

"""Tokenizers, passages and indexes small enough to be made in a test.

N passages, D vector size (`models.DIMENSION`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import datasets
import faiss
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from ragweave import RagConfig
from tests.support import models

PASSAGES = (
    ("Paris", "Paris is the capital of France. It lies on the river Seine."),
    ("London", "London is the capital of England, and lies on the river Thames."),
    ('"Rome"', "Rome was founded in 753 BC, as they say. It was the city of the kings."),
    ("Nile", "The Nile is a river of 6,650 km, the longest in Africa."),
    ("Cairo", "Cairo (Egypt) is a city on the Nile; it was founded in 969."),
    ("", "A passage without any title says nothing much of the world."),
    ("Vienna", "Vienna lies on the Danube.\nIt is the capital of Austria."),
)
QUESTIONS = ("where is paris ?", "who founded rome ?", "what is the nile ?")

_VERBS = ("is", "founded", "born", "wrote")
_NOUNS = ("capital", "river", "city", "king", "paris", "london", "nile", "rome")
_OTHERS = ("who", "what", "where", "when", "the", "of", "in", "a", "?", ",", "'", "s", "##s")


@cache
def question_tokenizer() -> Any:
    """BERT's kind of tokenizer, lower-casing, with as many words as the tiny question encoders know."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_VERBS, *_NOUNS, *_OTHERS]
    assert len(words) <= models.QUESTION_VOCABULARY
    return BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}, model_max_length=32)


def byte_level_bpe(
    texts: tuple[str, ...] = tuple(f"{title} {text}" for title, text in PASSAGES),
    *,
    vocab_size: int = 400,
    bart: bool = True,
) -> Any:
    """A byte-level BPE trained on some texts, with BART's special tokens; or, not ``bart``, with GPT-2's."""
    special = ["<s>", "<pad>", "</s>", "<unk>"] if bart else ["<|endoftext|>"]
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if not bart:
        names = ("bos_token", "eos_token", "unk_token")
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict.fromkeys(names, special[0]))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = ("bos_token", "pad_token", "eos_token", "unk_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, special, strict=True)))


@cache
def generator_tokenizer() -> Any:
    """The generator's tokenizer, shared: don't change it."""
    return byte_level_bpe()


def vectors(n_passages: int = len(PASSAGES), *, dimension: int = models.DIMENSION, seed: int = 0) -> NDArray:
    """Random vectors, (N, D)."""
    return np.random.default_rng(seed).standard_normal((n_passages, dimension)).astype(np.float32)


def questions(n_questions: int = len(QUESTIONS), *, seed: int = 1) -> NDArray:
    """Random question vectors, (B, D)."""
    return vectors(n_questions, seed=seed)


def dataset(n_passages: int = len(PASSAGES), *, factory: str | None = "Flat", **columns: Any) -> Any:
    """Passages with vectors and, unless ``factory`` is none, a FAISS index of that kind; fresh every time."""
    found = datasets.Dataset.from_dict(
        {
            "title": [PASSAGES[number % len(PASSAGES)][0] for number in range(n_passages)],
            "text": [PASSAGES[number % len(PASSAGES)][1] for number in range(n_passages)],
            "embeddings": list(vectors(n_passages)),
            **columns,
        }
    )
    if factory is not None:
        found.add_faiss_index(
            "embeddings",
            string_factory=factory,
            metric_type=faiss.METRIC_INNER_PRODUCT,
            train_size=n_passages,
        )
    return found


def saved_dataset(folder: Any, n_passages: int = len(PASSAGES), *, factory: str = "Flat") -> tuple[str, str]:
    """A data set and its FAISS file as the datasets library saves them: their paths."""
    passages = dataset(n_passages, factory=factory)
    passages.get_index("embeddings").save(str(folder / "passages.faiss"))
    passages.drop_index("embeddings")
    passages.save_to_disk(str(folder / "passages"))
    return str(folder / "passages"), str(folder / "passages.faiss")


def config(generator: str = "bart", **fields: Any) -> RagConfig:
    """A configuration that fits the tokenizers, the passages and the tiny models."""
    return models.rag_config(
        generator,
        vocab_size=len(generator_tokenizer()),
        **{"max_combined_length": 100, "index_name": "custom", **fields},
    )


def question_batch(n_questions: int = 2) -> dict[str, Any]:
    """Tokens and mask of the first questions, (B, L)."""
    encoded = question_tokenizer()(list(QUESTIONS[:n_questions]), padding=True, return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def texts_of(found: Any) -> list[str]:
    """The contexts that a retriever returned, as text."""
    texts: list[str] = generator_tokenizer().batch_decode(
        found["context_input_ids"], skip_special_tokens=True
    )
    return texts


def best_rows(question_vectors: NDArray, passage_vectors: NDArray, n_docs: int) -> NDArray:
    """The rows with the largest inner products, (B, K), found the plain way."""
    rows = [
        sorted(range(len(passage_vectors)), key=lambda row: -float(question @ passage_vectors[row]))[:n_docs]
        for question in question_vectors
    ]
    return np.array(rows)

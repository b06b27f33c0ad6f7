"""Reranking: a cross-encoder reads a question together with each passage and scores the pair.

Notation used for tensor shapes: B questions, C candidates of a question, M pairs of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from ragweave.encoders.text_encoder import load_model, max_tokens
from ragweave.errors import ConfigurationError, ModelOutputError
from ragweave.model_files import check_complete, check_weights


class Reranker:
    """A cross-encoder with one logit, such as those trained on MS MARCO, or with two labels, the second "relevant".

    The logit is that of the probability that the passage answers the question, if the model was trained this way.
    A softmax over the candidates of a question turns it into p(z|x).
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 32) -> None:
        labels = model.config.num_labels
        if labels not in (1, 2):
            raise ConfigurationError(
                f"The cross-encoder has {labels} labels: give one that scores with a single logit, or with two."
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_length = max_tokens(model, tokenizer)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, device: str | None = None, batch_size: int = 32
    ) -> Self:
        """Load a cross-encoder from a folder or the hub."""
        name = str(name_or_path)
        advice = "give a folder with a sequence classifier and its tokenizer, or a name on the hub"
        model, tokenizer, missing = load_model(
            "cross-encoder", name, advice, lambda config: AutoModelForSequenceClassification
        )
        check_complete(missing, name, "a cross-encoder", advice)
        check_weights(model, name)
        return cls(model if device is None else model.to(device), tokenizer, batch_size=batch_size)

    def score(self, questions: Sequence[str], docs: Sequence[dict[str, Any]]) -> list[NDArray[np.float32]]:
        """Score passages; see `PassageScorer`. Pairs that are too long lose the end of the passage."""
        pairs = [
            (question, f"{title} {text}".strip())
            for question, doc in zip(questions, docs, strict=True)
            for title, text in zip(doc["title"], doc["text"], strict=True)
        ]
        logits = np.zeros(len(pairs), dtype=np.float32)
        # Batches of similar length have little padding.
        order = sorted(range(len(pairs)), key=lambda index: sum(map(len, pairs[index])))
        for start in range(0, len(pairs), self.batch_size):
            batch = order[start : start + self.batch_size]
            with torch.inference_mode():
                logits[batch] = self._logits([pairs[index] for index in batch])
        ends = np.cumsum([len(doc["title"]) for doc in docs])[:-1]
        return np.split(logits, ends)

    def _logits(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        """The logits of M pairs, (M,)."""
        questions, passages = zip(*pairs, strict=True)
        encoded = self.tokenizer(
            list(questions),
            list(passages),
            padding=True,
            truncation=False if self.max_length is None else "only_second",
            max_length=self.max_length,
            return_tensors="pt",
        )
        logits = self.model(**encoded.to(self.model.device)).logits.float()  # (M, 1) or (M, 2)
        # The log-odds of the second of two labels are the difference of their logits.
        relevance: torch.Tensor = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        if not relevance.isfinite().all():
            raise ModelOutputError(
                "The cross-encoder gives scores that are NaN or infinite: choose another reranker."
            )
        return relevance.cpu().numpy()

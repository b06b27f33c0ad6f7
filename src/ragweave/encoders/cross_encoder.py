"""Reranking: a cross-encoder reads a question together with each passage and says how well they fit.

Notation used for tensor shapes: B questions, C candidates of a question, S tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, ModelNotFoundError

_WITHOUT_LIMIT = 10**6  # tokenizers that know no limit say an enormous number


class Reranker:
    """A cross-encoder with one logit, such as those trained on MS MARCO.

    Its logit is that of the probability that the passage answers the question, if it was trained so; among the
    candidates of a question a softmax makes p(z|x) of it.

    Args:
        model: A sequence classifier with one label, or with two of which the second is "relevant".
        tokenizer: Its tokenizer.
        batch_size: Pairs read together.

    Raises:
        ConfigurationError: The model has more than two labels.
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

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, device: str | None = None, batch_size: int = 32
    ) -> Self:
        """Load a cross-encoder from a folder or the hub.

        Raises:
            ModelNotFoundError: There is no such model.
            ConfigurationError: It has more than two labels.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(name_or_path))
            model = AutoModelForSequenceClassification.from_pretrained(str(name_or_path))
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(
                f"No cross-encoder could be loaded from '{name_or_path}': give a folder with a sequence classifier "
                f"and its tokenizer, or a name on the hub ({str(error).splitlines()[0]})."
            ) from error
        return cls(model if device is None else model.to(device), tokenizer, batch_size=batch_size)

    def score(self, questions: Sequence[str], docs: Sequence[dict[str, Any]]) -> list[NDArray[np.float32]]:
        """Score the candidates of B questions; those that are too long are cut at the end of the passage.

        Args:
            questions: B questions.
            docs: B dictionaries of lists of C titles and texts.

        Returns:
            For every question the logits of its candidates, (C,).
        """
        import torch

        pairs = [
            (question, f"{title} {text}".strip())
            for question, doc in zip(questions, docs, strict=True)
            for title, text in zip(doc["title"], doc["text"], strict=True)
        ]
        logits = np.zeros(len(pairs), dtype=np.float32)
        # Those of like lengths together, so that little is computed on padding.
        order = sorted(range(len(pairs)), key=lambda place: len(pairs[place][0]) + len(pairs[place][1]))
        for start in range(0, len(pairs), self.batch_size):
            places = order[start : start + self.batch_size]
            with torch.inference_mode():
                logits[places] = self._logits([pairs[place] for place in places])
        ends = np.cumsum([len(doc["title"]) for doc in docs])[:-1]
        return np.split(logits, ends)

    def _logits(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        """The logits of M pairs, (M,)."""
        questions, passages = zip(*pairs, strict=True)
        limits = (
            self.tokenizer.model_max_length,
            getattr(self.model.config, "max_position_embeddings", None),
        )
        known = [limit for limit in limits if limit is not None and limit < _WITHOUT_LIMIT]
        encoded = self.tokenizer(
            list(questions),
            list(passages),
            padding=True,
            truncation="only_second" if known else False,
            max_length=min(known, default=None),
            return_tensors="pt",
        )
        output = self.model(**encoded.to(self.model.device)).logits.float()  # (M, 1) or (M, 2)
        own = output[:, 0] if output.shape[1] == 1 else output[:, 1] - output[:, 0]
        return own.cpu().numpy()

"""Texts to weights of words: a masked language model as a sparse encoder (SPLADE).

Notation used for tensor shapes: L texts, B texts of one batch, S tokens, V vocabulary, P weights above zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForMaskedLM

from ragweave.encoders.linear import fast_linear
from ragweave.encoders.pooling import read_settings
from ragweave.encoders.text_encoder import hash_weights, load_model, max_tokens, token_batches
from ragweave.errors import ConfigurationError, ModelOutputError
from ragweave.model_files import check_complete, check_weights

# The logits of a batch have V numbers per token: 125 MB for BERT's vocabulary.
_BATCH_TOKENS = 1024


class SparseEncoder:
    """Weighs the words of a vocabulary for a text, including words that are not in the text.

    The weight of a word is log(1 + the largest of its logits over the tokens of the text), or 0 below that (Formal et
    al. 2021, "SPLADE v2"). The score of a passage is the inner product with the weights of a question. The model is a
    masked language model; the other arguments are as in `TextEncoder`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        max_length: int | None = None,
        question_prompt: str = "",
        passage_prompt: str = "",
    ) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.max_length = max_tokens(model, tokenizer, max_length)
        self.question_prompt, self.passage_prompt = question_prompt, passage_prompt

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, device: str | None = None, name: str | None = None
    ) -> Self:
        """Load a ``SparseEncoder`` of sentence-transformers, or a bare masked language model trained as SPLADE.

        Raises:
            ConfigurationError: It is another kind of sparse encoder.
            ModelNotFoundError: There is no such model, or it cannot be read.
        """
        location = str(name_or_path)
        advice = "give a folder with a masked language model and its tokenizer, or a name on the hub"
        settings = read_settings(location, modules={"Transformer", "MLMTransformer", "SpladePooling"})
        if settings.normalize:
            raise ConfigurationError(
                f"The sparse encoder '{location}' compares texts by cosines, which ragweave does not support: choose "
                "one with inner products (similarity_fn_name 'dot')."
            )
        model, tokenizer, missing = load_model(
            "sparse encoder", location, advice, lambda config: AutoModelForMaskedLM, dtype=torch.float32
        )
        check_complete(missing, location, "a masked language model", advice)
        check_weights(model, location)
        return cls(
            model if device is None else model.to(device),
            tokenizer,
            name=name or location,
            max_length=settings.max_length,
            question_prompt=settings.question_prompt or "",
            passage_prompt=settings.passage_prompt or "",
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what determines the weights of a passage."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"splade {self.passage_prompt!r} {self.max_length}".encode())
        hash_weights(digest, self.model.state_dict())
        return digest.hexdigest()

    def encode(
        self, texts: Sequence[str], *, prompt: str | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Weigh words for L texts, truncated to ``max_length`` tokens; the default prompt is ``passage_prompt``.

        Returns text numbers in ascending order, the words' numbers in the vocabulary, and weights, each (P,).
        """
        prompt = self.passage_prompt if prompt is None else prompt
        parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
        prompted = [prompt + text for text in texts]
        batches = token_batches(self.tokenizer, prompted, self.max_length, _BATCH_TOKENS) if prompted else ()
        for rows, input_ids, mask in batches:
            weights = self._weights(input_ids, mask)  # (B, V)
            if not np.isfinite(weights).all():
                raise ModelOutputError(
                    f"The sparse encoder '{self.name}' gives weights that are NaN or infinite: choose another."
                )
            texts_of, words = np.nonzero(weights)
            parts.append((np.array(rows)[texts_of], words, weights[texts_of, words]))
        numbers, words, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.argsort(numbers, kind="stable")
        return numbers[order], words[order], values[order]

    def _weights(self, input_ids: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float32]:
        """The weights of all words for one batch, (B, V)."""
        device = self.model.device
        with torch.inference_mode(), fast_linear(self.model):
            mask = mask.to(device)
            logits = self.model(input_ids=input_ids.to(device), attention_mask=mask).logits  # (B, S, V)
            logits.masked_fill_(mask.unsqueeze(-1) == 0, 0)
            weights: NDArray[np.float32] = logits.amax(dim=1).relu().log1p().float().cpu().numpy()
        return weights

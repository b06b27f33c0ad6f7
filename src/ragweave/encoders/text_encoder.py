"""Texts to vectors: the bi-encoder for passages and questions.

Notation used for tensor shapes: L texts of a call, B texts of one batch, S tokens, D vector size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer

from ragweave.encoders.linear import fast_linear
from ragweave.encoders.pooling import EncoderSettings, pool, read_settings, write_settings
from ragweave.errors import ConfigurationError, ModelOutputError, QuestionError
from ragweave.model_files import (
    EMBEDDED,
    EMBEDDED_ENCODER,
    check_complete,
    check_config,
    check_dim,
    check_weights,
    embedded_encoder_path,
    reading_model,
)
from ragweave.types import POOLINGS, Pooling

EncoderDtype = Literal["auto", "float32", "bfloat16"]
"""``"auto"`` is bfloat16 on hardware with bfloat16 instructions, and float32 elsewhere."""

# Larger batches are no faster on a CPU because they exceed its caches.
_BATCH_TOKENS = 2048
# Texts tokenized at a time: the tokens of a large corpus do not fit into memory.
_TOKENIZE_CHUNK = 8192
# Models whose positions start after the padding index, which leaves two fewer for tokens.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text"}


class TextEncoder:
    """Embeds texts with a transformers encoder: passages with their titles, and questions.

    Args:
        model: A built transformers encoder.
        tokenizer: Its tokenizer.
        name: The encoder's name in messages and manifests.
        pooling: How the states of a text's tokens become one vector.
        normalize: Whether vectors are scaled to length 1, so that dot products are cosines.
        max_length: The maximum number of tokens of a text, special ones included; ``None`` for the model's own.
        question_prompt: What the model expects in front of a question, such as ``"query: "``.
        passage_prompt: What it expects in front of a passage.
        dim: How many leading dimensions of each vector to keep; ``None`` for all.

    Example:
        >>> encoder = TextEncoder.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
        >>> encoder.encode(["Where is Lima?"]).shape
        (1, 384)
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        name: str,
        pooling: Pooling = "mean",
        normalize: bool = False,
        max_length: int | None = None,
        question_prompt: str = "",
        passage_prompt: str = "",
        dim: int | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise ConfigurationError(f"Unknown pooling {pooling!r}. Choose one of: {', '.join(POOLINGS)}.")
        if max_length is not None and max_length < 1:
            raise ConfigurationError(f"max_length is {max_length}: it must be at least 1.")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.pooling: Pooling = pooling
        self.normalize = normalize
        self.max_length = max_tokens(model, tokenizer, max_length)
        self.question_prompt, self.passage_prompt, self.dim = question_prompt, passage_prompt, dim
        if dim is not None:
            check_dim(dim, pooling, int(getattr(model.config, "hidden_size", dim)))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        question_prompt: str | None = None,
        passage_prompt: str | None = None,
        dim: int | None = None,
        device: str | None = None,
        dtype: EncoderDtype | None = None,
        name: str | None = None,
    ) -> TextEncoder:
        """Load an encoder from a folder or from the hub.

        Defaults come from the model's sentence-transformers files. Without these files, the pooling is "pooler" for
        DPR models and "mean" for others, vectors are not normalised, and there are no prompts.

        Args:
            name_or_path: A folder, a model's name on the hub, or "embedded".
            pooling: How the states of a text's tokens become one vector.
            normalize: Whether vectors are scaled to length 1.
            max_length: The maximum number of tokens of a text, special ones included.
            question_prompt: What the model expects in front of a question.
            passage_prompt: What it expects in front of a passage.
            dim: How many dimensions of each vector to keep, for a model that was trained for it (Matryoshka).
            device: Where to compute, such as ``"cuda"``; the CPU by default.
            dtype: Type to compute in; float32 by default. Vectors are always float32.
            name: The encoder's name in messages and manifests; ``name_or_path`` by default.

        Raises:
            ConfigurationError: The model cannot be used as an encoder.
            ModelNotFoundError: There is no such model, or it cannot be read.
        """
        location = str(name_or_path)
        if location in {EMBEDDED, EMBEDDED_ENCODER}:
            # Named as on the hub, which is valid on every machine, and not by the folder on this machine.
            location, name = str(embedded_encoder_path()), name or EMBEDDED_ENCODER
        torch_dtype = compute_dtype(dtype, device)
        advice = "give a folder with a transformers model and its tokenizer, or a name on the hub"
        model, tokenizer, missing = load_model("encoder", location, advice, _class_of, dtype=torch.float32)
        # With all these arguments, the settings files are not needed; the hub may be unreachable.
        complete = None not in (pooling, normalize, max_length, question_prompt, passage_prompt)
        settings = EncoderSettings() if complete else read_settings(location)
        default_pooling: Pooling = "pooler" if model.config.model_type == "dpr" else "mean"
        pooling = pooling or settings.pooling or default_pooling
        # Only this pooling uses the pooler's weights; many checkpoints lack them.
        missing = [weight for weight in missing if pooling == "pooler" or not _is_pooler(weight)]
        check_complete(
            missing, location, "the encoder", "give the folder of a trained encoder, or another pooling"
        )
        check_weights(model, location)
        encoder = cls(
            model=model,
            tokenizer=tokenizer,
            name=location if name is None else name,
            pooling=pooling,
            normalize=bool(settings.normalize if normalize is None else normalize),
            max_length=max_length or settings.max_length,
            question_prompt=(settings.question_prompt if question_prompt is None else question_prompt) or "",
            passage_prompt=(settings.passage_prompt if passage_prompt is None else passage_prompt) or "",
            dim=dim or settings.dim,
        )
        if torch_dtype != model.dtype:
            _ = encoder.fingerprint  # cached now, because it identifies the checkpoint before rounding
            model.to(dtype=torch_dtype)
        if device is not None:
            model.to(device)
        return encoder

    def save_pretrained(self, folder: str | Path) -> None:
        """Save model, tokenizer and settings in sentence-transformers' layout; the folder is created if needed."""
        folder = Path(folder)
        if folder.is_file():
            raise ConfigurationError(f"{folder} is a file; give a folder to save the encoder in.")
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        settings = EncoderSettings(
            self.pooling, self.normalize, self.max_length, self.question_prompt, self.passage_prompt, self.dim
        )
        write_settings(folder, settings, self.dimension)

    @cached_property
    def dimension(self) -> int:
        """The size of a vector, D."""
        return int(self.encode([""]).shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what determines a passage's vector: weights, pooling, normalisation, prompt and size."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.pooling} {'normalized' if self.normalize else 'raw'}".encode())
        if self.passage_prompt or self.dim:
            digest.update(f" {self.passage_prompt!r} {self.dim}".encode())
        weights = self.model.state_dict()
        if self.pooling != "pooler":  # unused, and random if the checkpoint lacks it
            weights = {name: weight for name, weight in weights.items() if not _is_pooler(name)}
        hash_weights(digest, weights)
        return digest.hexdigest()

    def question_length(self, question: str) -> int:
        """Count the tokens of a question; raises `QuestionError` if it is empty, or longer than the encoder reads."""
        if not question.strip():
            raise QuestionError("The question is empty; ask something.")
        length = self.question_token_count(question)
        if self.max_length is not None and length > self.max_length:
            raise QuestionError(
                f"The question has {length} tokens, but the encoder reads {self.max_length}: ask a shorter "
                f"one. It begins {question.strip()[:60]!r}."
            )
        return length

    def token_count(self, text: str) -> int:
        """Count the tokens of a text, special ones included, without truncation."""
        return len(self.tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"])

    def question_token_count(self, question: str) -> int:
        """Count the tokens of a question with its prompt, special ones included."""
        return self.token_count(self.question_prompt + question)

    def passage_token_count(self, title: str, text: str) -> int:
        """Count the tokens of a passage with its prompt and title, special ones included."""
        return self.token_count(self.passage_prompt + with_title(title, text))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of the tokens of a text, in characters, without special ones."""
        if not self.tokenizer.is_fast:
            raise ConfigurationError(
                f"The tokenizer of {self.name} has no character offsets: choose another chunking."
            )
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        return [(start, end) for start, end in encoded["offset_mapping"]]

    def encode_questions(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """Embed B questions with the prompt for questions, (B, D); errors as in `encode`."""
        return self.encode(questions, prompt=self.question_prompt)

    def encode(
        self,
        texts: Sequence[str],
        *,
        titles: Sequence[str] | None = None,
        prompt: str | None = None,
        batch_tokens: int = _BATCH_TOKENS,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Embed texts, by default as passages: the vectors in the order of the texts, (L, D).

        Texts are sorted by length and batched to a budget of tokens, so that batches have little padding.

        Args:
            texts: L texts; each is truncated to ``max_length`` tokens.
            titles: L titles (may be empty), put in front of the texts.
            prompt: Put in front of all; by default ``passage_prompt``.
            batch_tokens: The maximum number of tokens in one batch, padding included.
            progress: Called after every batch with its number of texts.

        Raises:
            ConfigurationError: The numbers of titles and texts differ, or ``batch_tokens`` is below 1.
            ModelOutputError: A vector is NaN or infinite.
        """
        if titles is not None and len(titles) != len(texts):
            raise ConfigurationError(f"There are {len(titles)} titles for {len(texts)} texts: give one each.")
        if batch_tokens < 1:
            raise ConfigurationError(f"batch_tokens is {batch_tokens}: it must be at least 1.")
        if not len(texts):
            return np.zeros((0, self.dimension), dtype=np.float32)
        prompt = self.passage_prompt if prompt is None else prompt
        vectors = np.empty((0, 0), dtype=np.float32)  # D is known after the first batch
        for start in range(0, len(texts), _TOKENIZE_CHUNK):
            chunk = texts[start : start + _TOKENIZE_CHUNK]
            if titles is not None:
                chunk = list(map(with_title, titles[start : start + _TOKENIZE_CHUNK], chunk))
            chunk = [prompt + text for text in chunk] if prompt else chunk
            for rows, input_ids, mask in token_batches(self.tokenizer, chunk, self.max_length, batch_tokens):
                batch = self._forward(input_ids, mask).numpy()
                if not np.isfinite(batch).all():
                    bad = chunk[rows[int(np.argmin(np.isfinite(batch).all(axis=1)))]]
                    raise ModelOutputError(
                        f"The encoder '{self.name}' gives a vector that is NaN or infinite for the text that begins "
                        f"{bad[:60]!r}: choose another encoder, or float32 if it computes in another type."
                    )
                if not len(vectors):
                    vectors = np.empty((len(texts), batch.shape[1]), dtype=np.float32)
                vectors[[start + row for row in rows]] = batch
                if progress is not None:
                    progress(len(rows))
        return vectors

    def _forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Vectors of one batch, (B, D)."""
        with torch.inference_mode(), fast_linear(self.model):
            attention_mask = attention_mask.to(self.model.device)
            outputs = self.model(input_ids=input_ids.to(self.model.device), attention_mask=attention_mask)
            vectors = pool(outputs, attention_mask, self.pooling, self.normalize, self.dim)
        return vectors.float().cpu()


def with_title(title: str, text: str) -> str:
    """The text of a passage as encoders read it: with its title in front."""
    return f"{title}. {text}" if title else text


def token_batches(
    tokenizer: Any, texts: Sequence[str], max_length: int | None, batch_tokens: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Yield the positions of each batch's texts, their tokens and their mask, both (B, S)."""
    tokens = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    for rows in _batches([len(ids) for ids in tokens], batch_tokens):
        ids = [torch.tensor(tokens[row], dtype=torch.long) for row in rows]
        input_ids = pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id or 0)
        yield rows, input_ids, pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Group texts by length, longest first; their number times the longest length stays within the budget."""
    rows: list[int] = []
    # Longest first: a batch that exceeds the memory fails at once, not after an hour.
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if rows and (len(rows) + 1) * lengths[rows[0]] > batch_tokens:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def load_model(
    kind: str, location: str, advice: str, class_of: Callable[[Any], Any], **options: Any
) -> tuple[Any, Any, list[str]]:
    """Load a model of the class for its configuration, its tokenizer, and the names of weights not in its files."""
    with reading_model(kind, location, advice):
        config = AutoConfig.from_pretrained(location, trust_remote_code=False)
        check_config(config)
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
        model, loading = class_of(config).from_pretrained(
            location, config=config, trust_remote_code=False, output_loading_info=True, **options
        )
    return model, tokenizer, sorted(loading["missing_keys"])


def _class_of(config: Any) -> Any:
    if config.model_type == "dpr":
        # AutoModel would load a DPR context encoder as a question encoder, with random weights.
        return getattr(transformers, (config.architectures or ["DPRQuestionEncoder"])[0])
    return AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel


def max_tokens(model: Any, tokenizer: Any, requested: int | None = None) -> int | None:
    """The smallest limit of the caller, the model and its tokenizer; ``None`` if there is no limit."""
    limits = [requested] if requested is not None else []
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None:
        offset = model.config.pad_token_id + 1 if model.config.model_type in _OFFSET_POSITIONS else 0
        limits.append(positions - offset)
    if tokenizer.model_max_length < 10**9:  # tokenizers without a limit have an enormous one
        limits.append(tokenizer.model_max_length)
    return min(limits, default=None)


def compute_dtype(dtype: EncoderDtype | None, device: str | None) -> torch.dtype:
    """The torch type for one of `EncoderDtype` on a device."""
    if dtype not in (None, "auto", "float32", "bfloat16"):
        raise ConfigurationError(
            f"Unknown dtype {dtype!r}: choose 'auto', 'float32' or 'bfloat16' (for a generator, also 'int8')."
        )
    half = dtype == "bfloat16" or (dtype == "auto" and _has_bfloat16(device))
    return torch.bfloat16 if half else torch.float32


def _has_bfloat16(device: str | None) -> bool:
    """Whether the hardware has bfloat16 instructions. Emulated, bfloat16 would be slower than float32."""
    if device is not None and device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device in (None, "cpu") else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def hash_weights(digest: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Add weights with their names, shapes and types to a digest of hashlib."""
    for name, weight in sorted(weights.items()):
        values = weight.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)


def _is_pooler(name: str) -> bool:
    return "pooler" in name.split(".")

"""Texts to vectors: the encoder that passages and questions share.

Notation used for tensor shapes: N texts, B texts of one batch, S tokens, D vector size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ragweave.encoders.hardware import cpu_capabilities
from ragweave.encoders.pooling import pool
from ragweave.encoders.settings import EncoderSettings, read_settings, write_settings
from ragweave.errors import ConfigurationError, ModelNotFoundError
from ragweave.types import POOLINGS, Pooling

if TYPE_CHECKING:
    import torch

EncoderDtype = Literal["auto", "float32", "bfloat16"]
"""``"auto"`` is bfloat16 where the processor computes in it by itself, and float32 elsewhere."""

# Batches larger than this are no faster on a processor, whose caches they leave.
_BATCH_TOKENS = 2048
# How many texts are tokenized at a time, so that the tokens of a large corpus are never all in memory.
_TOKENIZED_AT_ONCE = 8192


class TextEncoder:
    """Embeds texts with a transformers encoder: passages with their titles, and questions.

    Args:
        model: A built transformers encoder.
        tokenizer: Its tokenizer.
        name: What to call the encoder in messages and manifests.
        pooling: How the states of a text's tokens become one vector.
        normalize: Whether vectors are scaled to length 1, so that dot products are cosines.
        max_length: The most tokens of a text that are read, special ones included; ``None`` for as many as
            the model has positions for.

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
    ) -> None:
        if pooling not in POOLINGS:
            raise ConfigurationError(f"Unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}.")
        if max_length is not None and max_length < 1:
            raise ConfigurationError(f"max_length is {max_length}: it must be at least 1.")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.pooling: Pooling = pooling
        self.normalize = normalize
        self.max_length = _readable_length(model, tokenizer, max_length)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        device: str | None = None,
        dtype: EncoderDtype | None = None,
        name: str | None = None,
    ) -> TextEncoder:
        """Load an encoder from a folder or from the hub.

        What is not given is taken from the model's sentence-transformers files where it has them. A DPR
        model makes its own vector ("pooler"); any other is pooled by the mean, not normalised.

        Args:
            name_or_path: A folder, or a model's name on the hub.
            pooling: How the states of a text's tokens become one vector.
            normalize: Whether vectors are scaled to length 1.
            max_length: The most tokens of a text that are read, special ones included.
            device: Where to compute, such as ``"cuda"``; the processor by default.
            dtype: Type to compute in; float32 by default. Vectors are float32 in any case.
            name: What to call the encoder in messages and manifests; ``name_or_path`` by default.

        Returns:
            The encoder.

        Raises:
            ConfigurationError: The model cannot be used as an encoder.
            ModelNotFoundError: There is no such model, or it cannot be read.
        """
        location = str(name_or_path)
        wanted_dtype = compute_dtype(dtype, device)
        config, model, tokenizer, missing = _load(location)
        # Where the caller has said everything, the files (perhaps on a hub out of reach) are not needed.
        if pooling is not None and normalize is not None and max_length is not None:
            settings = EncoderSettings()
        else:
            settings = read_settings(location)
        default_pooling: Pooling = "pooler" if config.model_type == "dpr" else "mean"
        pooling = pooling or settings.pooling or default_pooling
        # Only this pooling reads the pooler's weights; many checkpoints come without them.
        missing = [weight for weight in missing if pooling == "pooler" or not _is_pooler(weight)]
        if missing:
            raise ModelNotFoundError(
                f"The files of '{location}' lack {len(missing)} weights of the encoder, such as "
                f"'{missing[0]}': give the folder of a trained encoder, or another pooling."
            )
        encoder = cls(
            model=model,
            tokenizer=tokenizer,
            name=location if name is None else name,
            pooling=pooling,
            normalize=bool(settings.normalize if normalize is None else normalize),
            max_length=max_length or settings.max_length,
        )
        if wanted_dtype != model.dtype:
            # The fingerprint names the checkpoint, so it is taken before its weights are rounded.
            _ = encoder.fingerprint
            model.to(dtype=wanted_dtype)
        if device is not None:
            model.to(device)
        return encoder

    def save_pretrained(self, folder: str | Path) -> None:
        """Save model, tokenizer and how texts are embedded, in the way of sentence-transformers.

        Args:
            folder: Where; made if it is not there.

        Raises:
            ConfigurationError: The path is a file.
        """
        folder = Path(folder)
        if folder.is_file():
            raise ConfigurationError(f"{folder} is a file; give a folder to save the encoder in.")
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_settings(folder, EncoderSettings(self.pooling, self.normalize, self.max_length), self.dimension)

    @cached_property
    def dimension(self) -> int:
        """The size of a vector, D."""
        return int(self.encode([""]).shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that decides a vector: the weights, the pooling and the normalisation."""
        import torch

        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.pooling} {'normalized' if self.normalize else 'raw'}".encode())
        for name, weight in sorted(self.model.state_dict().items()):
            if self.pooling != "pooler" and _is_pooler(name):
                continue  # not used, and random where a checkpoint does not have it
            values = weight.detach().cpu().contiguous()
            digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def token_count(self, text: str) -> int:
        """Count the tokens of a text, special ones included, however many the encoder would read."""
        return len(self.tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"])

    def passage_token_count(self, title: str, text: str) -> int:
        """Count the tokens of a passage with its title, special ones included."""
        return self.token_count(with_title(title, text))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Where the tokens of a text begin and end in it, in characters; special ones left out.

        Raises:
            ConfigurationError: The tokenizer does not know.
        """
        if not self.tokenizer.is_fast:
            raise ConfigurationError(
                f"The tokenizer of {self.name} does not tell where its tokens are: choose another way of chunking."
            )
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        return [(start, end) for start, end in encoded["offset_mapping"]]

    def encode(
        self,
        texts: Sequence[str],
        *,
        titles: Sequence[str] | None = None,
        batch_tokens: int = _BATCH_TOKENS,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Embed texts.

        Texts are sorted by their tokens and batched to a budget of tokens, so that hardly any computation
        goes into padding; vectors come back in the order of the texts.

        Args:
            texts: The texts, of which at most ``max_length`` tokens are read.
            titles: A title for each text (may be empty), put in front of it.
            batch_tokens: The most tokens in one batch, padding included.
            progress: Called after every batch with how many more texts are done.

        Returns:
            The vectors, shape (N, D).

        Raises:
            ConfigurationError: There are not as many titles as texts, or no token fits into a batch.
        """
        if titles is not None and len(titles) != len(texts):
            raise ConfigurationError(
                f"There are {len(titles)} titles for {len(texts)} texts: give one for each."
            )
        if batch_tokens < 1:
            raise ConfigurationError(f"batch_tokens is {batch_tokens}: it must be at least 1.")
        if not len(texts):
            return np.zeros((0, self.dimension), dtype=np.float32)
        vectors: NDArray[np.float32] | None = None
        for start in range(0, len(texts), _TOKENIZED_AT_ONCE):
            part = texts[start : start + _TOKENIZED_AT_ONCE]
            if titles is not None:
                part = [
                    with_title(*pair) for pair in zip(titles[start : start + len(part)], part, strict=True)
                ]
            for rows, batch in self._embed(part, batch_tokens):
                if vectors is None:
                    vectors = np.empty((len(texts), batch.shape[1]), dtype=np.float32)
                vectors[[start + row for row in rows]] = batch
                if progress is not None:
                    progress(len(rows))
        if vectors is None:  # pragma: no cover
            raise RuntimeError("No batch was made of texts that are not empty.")
        return vectors  # (N, D)

    def _embed(
        self, texts: Sequence[str], batch_tokens: int
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Yield which texts a batch holds and their vectors, shape (B, D)."""
        import torch

        tokens = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        for rows in _batches([len(ids) for ids in tokens], batch_tokens):
            width = len(tokens[rows[0]])  # the longest comes first
            input_ids = torch.full((len(rows), width), self.tokenizer.pad_token_id or 0)  # (B, S)
            attention_mask = torch.zeros((len(rows), width), dtype=torch.long)  # (B, S)
            for line, row in enumerate(rows):
                ids = tokens[row]
                input_ids[line, : len(ids)] = torch.tensor(ids)
                attention_mask[line, : len(ids)] = 1
            yield rows, self._forward(input_ids, attention_mask).numpy()

    def _forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        import torch

        from ragweave.encoders.linear import fast_linear

        with torch.inference_mode(), fast_linear(self.model):
            attention_mask = attention_mask.to(self.model.device)
            outputs = self.model(input_ids=input_ids.to(self.model.device), attention_mask=attention_mask)
            vectors = pool(outputs, attention_mask, self.pooling, self.normalize)
        return vectors.float().cpu()  # (B, D)


def with_title(title: str, text: str) -> str:
    """Put a title in front of a text, in the way in which passages are embedded."""
    return f"{title}. {text}" if title else text


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Group texts of like lengths, longest first; a batch times its longest text stays within the budget."""
    rows: list[int] = []
    # Longest first: what does not fit into memory fails at once, not after an hour.
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if rows and (len(rows) + 1) * lengths[rows[0]] > batch_tokens:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _load(location: str) -> tuple[Any, Any, Any, list[str]]:
    """Load configuration, model in float32 and tokenizer; also name the weights that the files lack."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False)
        model_class: Any = AutoModel
        if config.model_type == "dpr":
            # AutoModel would load a passage encoder's file into a question encoder, with random weights.
            architectures = config.architectures or ["DPRQuestionEncoder"]
            model_class = getattr(transformers, architectures[0])
        elif config.is_encoder_decoder:
            model_class = AutoModelForTextEncoding
        model, loading = model_class.from_pretrained(
            location, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"No encoder could be loaded from '{location}': give a folder with a transformers model and its "
            f"tokenizer, or a name on the hub ({_first_line(error)})."
        ) from error
    return config, model, tokenizer, sorted(loading["missing_keys"])


def _readable_length(model: Any, tokenizer: Any, wanted: int | None) -> int | None:
    """The most tokens that both the model and its tokenizer read; ``None`` where nothing bounds them."""
    bounds = [wanted] if wanted is not None else []
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None:
        # RoBERTa and its kin number positions from the padding index on, which costs them two.
        offset = model.config.pad_token_id + 1 if model.config.model_type in _OFFSET_POSITIONS else 0
        bounds.append(positions - offset)
    if tokenizer.model_max_length < 10**9:
        bounds.append(tokenizer.model_max_length)
    return min(bounds) if bounds else None


_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text"}


def compute_dtype(dtype: EncoderDtype | None, device: str | None) -> torch.dtype:
    """The torch type that a word for it means on a device.

    Raises:
        ConfigurationError: The word is none of `EncoderDtype`.
    """
    import torch

    if dtype in (None, "float32"):
        return torch.float32
    if dtype == "bfloat16":
        return torch.bfloat16
    if dtype == "auto":
        return torch.bfloat16 if _computes_in_bfloat16(device) else torch.float32
    raise ConfigurationError(
        f"Unknown dtype {dtype!r}: choose 'auto', 'float32' or 'bfloat16' (of a generator, also 'int8')."
    )


def _computes_in_bfloat16(device: str | None) -> bool:
    """Whether the hardware has bfloat16 instructions; emulated, it would be slower than float32."""
    import torch

    if device is not None and device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device is not None and device != "cpu":
        return False
    capabilities = cpu_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def _is_pooler(name: str) -> bool:
    """Whether a weight belongs to the dense layer that makes ``pooler_output``."""
    return "pooler" in name.split(".")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".")

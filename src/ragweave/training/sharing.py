"""Sharing the folder of a RAG model on the Hugging Face hub, with a card made from its record of training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from ragweave.configuration import RagConfig
from ragweave.errors import ModelNotFoundError
from ragweave.knowledge.hub import head, upload
from ragweave.model_files import reading_model
from ragweave.pipeline.instruct import ADVICE
from ragweave.tokenization import GENERATOR_FOLDER, QUESTION_ENCODER_FOLDER
from ragweave.training.index_refresh import DOCUMENT_ENCODER_FOLDER
from ragweave.training.resumable_trainer import DATA_FILE

PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""The files of a model in a repository. They hold data only: nothing in them is executed."""

_FOLDERS = ("", QUESTION_ENCODER_FOLDER, GENERATOR_FOLDER, DOCUMENT_ENCODER_FOLDER)


def push_to_hub(
    folder: str | Path, repository: str, *, licence: str, description: str = "", private: bool = True
) -> str:
    """Share a RAG model on the Hugging Face hub in one commit, with a card.

    Its weights, tokenizers, calibration and document encoder are uploaded; checkpoints and knowledge bases are not.

    Args:
        folder: The folder that training or ``save_pretrained`` wrote.
        repository: ``NAME/REPOSITORY``; it is created if it does not exist.
        licence: The licence of the weights, such as ``"mit"``.
        description: What the model is for, in Markdown.
        private: Whether a new repository is private.

    Returns:
        The commit, the ``revision`` of `from_hub`.

    Raises:
        ModelNotFoundError: The folder contains no RAG model, or the hub cannot be reached or refuses the upload.
    """
    folder = Path(folder)
    if not any(folder.glob("*.safetensors")) or not (folder / QUESTION_ENCODER_FOLDER).is_dir():
        raise ModelNotFoundError(
            f"{folder} is not a folder of a RAG model with its weights and tokenizers. Train one ('ragweave "
            "train'), or save both with save_pretrained."
        )
    with reading_model("RAG model", str(folder), ADVICE):
        config = RagConfig.from_pretrained(folder)
    found = [path for part in _FOLDERS for pattern in PATTERNS for path in (folder / part).glob(pattern)]
    files: dict[str, Any] = {path.relative_to(folder).as_posix(): path for path in found}
    files["README.md"] = "\n".join(_card(folder, config, repository, licence, description)).encode()
    return upload("RAG model", repository, files, ModelNotFoundError, private=private, repo_type="model")


def from_hub(repository: str, *, revision: str | None = None) -> Path:
    """Download a model that `push_to_hub` shared.

    Args:
        repository: ``NAME/REPOSITORY``.
        revision: A commit, which pins the model; by default the latest one.

    Returns:
        Its folder, for `RagPipeline.from_pretrained`.

    Raises:
        ModelNotFoundError: It cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    with reading_model("RAG model", repository, ADVICE):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(PATTERNS)))


def _card(folder: Path, config: RagConfig, repository: str, licence: str, description: str) -> Iterator[str]:
    """The lines of the card."""
    yield from head(repository, licence, description)
    yield from ("A model for ragweave: question encoder and generator, whose answers sum over passages.", "")
    yield from (
        "```python",
        "from ragweave import RagPipeline",
        "from ragweave.training.sharing import from_hub",
    )
    yield from ("", f'pipeline = RagPipeline.from_pretrained(from_hub("{repository}"), knowledge_base="kb")')
    yield from ("```", "", "| | |", "|-|-|", f"| model | {', '.join(config.architectures or ())} |")
    for part in ("question_encoder", "generator"):
        yield f"| {part.replace('_', ' ')} | {getattr(config, part).model_type} |"
    for key in ("n_docs", "retrieval", "doc_score_scale", "passage_encoder_fingerprint"):
        yield f"| {key} | {getattr(config, key)} |"
    yield from ("", "## Training", "", "| | |", "|-|-|")
    yield from (f"| {key} | {value} |" for key, value in _record(folder).items())
    yield ""


def _record(folder: Path) -> dict[str, Any]:
    """The facts that a run recorded: its questions and its final state."""
    data, state = (
        json.loads(path.read_text("utf-8")) if path.is_file() else {}
        for path in (folder / DATA_FILE, folder / TRAINER_STATE_NAME)
    )
    record = {**data, **{key: state[key] for key in ("global_step", "epoch", "best_metric") if key in state}}
    for logs in state.get("log_history", ()):  # the last of each
        record |= {key: value for key, value in logs.items() if key == "loss" or key.startswith("eval_")}
    return record or {"record": "none: the model was not trained in this folder"}

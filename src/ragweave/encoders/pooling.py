"""How token states become one vector per text, and the sentence-transformers files that define it.

Notation used for tensor shapes: B texts, S tokens, D vector size.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import Tensor
from transformers.utils import cached_file

from ragweave.errors import ConfigurationError, ModelNotFoundError
from ragweave.model_files import check_dim
from ragweave.types import POOLINGS, Pooling


def pool(
    outputs: Any, attention_mask: Tensor, pooling: Pooling, normalize: bool, dim: int | None = None
) -> Tensor:
    """Reduce an encoder's output to one vector per text, (B, D); the mask is 1 for tokens, 0 for padding, (B, S).

    Vectors are at least float32, even for a model in half precision: scores are differences of dot products over
        hundreds of dimensions, and bfloat16 has only three digits. Autocast has no effect without matrix products.

    With ``normalize``, every vector has length 1, so that dot products are cosines. With ``dim``, only the first
    dimensions are kept (Kusupati et al. 2022, "Matryoshka Representation Learning").
    """
    if pooling not in POOLINGS:
        raise ConfigurationError(f"Unknown pooling {pooling!r}. Choose one of: {', '.join(POOLINGS)}.")
    vectors = _pooler_output(outputs) if pooling == "pooler" else _token_states(outputs, pooling)
    if pooling == "cls":
        vectors = vectors[:, 0]
    if vectors.element_size() < 4:
        vectors = vectors.float()
    if pooling == "mean":
        mask = attention_mask.unsqueeze(-1).to(vectors.dtype)  # (B, S, 1)
        # A text without tokens gets zeros, not NaN.
        vectors = (vectors * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
    if dim is not None:
        check_dim(dim, pooling, vectors.shape[-1])
        vectors = vectors[:, :dim]
    return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors  # (B, D)


def _pooler_output(outputs: Any) -> Tensor:
    """The encoder's ``pooler_output``, or its first output if that is (B, D) already, as DPR's; (B, D)."""
    pooled: Tensor | None = getattr(outputs, "pooler_output", None)
    if pooled is None and outputs[0].dim() == 2:
        pooled = outputs[0]
    if pooled is None:
        raise ConfigurationError("This encoder has no pooler output: set the pooling to 'cls' or 'mean'.")
    return pooled


def _token_states(outputs: Any, pooling: Pooling) -> Tensor:
    """The last layer's state of every token, (B, S, D)."""
    states: Tensor | None = getattr(outputs, "last_hidden_state", None)
    if states is None:
        states = outputs[0]
    if states.dim() != 3:
        raise ConfigurationError(
            f"The pooling '{pooling}' needs the states of all tokens, but this encoder returns one vector "
            "per text (DPR does): set the pooling to 'pooler'."
        )
    return states


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """How texts become vectors, as in `TextEncoder`; ``None`` if the model's files do not define it."""

    pooling: Pooling | None = None
    normalize: bool | None = None
    max_length: int | None = None
    question_prompt: str | None = None
    passage_prompt: str | None = None
    dim: int | None = None


def read_settings(
    name_or_path: str, modules: Collection[str] = ("Transformer", "Pooling", "Normalize")
) -> EncoderSettings:
    """Read the sentence-transformers files of a model: ``modules.json`` and the folders that it names.

    All settings are ``None`` for a model without these files. ``modules`` are the supported modules.
    """
    listed = read_json(name_or_path, "modules.json")
    if listed is None:
        return EncoderSettings()
    try:
        folders = {str(module["type"]).rsplit(".", 1)[-1]: str(module["path"]) for module in listed}
    except (TypeError, KeyError) as error:
        raise ModelNotFoundError(
            f"modules.json of '{name_or_path}' is damaged: it is not a list of modules with a type and a path. "
            "Download the model again."
        ) from error
    if unsupported := sorted(set(folders) - set(modules)):
        raise ConfigurationError(
            f"The encoder '{name_or_path}' has modules that ragweave does not support ({', '.join(unsupported)}): "
            f"choose an encoder made of {', '.join(sorted(modules))}."
        )
    model_config = read_json(name_or_path, "config_sentence_transformers.json") or {}
    # Inner products of vectors of length one are cosines.
    settings = EncoderSettings(
        normalize="Normalize" in folders or model_config.get("similarity_fn_name") == "cosine"
    )
    prompts = read_prompts(name_or_path, model_config)
    if "Pooling" in folders:
        pooling_config = read_json(name_or_path, f"{folders['Pooling']}/config.json") or {}
        settings = replace(settings, pooling=_parse_pooling(name_or_path, pooling_config))
        if any(prompts) and pooling_config.get("include_prompt") is False:
            raise ConfigurationError(
                f"The encoder '{name_or_path}' leaves its prompts out of the pooling (include_prompt), which "
                "ragweave does not support: choose another encoder."
            )
    if "SpladePooling" in folders:
        _check_splade(name_or_path, read_json(name_or_path, f"{folders['SpladePooling']}/config.json") or {})
    transformer_config = read_json(name_or_path, "sentence_bert_config.json") or {}
    max_length, dim = transformer_config.get("max_seq_length"), model_config.get("truncate_dim")
    for name, value in (("max_seq_length", max_length), ("truncate_dim", dim)):
        if value is not None and not (isinstance(value, int) and value > 0):
            file = "sentence_bert_config.json" if value is max_length else "config_sentence_transformers.json"
            raise ModelNotFoundError(
                f"{file} of '{name_or_path}' is damaged: {name} is {value!r}. Download the model again."
            )
    return replace(
        settings, max_length=max_length, question_prompt=prompts[0], passage_prompt=prompts[1], dim=dim
    )


def write_settings(folder: Path, settings: EncoderSettings, dimension: int) -> None:
    """Write the files that `read_settings` and sentence-transformers read into a model's folder."""
    if settings.pooling == "pooler":  # DPR's encoders have no such files
        return
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    if settings.normalize:
        modules.append(("Normalize", "2_Normalize"))
    files: dict[str, object] = {
        "modules.json": [
            {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{module}"}
            for idx, (module, path) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": dimension,
            "pooling_mode_cls_token": settings.pooling == "cls",
            "pooling_mode_mean_tokens": settings.pooling == "mean",
        },
        "sentence_bert_config.json": {"max_seq_length": settings.max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": settings.question_prompt, "document": settings.passage_prompt},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if settings.normalize else "dot",
            "truncate_dim": settings.dim,
        },
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def read_prompts(name_or_path: str, config: dict[str, Any]) -> tuple[str, str]:
    """The prompts of questions and passages in the content of ``config_sentence_transformers.json``."""
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    roles = ("query",), ("document", "passage", "corpus")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ModelNotFoundError(
            f"config_sentence_transformers.json of '{name_or_path}' is damaged: its prompts are not named "
            "texts. Download the model again."
        )
    # A prompt that is named after one role is never the other's, even if it is the default.
    shared = None if default in (*roles[0], *roles[1]) else prompts.get(default)
    question, passage = (
        next((prompts[name] for name in names if name in prompts), shared) or "" for names in roles
    )
    return question, passage


def _parse_pooling(name_or_path: str, config: dict[str, Any]) -> Pooling:
    """Parse either spelling: ``pooling_mode: "mean"``, or the older ``pooling_mode_mean_tokens: true``."""
    mode = config.get("pooling_mode")
    if mode is None:
        flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        mode = "+".join(flag.removeprefix("pooling_mode_").removesuffix("_tokens") for flag in flags)
        mode = {"cls_token": "cls"}.get(mode, mode or "mean")
    if mode == "mean":
        return "mean"
    if mode == "cls":
        return "cls"
    raise ConfigurationError(
        f"The encoder '{name_or_path}' has the pooling '{mode}', which ragweave does not support: "
        "choose an encoder with one of: mean, cls."
    )


def _check_splade(name_or_path: str, config: dict[str, Any]) -> None:
    pooling, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    if (pooling, activation) != ("max", "relu"):
        raise ConfigurationError(
            f"The sparse encoder '{name_or_path}' has the pooling '{pooling}' with the activation '{activation}', "
            "which ragweave does not support: choose one with 'max' and 'relu'."
        )


def read_json(name_or_path: str, file_name: str) -> Any:
    """Parse one small file of a model; ``None`` if the model has no such file."""
    path = _locate(name_or_path, file_name)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotFoundError(
            f"The file {path} of the encoder '{name_or_path}' is not valid JSON: download the model again."
        ) from error


def _locate(name_or_path: str, file_name: str) -> Path | None:
    """Find a file in a folder, or fetch it from the hub through transformers' cache."""
    if Path(name_or_path).is_dir():
        path = Path(name_or_path, file_name)
        return path if path.is_file() else None
    try:
        cached = cached_file(name_or_path, file_name)
    except OSError as error:
        # "The hub has no such file" means defaults. "The hub is out of reach" must not: the tokens would not be
        # pooled as in training.
        cause = error.__cause__
        if isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError):
            return None
        if cause is None and "does not appear to have" in str(error):
            return None
        raise ModelNotFoundError(
            f"The file {file_name} of the encoder '{name_or_path}' could not be fetched: check the name and "
            "the connection, or pass pooling, normalize, max_length, question_prompt and passage_prompt."
        ) from error
    return None if cached is None else Path(cached)

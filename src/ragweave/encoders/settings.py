"""What the files beside an encoder's weights say about how its vectors are made.

Sentence-transformers models keep this in ``modules.json`` and the folders it names; without those files an
encoder is a plain transformers model, and nothing is known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragweave.errors import ConfigurationError, ModelNotFoundError

if TYPE_CHECKING:
    from ragweave.types import Pooling

_POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "cls"}
_HARMLESS = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """How token states become vectors; ``None`` where the files say nothing.

    Attributes:
        pooling: How the states of a text's tokens become one vector.
        normalize: Whether vectors are scaled to length 1.
        max_length: The most tokens of a text that are read, special ones included.
    """

    pooling: Pooling | None = None
    normalize: bool | None = None
    max_length: int | None = None


def read_settings(name_or_path: str) -> EncoderSettings:
    """Read the sentence-transformers files of a model folder or a hub name.

    Args:
        name_or_path: A folder, or a model's name on the hub.

    Returns:
        What the files say; all ``None`` for a model that has none.

    Raises:
        ConfigurationError: The model needs a step that ragweave does not have, such as a dense layer.
        ModelNotFoundError: The hub could not be asked, and its cache does not know.
    """
    modules = _read_json(name_or_path, "modules.json")
    if modules is None:
        return EncoderSettings()
    kinds = {str(module["type"]).rsplit(".", 1)[-1]: str(module["path"]) for module in modules}
    unknown = sorted(set(kinds) - _HARMLESS)
    if unknown:
        raise ConfigurationError(
            f"The encoder '{name_or_path}' has steps that ragweave does not know ({', '.join(unknown)}): "
            "choose an encoder made of a transformer, a pooling and, perhaps, a normalisation."
        )
    settings = EncoderSettings(normalize="Normalize" in kinds)
    if "Pooling" in kinds:
        pooling_config = _read_json(name_or_path, f"{kinds['Pooling']}/config.json") or {}
        settings = replace(settings, pooling=_pooling_of(name_or_path, pooling_config))
    transformer_config = _read_json(name_or_path, "sentence_bert_config.json") or {}
    return replace(settings, max_length=transformer_config.get("max_seq_length"))


def write_settings(folder: Path, settings: EncoderSettings, dimension: int) -> None:
    """Write what `read_settings` reads, as sentence-transformers does.

    An encoder that makes its own vector (pooling "pooler", as DPR's do) needs nothing of it, and has no such files.

    Args:
        folder: The model's folder.
        settings: How its token states become vectors.
        dimension: D, the size of a vector.
    """
    if settings.pooling == "pooler":
        return
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    if settings.normalize:
        modules.append(("Normalize", "2_Normalize"))
    files: dict[str, object] = {
        "modules.json": [
            {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for place, (kind, path) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": dimension,
            "pooling_mode_cls_token": settings.pooling == "cls",
            "pooling_mode_mean_tokens": settings.pooling == "mean",
        },
        "sentence_bert_config.json": {"max_seq_length": settings.max_length, "do_lower_case": False},
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _pooling_of(name_or_path: str, config: dict[str, Any]) -> Pooling:
    """Read either spelling: ``pooling_mode: "mean"``, or the older ``pooling_mode_mean_tokens: true``."""
    mode = config.get("pooling_mode")
    if mode is None:
        flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        mode = "+".join(flag.removeprefix("pooling_mode_").removesuffix("_tokens") for flag in flags)
        mode = {"cls_token": "cls"}.get(mode, mode or "mean")
    if mode not in _POOLINGS:
        raise ConfigurationError(
            f"The encoder '{name_or_path}' pools its tokens by '{mode}', which ragweave does not do: "
            f"choose an encoder that pools by one of {', '.join(_POOLINGS)}."
        )
    return _POOLINGS[mode]


def _read_json(name_or_path: str, file_name: str) -> Any:
    """Parse one small file of a model; ``None`` where the model has no such file."""
    path = _locate(name_or_path, file_name)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotFoundError(
            f"The file {path} of the encoder '{name_or_path}' is not valid JSON: fetch the model again."
        ) from error


def _locate(name_or_path: str, file_name: str) -> Path | None:
    """Find a file in a folder, or fetch it from the hub through transformers' cache."""
    if Path(name_or_path).is_dir():
        path = Path(name_or_path, file_name)
        return path if path.is_file() else None
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from transformers.utils import cached_file

    try:
        found = cached_file(name_or_path, file_name)
    except OSError as error:
        # "the hub says there is no such file" is an answer; "the hub could not be asked" is not one, and
        # taking it for one would pool the tokens in another way than the model was trained for.
        cause = error.__cause__
        if isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError):
            return None
        if cause is None and "does not appear to have" in str(error):
            return None
        raise ModelNotFoundError(
            f"The file {file_name} of the encoder '{name_or_path}' could not be fetched: check the name and "
            "the connection, or give pooling, normalize and max_length yourself."
        ) from error
    return None if found is None else Path(found)

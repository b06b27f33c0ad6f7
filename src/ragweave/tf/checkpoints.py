"""Weights between networks and safetensors files: one loader and one saver for all networks, without torch.

The path of an attribute in a network is the name of its weight in files, unless its layer has another name for it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers.utils import cached_file

from ragweave.errors import ModelNotFoundError

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH_FILE = "pytorch_model.bin"
# Names in old checkpoints, and their current names.
RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# Tensors of checkpoints that answering does not need: buffers, the document encoder of a folder saved in training,
# a table that T5 never used, and the heads of BERT's pretraining.
IGNORED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|version)$|^(rag\.)?ctx_encoder\.|^cls\.|pooler\.dense"
    r"|EncDecAttention\.relative_attention_bias"
)

Rename = Callable[[str], str]
"""From a name in a network to the name in a checkpoint."""


def named_variables(layer: keras.layers.Layer, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The weights of a layer and of all layers in it, by their names in checkpoints, which begin with the prefix."""
    attributes = vars(layer)
    renamed = attributes.get("_file_names", {})
    # On the torch backend a layer is a torch module, which stores its parts apart from its other attributes.
    for name, value in {**attributes, **attributes.get("_modules", {})}.items():
        if not name.startswith("_"):
            yield from _named(value, f"{prefix}{renamed.get(name, name)}")


def _named(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, keras.Variable):
        yield name, value
    elif isinstance(value, keras.layers.Layer):
        yield from named_variables(value, f"{name}.")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _named(item, f"{name}.{number}")


class Checkpoint:
    """The tensors of one file or of several shards, read one at a time, and of those in memory already."""

    def __init__(self, files: Iterable[Path], tensors: Mapping[str, np.ndarray] | None = None) -> None:
        self._stack = ExitStack()
        self._readers: dict[str, Callable[[], np.ndarray]] = {}
        for path in files:
            file = self._stack.enter_context(safe_open(path, framework="numpy"))
            for name in file.keys():  # noqa: SIM118  # not a mapping
                self._add(name, partial(file.get_tensor, name))
        for name, tensor in (tensors or {}).items():
            self._add(name, partial(np.asarray, tensor))

    def _add(self, name: str, read: Callable[[], np.ndarray]) -> None:
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        self._readers[name] = read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def __getitem__(self, name: str) -> np.ndarray:
        return self._readers[name]()

    @property
    def names(self) -> set[str]:
        """The names of all tensors."""
        return set(self._readers)


def renaming(network: keras.layers.Layer, checkpoint: Checkpoint, base: str) -> Rename:
    """How a checkpoint writes a network's names: unchanged, or with or without the name of a part before them."""
    names = [name for name, _ in named_variables(network)]
    candidates: tuple[Rename, ...] = (
        lambda name: name,
        lambda name: f"{base}.{name}",
        lambda name: name.removeprefix(f"{base}."),
    )
    return max(candidates, key=lambda rename: sum(rename(name) in checkpoint for name in names))


def load(network: Any, checkpoint: Checkpoint, rename: Rename, source: str) -> set[str]:
    """Set a network's weights to a checkpoint's.

    The network's ``tied`` and ``optional`` name the weights that may be missing. ``rename`` is from a name in the
    network to one in the checkpoint, which messages call ``source``. Returns the names of the checkpoint that were
    used. Raises `ModelNotFoundError` if weights are missing or have another shape.
    """
    # A checkpoint may hold a table under several names: they are one weight, unless their values differ.
    duplicates = {name for name in network.tied if rename(name) in checkpoint}
    for name in duplicates:
        main = rename(network.tied[name])
        if main in checkpoint and not np.array_equal(checkpoint[rename(name)], checkpoint[main]):
            network.untie(name)
    used, missing = {rename(name) for name in duplicates}, []
    for name, variable in named_variables(network):
        names = [rename(name), *map(rename, _aliases(network, name))]
        stored = next((alias for alias in names if alias in checkpoint), None)
        if stored is not None:
            _assign(variable, checkpoint[stored], stored, source)
            used.add(stored)
        elif not name.startswith(network.optional):
            missing.append(names[0])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelNotFoundError(
            f"'{source}' has no {', '.join(missing[:3])}{more}: it is not a checkpoint of {type(network).__name__}."
        )
    return used


def report_unused(checkpoint: Checkpoint, used: Collection[str], source: str) -> None:
    """Log the tensors of a checkpoint that no network used, except those that none needs."""
    unused = [name for name in sorted(checkpoint.names - set(used)) if not IGNORED.search(name)]
    if unused:
        logging.getLogger(__name__).warning("Unused weights in '%s': %s", source, ", ".join(unused))


def _aliases(network: Any, name: str) -> Iterator[str]:
    """Other names that a checkpoint may have for the weight of this name."""
    main = network.tied.get(name, name)
    if main in network.tied.values():
        yield main
        yield from (other for other, target in network.tied.items() if target == main)


def _assign(variable: Any, tensor: np.ndarray, stored: str, source: str) -> None:
    if tuple(tensor.shape) != tuple(variable.shape):
        raise ModelNotFoundError(
            f"'{stored}' of '{source}' has shape {tuple(tensor.shape)}; its configuration asks for "
            f"{tuple(variable.shape)}."
        )
    if tensor.dtype.name == "bfloat16":  # a type that not every backend accepts from numpy
        tensor = tensor.astype(np.float32)
    variable.assign(keras.ops.convert_to_tensor(tensor, dtype=variable.dtype))


def open_checkpoint(name_or_path: str | PathLike[str], **options: Any) -> Checkpoint:
    """Open the weights of a folder or of a model on the hub, with options of the hub such as ``revision``.

    Raises `ModelNotFoundError` if there are no weights, or only a torch file and no torch to read it.
    """

    def find(file: str) -> Path | None:
        path = cached_file(
            name_or_path, file, _raise_exceptions_for_missing_entries=False, **{"subfolder": "", **options}
        )
        return None if path is None else Path(path)

    try:
        whole, index = find(FILE), find(INDEX)
        if whole is not None:
            return Checkpoint([whole])
        if index is not None:
            shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            files = [find(shard) for shard in shards]
            if None in files:
                raise ModelNotFoundError(
                    f"'{name_or_path}' lacks {shards[files.index(None)]}, which its {INDEX} names."
                )
            return Checkpoint([file for file in files if file is not None])
        torch_file = find(TORCH_FILE)
    except OSError as error:
        raise ModelNotFoundError(f"No model could be found under '{name_or_path}': {error}") from error
    if torch_file is None:
        raise ModelNotFoundError(f"'{name_or_path}' has neither {FILE} nor {INDEX}.")
    return Checkpoint([], _read_torch_file(torch_file))


def _read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file that torch wrote; no code in it is executed."""
    try:
        import torch
    except ImportError as error:
        raise ModelNotFoundError(
            f"{path} can only be read by torch: install torch, or save the model as safetensors elsewhere."
        ) from error
    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # numpy has no bfloat16.
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in tensors.items()
    }


def save(tensors: dict[str, np.ndarray], folder: Path, *, max_shard_size: int | str = "5GB") -> None:
    """Write weights as transformers does: one file, or shards of at most a size such as "5GB", and their index."""
    plan = split_state_dict_into_shards_factory(
        tensors,
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    for file, names in plan.filename_to_tensors.items():
        # transformers refuses files without this mark of torch's layout.
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")

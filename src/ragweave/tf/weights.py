"""Weights between networks and safetensors files: one loader and one saver for all networks, without torch.

Attribute paths are the names of weights, so a network says itself what is in its file. Files may be cut into shards.
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
from typing import Any

import keras
import numpy as np

from ragweave.errors import ModelNotFoundError

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH_FILE = "pytorch_model.bin"
# Names in old checkpoints, and what they are called now.
RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# What checkpoints hold beside weights that count: buffers, the document encoder of a folder saved in training, a
# table of T5's that it never used, and the heads of BERT's own training.
IGNORED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|version)$|^(rag\.)?ctx_encoder\.|^cls\.|pooler\.dense"
    r"|EncDecAttention\.relative_attention_bias"
)

Rename = Callable[[str], str]


def named_variables(layer: keras.layers.Layer, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The weights of a layer and of all layers in it, by the names that they have in checkpoints.

    Args:
        layer: A network or a part of one.
        prefix: What stands before every name.
    """
    attributes = vars(layer)
    # On the torch backend a layer is a torch module, which keeps its parts apart from its other attributes.
    for name, value in {**attributes, **attributes.get("_modules", {})}.items():
        if not name.startswith("_"):
            yield from _named(value, f"{prefix}{name.removesuffix('_')}")


def _named(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, keras.Variable):
        yield name, value
    elif isinstance(value, keras.layers.Layer):
        yield from named_variables(value, f"{name}.")
    elif isinstance(value, (list, tuple)):
        for number, own in enumerate(value):
            yield from _named(own, f"{name}.{number}")


class Checkpoint:
    """The tensors of one file or of several shards, read one at a time.

    Args:
        files: Paths of safetensors files.
        others: Tensors that are read already.
    """

    def __init__(self, files: Iterable[Path], others: Mapping[str, np.ndarray] | None = None) -> None:
        from safetensors import safe_open

        self._stack = ExitStack()
        self._readers: dict[str, Callable[[], np.ndarray]] = {}
        for path in files:
            file = self._stack.enter_context(safe_open(path, framework="numpy"))
            for name in file.keys():  # noqa: SIM118  # not a mapping
                self._add(name, partial(file.get_tensor, name))
        for name, tensor in (others or {}).items():
            self._add(name, partial(np.asarray, tensor))

    def _add(self, name: str, read: Callable[[], np.ndarray]) -> None:
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        self._readers[name] = read

    def __enter__(self) -> Checkpoint:
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


def renaming(names: Iterable[str], checkpoint: Checkpoint, base: str) -> Rename:
    """How a network's names are written in a checkpoint: the same, or with or without the name of a part before them.

    Args:
        names: The network's names.
        checkpoint: The tensors.
        base: transformers' ``base_model_prefix``.

    Returns:
        From a name in the network to one in the checkpoint.
    """
    names = list(names)
    candidates: tuple[Rename, ...] = (
        lambda name: name,
        lambda name: f"{base}.{name}",
        lambda name: name.removeprefix(f"{base}."),
    )
    return max(candidates, key=lambda rename: sum(rename(name) in checkpoint for name in names))


def load(network: Any, checkpoint: Checkpoint, rename: Rename, source: str) -> set[str]:
    """Give a network the weights of a checkpoint.

    Args:
        network: The network; its ``tied`` and ``optional`` say what may be missing.
        checkpoint: The tensors.
        rename: From a name in the network to one in the checkpoint.
        source: What to call the checkpoint in a message.

    Returns:
        Names of the checkpoint that were used.

    Raises:
        ModelNotFoundError: Weights are missing or have another shape.
    """
    there = {name for name in network.tied if rename(name) in checkpoint}
    for name in there:
        main = rename(network.tied[name])
        if main in checkpoint and not np.array_equal(checkpoint[rename(name)], checkpoint[main]):
            network.untie(name)
    used, missing = {rename(name) for name in there}, []
    for name, variable in named_variables(network):
        stored = rename(name)
        if stored not in checkpoint:
            stored = next((other for other in _same_as(network, name, rename) if other in checkpoint), stored)
        if stored in checkpoint:
            _assign(variable, checkpoint[stored], stored, source)
            used.add(stored)
        elif not name.startswith(network.optional):
            missing.append(stored)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelNotFoundError(
            f"'{source}' has no {', '.join(missing[:3])}{more}: it is no checkpoint of {type(network).__name__}."
        )
    return used


def report_unused(checkpoint: Checkpoint, used: Collection[str], source: str) -> None:
    """Log the tensors of a checkpoint that no network has asked for, but for those that never count."""
    unused = [name for name in sorted(checkpoint.names - set(used)) if not IGNORED.search(name)]
    if unused:
        logging.getLogger(__name__).warning("Not used of '%s': %s", source, ", ".join(unused))


def _same_as(network: Any, name: str, rename: Rename) -> Iterator[str]:
    """Names under which a checkpoint may hold what is one table with the weight of this name."""
    main = network.tied.get(name, name)
    if main in network.tied.values():
        yield rename(main)
        yield from (rename(other) for other, own in network.tied.items() if own == main)


def _assign(variable: Any, tensor: np.ndarray, stored: str, source: str) -> None:
    if tuple(tensor.shape) != tuple(variable.shape):
        raise ModelNotFoundError(
            f"'{stored}' of '{source}' has shape {tuple(tensor.shape)}; its configuration asks for "
            f"{tuple(variable.shape)}."
        )
    if tensor.dtype.name == "bfloat16":  # a type that not every backend takes from numpy
        tensor = tensor.astype(np.float32)
    variable.assign(keras.ops.convert_to_tensor(tensor, dtype=variable.dtype))


def open_checkpoint(name_or_path: str | PathLike[str], **options: Any) -> Checkpoint:
    """Open the weights of a folder or of a model on the hub.

    Args:
        name_or_path: Folder or name.
        **options: Options of the hub: ``revision``, ``token``, ``cache_dir``, ``subfolder``, ...

    Raises:
        ModelNotFoundError: There are none, or only torch's own file and no torch to read it.
    """
    from transformers.utils import cached_file

    def find(file: str) -> Path | None:
        found = cached_file(
            name_or_path, file, _raise_exceptions_for_missing_entries=False, **{"subfolder": "", **options}
        )
        return None if found is None else Path(found)

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
        in_torch = find(TORCH_FILE)
    except OSError as error:
        raise ModelNotFoundError(f"No model could be found under '{name_or_path}': {error}") from error
    if in_torch is None:
        raise ModelNotFoundError(f"'{name_or_path}' has neither {FILE} nor {INDEX}.")
    return Checkpoint([], _read_torch_file(in_torch))


def _read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file that torch wrote; no code in it is executed."""
    try:
        import torch
    except ImportError as error:
        raise ModelNotFoundError(
            f"{path} can only be read by torch: install torch, or save the model as safetensors where torch is."
        ) from error
    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return {name: _to_numpy(tensor) for name, tensor in tensors.items()}


def _to_numpy(tensor: Any) -> np.ndarray:
    if str(tensor.dtype) == "torch.bfloat16":  # numpy has no such type of its own
        tensor = tensor.float()
    return tensor.numpy()


def save(tensors: dict[str, np.ndarray], folder: Path, *, max_shard_size: int | str = "5GB") -> None:
    """Write weights as transformers does: one file, or shards and their index.

    Args:
        tensors: Weights by name.
        folder: Where to.
        max_shard_size: Largest file, in bytes or as a text such as "5GB".
    """
    from huggingface_hub import split_state_dict_into_shards_factory
    from safetensors.numpy import save_file

    plan = split_state_dict_into_shards_factory(
        tensors,
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    for file, names in plan.filename_to_tensors.items():
        # The mark is torch's: transformers refuses files without it.
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")

"""Keys and values of passages on disk: one immutable file for each passage, mapped into memory when it is needed.

Notation used for tensor shapes: L layers, h heads of keys, P tokens of a passage, d size of a head.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedModel

from ragweave.encoders.text_encoder import hash_weights
from ragweave.errors import StoredStatesWarning

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
"""The types that keys and values can be stored in."""


class PassageStore:
    """Keys and values of passages that `ragweave warm` has written for one generator.

    Args:
        root: The folder of all generators' files. Each has a folder of its own, named after a hash of the generator.
        generator: The generator, in the type that it computes in.
    """

    def __init__(self, root: Path, generator: PreTrainedModel) -> None:
        self._root, self._generator = root, generator
        self._mapped: dict[bytes, Tensor] = {}
        self._fingerprint: Future[str] | None = None
        if root.is_dir():
            self._start_hashing()

    @staticmethod
    def supports(generator: PreTrainedModel) -> bool:
        """Whether keys and values of a generator can be stored: int8 layers round a passage by what is beside it."""
        return all(isinstance(weight, Tensor) for weight in generator.base_model.state_dict().values())

    @property
    def folder(self) -> Path:
        """Where this generator's files are."""
        return self._root / (self._fingerprint or self._start_hashing()).result()

    def _start_hashing(self) -> Future[str]:
        """Hash the generator beside other work; it is over when the first question has been searched."""
        pool, generator = ThreadPoolExecutor(1), self._generator
        self._fingerprint = pool.submit(
            _fingerprint, generator.config.to_dict(), generator.base_model.state_dict()
        )
        pool.shutdown(wait=False)
        return self._fingerprint

    def path(self, key: bytes) -> Path:
        """The file of a passage, given by its tokens as int32."""
        return self.folder / f"{hashlib.sha256(key).hexdigest()[:32]}.safetensors"

    def shape(self, tokens: int) -> tuple[int, ...]:
        """The shape of the keys and values of so many tokens, (L, 2, h, P, d)."""
        config = self._generator.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return config.num_hidden_layers, 2, heads, tokens, size

    def get(self, key: bytes) -> Tensor | None:
        """The keys and values of a passage, (L, 2, h, P, d), if they are stored; checked at the first use."""
        if key not in self._mapped:
            if not self._root.is_dir() or not (path := self.path(key)).is_file():
                return None
            try:
                self._mapped[key] = _read(path, self.shape(len(key) // 4))
            except (OSError, ValueError, SafetensorError) as error:
                warnings.warn(
                    f"{path} is damaged ({error}): its passage is read again. Run 'ragweave warm' to replace it.",
                    StoredStatesWarning,
                    stacklevel=2,
                )
                return None
        return self._mapped[key]


def _fingerprint(config: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """A hash of all that keys and values depend on beside the tokens: architecture, weights and their type."""
    volatile = ("architectures", "transformers_version", "dtype", "torch_dtype")
    kept = {name: config[name] for name in config if name not in volatile and not name.startswith("_")}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    hash_weights(digest, weights)
    return digest.hexdigest()[:32]


def serialize(states: Tensor, passage: int) -> bytes:
    """The content of a file: keys and values with their checksum, and the hash of the passage's title and text."""
    states = states.contiguous().cpu()
    return save({"states": states}, {"sha256": _checksum(states), "passage": f"{passage:016x}"})


def _read(path: Path, shape: tuple[int, ...]) -> Tensor:
    with safe_open(path, framework="pt") as file:  # maps the file
        metadata, states = file.metadata() or {}, file.get_tensor("states")
    if states.dtype not in DTYPES.values() or tuple(states.shape) != shape:
        raise ValueError(f"it holds {states.dtype} of shape {tuple(states.shape)}, expected {shape}")
    if metadata.get("sha256") != _checksum(states):
        raise ValueError("its checksum differs")
    return states


def _checksum(states: Tensor) -> str:
    return hashlib.sha256(states.reshape(-1).view(torch.uint8).numpy().data).hexdigest()

"""Keys and values of passages, computed once for all their contexts: a causal generator reads the passage first.

In a context ``passage question``, a causal generator's keys and values of the passage do not depend on the question.
They can therefore be kept: for a later question, the model reads only the question, with the same results. Positions
count from the beginning of the passage, so they are the same in every context. They are kept in memory, and on disk
in an immutable file for each passage, mapped into memory when it is needed.

Notation used for tensor shapes
    N contexts, L layers, h heads of keys, P tokens of a passage, Q tokens of a question without its last one,
    S tokens of the longest context, d size of a head.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache, PreTrainedModel

from ragweave.encoders.text_encoder import hash_weights
from ragweave.errors import ConfigurationError, StoredStatesWarning
from ragweave.modeling.attention import ROOM
from ragweave.modeling.contexts import EncodedContexts, length_groups

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
"""The types that keys and values can be stored in."""

_SIZE = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?) *((?P<prefix>[kKmMgGtT]?)(?P<binary>i?)[bB])?")
_FREE_MEMORY = {
    "/proc/meminfo": re.compile(r"MemAvailable: *(\d+) kB"),
    "/sys/fs/cgroup/memory.max": re.compile(r"^(\d+)$"),
}

Fill = Callable[[Cache, Tensor, Tensor], Cache]
"""Runs a model over tokens, (N, T), under a mask of all columns, (N, S), which adds keys and values to a cache."""

Read = Callable[[Cache, Tensor, Tensor], Tensor]
"""Does the same, and returns the logits after the last token, (N, 1, V)."""


@dataclass(frozen=True)
class PassageReuse:
    """How contexts share the keys and values of their passages.

    Attributes:
        lengths: How many tokens of each context are its passage, N numbers; 0 where that is unknown.
        cache: Keeps keys and values for later contexts; ``None`` shares them within one call.
    """

    lengths: list[int]
    cache: PassageCache | None = None


class PassageCache:
    """Keys and values of passages within a budget of bytes.

    A cache belongs to one generator in one dtype, and is emptied when training changes the weights. When it is full,
    the passage with the lowest priority is evicted. Its priority is the number of its uses plus the priority of the
    last evicted passage, so popular passages stay and past popularity fades (GreedyDual-Size with frequency,
    Cherkasova 1998; cost and size are proportional to a passage's tokens and cancel out). Use it from one
    thread.

    Two tiers may lie below it. A passage that an accelerator's cache evicts moves to the host's memory, and back
    when it is used. A passage on disk is used memory-mapped, or copied if the generator needs it elsewhere.

    Args:
        budget: Maximum bytes of keys and values.
        host: The tier in the host's memory, for a generator on an accelerator.
        store: The tier on disk.

    Attributes:
        budget: Maximum bytes.
        bytes: The bytes in use.
        hits: Passages that were found, in this tier or below.
        misses: Passages that were not.
        host: The tier in the host's memory.
        store: The tier on disk.

    Raises:
        ConfigurationError: The budget is negative.
    """

    def __init__(
        self, budget: int, *, host: PassageCache | None = None, store: PassageStore | None = None
    ) -> None:
        if budget < 0:
            raise ConfigurationError(f"The budget of a passage cache is {budget} bytes: give 0 or more.")
        self.budget, self.host, self.store = budget, host, store
        self.bytes = self.hits = self.misses = 0
        self._states: dict[bytes, Tensor] = {}
        self._uses: dict[bytes, int] = {}
        self._priorities: dict[bytes, int] = {}  # in the order of their last uses
        self._floor = 0
        self._first_weights: list[float] = []
        self._weight = torch.empty(0)  # has the type and the device of the generator

    def __len__(self) -> int:
        return len(self._states)

    @property
    def hit_rate(self) -> float:
        """The share of the passages that were found; 0 before the first."""
        return self.hits / max(self.hits + self.misses, 1)

    def get(self, key: bytes) -> Tensor | None:
        """The keys and values of a passage, (L, 2, h, P, d), if they are here; this counts as a use."""
        states = self._states.get(key)
        if states is not None:
            self._use(key)
        else:
            states = self._from_below(key)
        if states is None:
            self.misses += 1
        else:
            self.hits += 1
        return states

    def _from_below(self, key: bytes) -> Tensor | None:
        """The keys and values of a passage from the next tier that has them."""
        for tier in (self.host, self.store):
            states = None if tier is None else tier.get(key)
            if states is not None:
                moved = states.to(self._weight, non_blocking=True)
                if tier is self.host or moved is not states:
                    self.put(key, moved)
                return moved
        return None

    def put(self, key: bytes, states: Tensor) -> None:
        """Keep the keys and values of a passage, (L, 2, h, P, d), unless they alone exceed the budget."""
        size = states.numel() * states.element_size()
        if key in self._states or size > self.budget:
            return
        while self.bytes + size > self.budget:
            self._evict()
        self._states[key] = states
        self.bytes += size
        self._use(key)

    def keep_for(self, weights: Iterable[Tensor]) -> None:
        """Forget all passages if these weights are not those of the last call, or training has changed them."""
        weights = [weight.detach() for weight in weights]
        self._weight = weights[0].new_empty(0)
        # A step of training changes at least one first element; torch's counter of changes misses fused optimizers.
        firsts = torch.stack([weight[(0,) * weight.dim()].float() for weight in weights]).tolist()
        if firsts != self._first_weights:
            self.clear()
            if self._first_weights:
                self.store = None  # it belongs to the old weights
            self._first_weights = firsts

    def clear(self) -> None:
        """Forget all passages in memory."""
        self.bytes, self._floor = 0, 0
        for container in (self._states, self._uses, self._priorities):
            container.clear()
        if self.host is not None:
            self.host.clear()

    def _use(self, key: bytes) -> None:
        self._uses[key] = self._uses.get(key, 0) + 1
        self._priorities.pop(key, None)
        self._priorities[key] = self._floor + self._uses[key]

    def _evict(self) -> None:
        # Of equal priorities, the first is the one used longest ago. A cache holds hundreds of passages, not more.
        key = min(self._priorities, key=self._priorities.__getitem__)
        self._floor = self._priorities.pop(key)
        states = self._states.pop(key)
        self.bytes -= states.numel() * states.element_size()
        del self._uses[key]
        if self.host is not None:
            # Pinned memory is copied to and from an accelerator faster, and in parallel to its work.
            copy = torch.empty(states.shape, dtype=states.dtype, pin_memory=states.is_cuda)
            self.host.put(key, copy.copy_(states))


class PassageStore:
    """Keys and values of passages that `ragweave warm` has written for one generator.

    Args:
        root: The folder of all generators' files. Each has its own folder, named after a hash of the generator.
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
        """Whether keys and values of a generator can be stored: in int8, they depend on the passage's batch."""
        return all(isinstance(weight, Tensor) for weight in generator.base_model.state_dict().values())

    @property
    def folder(self) -> Path:
        """Where this generator's files are."""
        return self._root / (self._fingerprint or self._start_hashing()).result()

    def _start_hashing(self) -> Future[str]:
        """Hash the generator in the background, usually done when the first question has been searched."""
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
        """The shape of the keys and values of P ``tokens``, (L, 2, h, P, d)."""
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
                self._mapped[key] = _read_states(path, self.shape(len(key) // 4))
            except (OSError, ValueError, SafetensorError) as error:
                warnings.warn(
                    f"{path} is damaged ({error}): its passage is read again. Run 'ragweave warm' to replace it.",
                    StoredStatesWarning,
                    stacklevel=2,
                )
                return None
        return self._mapped[key]


def _fingerprint(config: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """A hash of all that keys and values depend on besides the tokens: architecture, weights and their type."""
    volatile = ("architectures", "transformers_version", "dtype", "torch_dtype")
    kept = {name: config[name] for name in config if name not in volatile and not name.startswith("_")}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    hash_weights(digest, weights)
    return digest.hexdigest()[:32]


def serialize(states: Tensor, passage: int) -> bytes:
    """The content of a file: keys and values with their checksum, and the hash of the passage's title and text."""
    states = states.contiguous().cpu()
    return save({"states": states}, {"sha256": _checksum(states), "passage": f"{passage:016x}"})


def _read_states(path: Path, shape: tuple[int, ...]) -> Tensor:
    with safe_open(path, framework="pt") as file:  # maps the file
        metadata, states = file.metadata() or {}, file.get_tensor("states")
    if states.dtype not in DTYPES.values() or tuple(states.shape) != shape:
        raise ValueError(f"it holds {states.dtype} of shape {tuple(states.shape)}, expected {shape}")
    if metadata.get("sha256") != _checksum(states):
        raise ValueError("its checksum differs")
    return states


def _checksum(states: Tensor) -> str:
    return hashlib.sha256(states.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def passage_key(tokens: Tensor) -> bytes:
    """The key of a passage: its tokens."""
    return tokens.to("cpu", torch.int32).numpy().tobytes()


def parse_size(size: int | str) -> int:
    """Bytes of a size such as ``"512MiB"``, ``"1 GB"`` or ``4096``.

    Raises:
        ConfigurationError: It is not a size.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None:
        raise ConfigurationError(
            f"{size!r} is not a size: write bytes, or a number with a unit, such as 512MiB or 2GB."
        )
    exponent = " KMGT".index((match["prefix"] or " ").upper())
    return int(float(match["number"]) * (1024 if match["binary"] else 1000) ** exponent)


def default_budget(device: torch.device | None = None) -> int:
    """An eighth of the memory that is free on an accelerator or, by default, on the host; at most 1 GiB."""
    if device is not None and device.type == "cuda":
        return min(2**33, torch.cuda.mem_get_info(device)[0]) // 8
    free = [2**33]
    for path, pattern in _FREE_MEMORY.items():
        with suppress(OSError):
            if match := pattern.search(Path(path).read_text(encoding="ascii")):
                free.append(int(match[1]) * (1024 if path == "/proc/meminfo" else 1))
    return min(free) // 8


def read_apart(
    fill: Fill,
    read: Read,
    new_cache: Callable[[], DynamicCache],
    input_ids: Tensor,
    mask: Tensor,
    passages: PassageReuse,
) -> EncodedContexts:
    """Read each distinct passage once, unless it is cached, and then the questions after their passages.

    Args:
        fill: Runs the generator without its head.
        read: Runs the generator.
        new_cache: Makes an empty cache.
        input_ids: N contexts, (N, S), padded on any side.
        mask: Their mask, (N, S).
        passages: Where the passages end.

    Returns:
        The contexts. Between a passage and its question there may be padding, which the mask hides.
    """
    rows = [ids[seen != 0] for ids, seen in zip(input_ids, mask, strict=True)]
    parts = [row.tensor_split([length]) for row, length in zip(rows, passages.lengths, strict=True)]
    passage_ids, passage_mask = _left_padded([passage for passage, _ in parts])
    question_ids, question_mask = _left_padded([question for _, question in parts])
    whole_mask = torch.cat([passage_mask, question_mask], dim=1)
    cache = new_cache()
    if passage_ids.shape[1]:
        states = passage_states(fill, new_cache, [passage for passage, _ in parts], passages.cache)
        _load(cache, states, passage_ids.shape[1])
    return EncodedContexts(
        attention_mask=whole_mask,
        input_ids=torch.cat([passage_ids, question_ids], dim=1),
        prompt_cache=cache,
        first_logits=read(cache, question_ids, whole_mask),
    )


def passage_states(
    fill: Fill,
    new_cache: Callable[[], DynamicCache],
    passages: Sequence[Tensor],
    kept: PassageCache | None = None,
) -> list[Tensor | None]:
    """Keys and values of N passages, (L, 2, h, P, d) each, computed once for equal ones; ``None`` for no tokens."""
    keys = [passage_key(passage) for passage in passages]
    distinct = {key: passage for key, passage in zip(keys, passages, strict=True) if key}
    states = {key: None if kept is None else kept.get(key) for key in distinct}
    missing = [key for key, known in states.items() if known is None]
    lengths = torch.tensor([len(distinct[key]) for key in missing])
    for group in length_groups(lengths) if missing else ():
        group_keys = [missing[number] for number in group.tolist()]
        cache = fill(new_cache(), *_left_padded([distinct[key] for key in group_keys]))
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        for row, key in enumerate(group_keys):
            length = len(distinct[key])
            pairs = [torch.stack([k[row, :, -length:], v[row, :, -length:]]) for k, v in layers]
            states[key] = computed = torch.stack(pairs)
            if kept is not None:
                kept.put(key, computed)
    return [states.get(key) for key in keys]


def _load(cache: DynamicCache, states: Sequence[Tensor | None], columns: int) -> None:
    """Put keys and values of N passages into an empty cache, right-aligned in ``columns`` columns."""
    first = next(passage for passage in states if passage is not None)
    layers, _, heads, _, size = first.shape
    whole = first.new_empty(layers, 2, len(states), heads, columns + ROOM, size)
    for row, passage in enumerate(states):
        padding = columns if passage is None else columns - passage.shape[3]
        whole[:, :, row, :, :padding] = 0
        if passage is not None:
            whole[:, :, row, :, padding:columns] = passage
    for layer, (keys, values) in zip(cache.layers, whole, strict=True):
        layer.occupy(keys, values, columns)


def _left_padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of tokens and their mask, (N, T), aligned on the right."""
    masks = [torch.ones_like(row) for row in rows]
    ids, mask = (pad_sequence(part, batch_first=True, padding_side="left") for part in ([*rows], masks))
    return ids, mask

"""Computes the keys and values of passages before questions arrive, for `PassageStore`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.snapshot import Snapshot
from ragweave.knowledge.storage import needs_folder
from ragweave.knowledge.store import replacing
from ragweave.knowledge.stored_states import drop_others, drop_stale
from ragweave.modeling.generators import CausalGenerator
from ragweave.modeling.passage_cache import DTYPES, PassageStore, passage_key, serialize
from ragweave.pipeline.rag_pipeline import RagPipeline
from ragweave.retrieval.context_template import passage_tokens

# The number of passages that stand in for questions to estimate which passages are found most often.
_PROBES = 1000
_HEADER_BYTES = 512  # maximum size of a file without keys and values
_GROUP_SIZE = 16  # passages that are read before their files are written


@dataclass(frozen=True)
class WarmPlan:
    """The passages that `warm` will store.

    Attributes:
        passages: The hashes and the tokens of the passages that are not stored yet, those found most often first.
        bytes: Maximum size of their files.
        stored: How many of the chosen passages are already stored.
        over_budget: How many are left out because they exceed the budget.
        too_long: How many are left out because a question may cut them, so that no context begins with them.
    """

    passages: list[tuple[int, torch.Tensor]]
    bytes: int
    stored: int
    over_budget: int
    too_long: int


class Warmer:
    """Stores keys and values of passages of a pipeline's knowledge base for its generator.

    Args:
        pipeline: The pipeline.
        dtype: The type to store them in, "bfloat16" or "float32"; by default the generator's, which loses nothing.

    Raises:
        ConfigurationError: The generator cannot reuse passages, or the type is unknown.
        KnowledgeBaseError: The knowledge base is in a database.
    """

    def __init__(self, pipeline: RagPipeline, dtype: str | None = None) -> None:
        generator = pipeline.model.rag.wrapped_generator
        if not isinstance(generator, CausalGenerator) or not (
            generator.reads_apart and PassageStore.supports(generator.generator)
        ):
            raise ConfigurationError(
                f"Keys and values of this generator ('{generator.generator.config.model_type}') cannot be stored: "
                "give a causal one without sliding windows, and not in int8. docs/passage-cache.md says why."
            )
        self._pipeline, self._generator = pipeline, generator
        dtype = str(generator.generator.dtype).removeprefix("torch.") if dtype is None else dtype
        if dtype not in DTYPES:
            raise ConfigurationError(f"dtype is {dtype!r}; choose one of: {', '.join(DTYPES)}.")
        self._dtype = DTYPES[dtype]
        storage = pipeline.knowledge_base.storage
        if not isinstance(storage, Snapshot):
            raise needs_folder(storage.location, "store keys and values of its passages")
        self._snapshot = storage
        self.store = PassageStore(storage.layout.states, generator.generator)

    def plan(self, *, top: int | None = None, budget: int | None = None) -> WarmPlan:
        """Choose passages.

        Args:
            top: Number of passages, those that searches find most often; by default all.
            budget: Maximum bytes of their files, including those already stored.
        """
        hashes, rows = self._by_popularity()
        hashes, rows = hashes[:top], rows[:top]
        retriever = self._pipeline.retriever
        longest = self._pipeline.model.config.max_combined_length
        size_of_token = np.prod(self.store.shape(1)) * self._dtype.itemsize
        missing, used, new, stored, over_budget, too_long = [], 0, 0, 0, 0, 0
        for passage_hash, row in zip(hashes.tolist(), rows.tolist(), strict=True):
            passage = self._snapshot.passage(row)
            (tokens,) = passage_tokens(
                retriever.context_template(), [(passage.title, passage.text)], retriever.generator_tokenizer
            )
            size = len(tokens) * int(size_of_token) + _HEADER_BYTES
            if len(tokens) >= longest:
                too_long += 1
            elif budget is not None and used + size > budget:
                over_budget += 1
            else:
                used += size
                ids = torch.tensor(tokens)
                states = self.store.get(passage_key(ids))
                if states is not None and states.dtype == self._dtype:
                    stored += 1
                else:
                    missing.append((passage_hash, ids))
                    new += size
        return WarmPlan(missing, new, stored, over_budget, too_long)

    def run(self, plan: WarmPlan, progress: Callable[[int], None]) -> int:
        """Compute and store the passages of a plan; an interrupted run keeps the stored ones.

        Args:
            plan: The plan.
            progress: Called with the number of passages after each group of them.

        Returns:
            The number of dropped passages: those of other generators, and deleted ones.

        Raises:
            KnowledgeBaseError: The disk is full or cannot be written.
        """
        folder, layout = self.store.folder, self._snapshot.layout
        try:
            folder.mkdir(parents=True, exist_ok=True)
            dropped = drop_stale(layout) + drop_others(layout, folder.name)
            free = shutil.disk_usage(folder).free
            if plan.bytes > free:
                raise KnowledgeBaseError(
                    f"The passages take {plan.bytes:,} bytes, but the disk of {folder} has {free:,} left: free some "
                    "space, or choose fewer passages with --top or --budget."
                )
            for start in range(0, len(plan.passages), _GROUP_SIZE):
                group = plan.passages[start : start + _GROUP_SIZE]
                device = self._pipeline.model.device
                states = self._generator.passage_states([ids.to(device) for _, ids in group])
                for (passage_hash, ids), computed in zip(group, states, strict=True):
                    if computed is not None:
                        with replacing(self.store.path(passage_key(ids))) as file:
                            file.write(serialize(computed.to(self._dtype), passage_hash))
                progress(len(group))
        except OSError as error:
            raise KnowledgeBaseError(
                f"Passages could not be stored in {folder} ({error.strerror or error}): free some space or check the "
                "folder's permissions, and run the command again. It continues where it stopped."
            ) from error
        return dropped

    def _by_popularity(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The hashes and rows of the live passages, those that other passages find most often first."""
        parts = [(np.zeros(0, np.uint64), np.zeros(0, np.int64)), *self._snapshot.live_hashes()]
        hashes, rows = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        if not len(rows):
            return hashes, rows
        probes = rows[:: max(1, len(rows) // _PROBES)]
        n_docs = int(self._pipeline.model.config.n_docs)
        # One of the K+1 hits of a passage, (M, K+1), is the passage itself.
        _, hits = self._snapshot.search(self._snapshot.vectors(probes), n_docs + 1)
        hits = hits[(hits >= 0) & (hits != probes[:, None])]
        counts = np.bincount(hits, minlength=self._snapshot.manifest.rows)[rows]
        order = np.argsort(-counts, kind="stable")
        return hashes[order], rows[order]

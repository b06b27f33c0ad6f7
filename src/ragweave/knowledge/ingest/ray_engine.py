"""Embedding on a Ray cluster, with Ray Data.

The extra "ray" brings the library, so it is imported when the engine is used.

Notation used for tensor shapes: M passages, D vector size.
"""

from __future__ import annotations

import builtins
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import ConfigurationError, KnowledgeBaseError, require_extra
from ragweave.types import Passage, Progress

_CONNECT_TIMEOUT = 5.0  # seconds
_BATCH = 512
"""Passages that a worker embeds at a time. They are embedded again if the worker dies."""


class RayEngine:
    """An `Engine` with any number of workers, each of which holds the encoder.

    The encoder reaches the workers through the cluster's object store and passages come with the tasks, so workers
    need neither the model's files nor the knowledge base's disk. If a worker dies, another one repeats its task.

    Args:
        workers: Number of workers.
        address: Address of a running cluster, such as ``"10.0.0.1:6379"``, ``"ray://10.0.0.1:10001"`` or ``"auto"``.
            By default a cluster is started on this machine, and stopped afterwards.
        cpus: CPUs per worker.
        gpus: GPUs per worker; workers with GPUs compute on them.

    Raises:
        MissingExtraError: The extra "ray" is not installed.
        ConfigurationError: A number is below 1.
    """

    def __init__(
        self, *, workers: int = 2, address: str | None = None, cpus: int = 1, gpus: float = 0
    ) -> None:
        require_extra("ray", "ray")
        if workers < 1 or cpus < 1:
            raise ConfigurationError(f"workers is {workers} and cpus is {cpus}: choose 1 or more of each.")
        self.workers = workers
        self.address = address
        self.cpus = cpus
        self.gpus = gpus

    def embed(
        self, shards: Iterable[list[Passage]], encoder: TextEncoder, progress: Progress
    ) -> Iterator[NDArray[np.float32]]:
        """Embed passages with their titles, one shard per worker at a time; see `Engine`.

        Raises:
            KnowledgeBaseError: There is no cluster at the address, or it failed.
        """
        with _keep_print(), self._cluster() as ray:
            reference, remaining = ray.put(encoder), iter(shards)
            try:
                while window := list(islice(remaining, self.workers)):
                    passages = [passage for shard in window for passage in shard]
                    vectors = self._embed(ray, passages, reference, progress)
                    yield from np.split(vectors, np.cumsum([len(shard) for shard in window])[:-1])
            except ray.exceptions.RayError as error:
                raise KnowledgeBaseError(
                    f"The Ray cluster could not embed the passages ({str(error).strip().splitlines()[-1]}): look at "
                    "its logs, and run the command again with --resume."
                ) from error

    def _embed(
        self, ray: Any, passages: list[Passage], reference: Any, progress: Progress
    ) -> NDArray[np.float32]:
        """Return the vectors of M passages, (M, D), in order, whichever worker finishes first."""
        table = pa.table(
            {
                "position": pa.array(np.arange(len(passages))),
                "title": pa.array([passage.title for passage in passages], pa.string()),
                "text": pa.array([passage.text for passage in passages], pa.string()),
            }
        )
        blocks = [table.slice(start, _BATCH) for start in range(0, len(passages), _BATCH)]
        embedded = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_args=(reference, self.cpus, "cuda" if self.gpus else None),
            batch_size=_BATCH,
            batch_format="pyarrow",
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            # The worker that starts first would take several batches and leave none for the others.
            compute=ray.data.ActorPoolStrategy(
                size=min(self.workers, len(blocks)), max_tasks_in_flight_per_actor=1
            ),
        )
        vectors: NDArray[np.float32] | None = None
        for batch in embedded.iter_batches(batch_size=None, batch_format="numpy"):
            if vectors is None:
                vectors = np.empty((len(passages), batch["vector"].shape[1]), dtype=np.float32)
            vectors[batch["position"]] = batch["vector"]
            progress.advance(len(batch["position"]))
        if vectors is None:
            raise KnowledgeBaseError("The Ray cluster returned no vectors: look at its logs.")
        return vectors

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        """Connect to the cluster or start one, and disconnect afterwards unless it was connected before."""
        ray = _import_ray()
        if ray.is_initialized():
            yield ray
            return
        if self.address is not None:
            _check_reachable(self.address)
        local = {} if self.address else {"num_cpus": self.workers * self.cpus + 1, "include_dashboard": False}
        try:
            ray.init(address=self.address or "local", log_to_driver=False, logging_level="ERROR", **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise KnowledgeBaseError(
                f"There is no Ray cluster at {self.address} ({str(error).splitlines()[0]}): check the address."
            ) from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        try:
            yield ray
        finally:
            ray.shutdown()


def _import_ray() -> Any:
    import ray.data  # binds ray, with the submodule

    return ray


@contextmanager
def _keep_print() -> Iterator[None]:
    """Restore ``print``, which Ray replaces in the whole process for progress bars that are off here."""
    original = builtins.print
    try:
        yield
    finally:
        builtins.print = original


class _Worker:
    """Holds the encoder, from the cluster's object store, and embeds batches of passages."""

    def __init__(self, reference: Any, cpus: int, device: str | None) -> None:
        torch.set_num_threads(cpus)
        self.encoder: TextEncoder = _import_ray().get(reference)
        if device is not None:
            self.encoder.model.to(device)

    def __call__(self, batch: Any) -> dict[str, Any]:
        """Embed a table of passages; returns their positions and vectors."""
        vectors = self.encoder.encode(batch["text"].to_pylist(), titles=batch["title"].to_pylist())
        return {"position": batch["position"].to_numpy(), "vector": vectors}


def _check_reachable(address: str) -> None:
    """Fail within seconds if nothing answers at an address, where Ray would try for minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(
            f"{address} is not the address of a Ray cluster: write HOST:PORT."
        ) from error
    if host is None or port is None:
        return  # "auto", and names that Ray resolves itself
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT).close()
    except OSError as error:
        raise KnowledgeBaseError(
            f"There is no Ray cluster at {address} ({error.strerror or error}): check the address, and that 'ray "
            "start --head' was run there."
        ) from error

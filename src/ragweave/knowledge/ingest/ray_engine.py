"""Embedding by the workers of a Ray cluster, with Ray Data.

Notation used for tensor shapes: M passages, D vector size.
"""

from __future__ import annotations

import builtins
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ragweave.errors import ConfigurationError, KnowledgeBaseError, require_extra

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.progress import Progress
    from ragweave.types import Passage

_CONNECTED_WITHIN = 5.0  # seconds
_BATCH = 512
"""Passages that a worker embeds at a time, and that are done again when it dies."""


class RayEngine:
    """Embeds with any number of workers, each of which holds the encoder.

    The encoder goes to the workers through the cluster's own memory, and passages with the tasks: workers need
    neither the model's files nor the knowledge base's disk. What a worker that died was doing, another does again.

    Args:
        workers: How many workers.
        address: Of a cluster that is running, such as ``"10.0.0.1:6379"``, ``"ray://10.0.0.1:10001"`` or ``"auto"``;
            one is started on this machine, and stopped afterwards, where left out.
        cpus: Processors of each worker.
        gpus: Accelerators of each worker, on which it then computes.

    Raises:
        MissingExtraError: The extra ``ray`` is not installed.
        ConfigurationError: A number is below 1.
    """

    def __init__(
        self, *, workers: int = 2, address: str | None = None, cpus: int = 1, gpus: float = 0
    ) -> None:
        require_extra("ray", "ray")
        if workers < 1 or cpus < 1:
            raise ConfigurationError(
                f"{workers} workers of {cpus} processors are not possible: give 1 or more."
            )
        self.workers = workers
        self.address = address
        self.cpus = cpus
        self.gpus = gpus

    def embed(
        self, shards: Iterable[list[Passage]], encoder: TextEncoder, progress: Progress
    ) -> Iterator[NDArray[np.float32]]:
        """Embed passages with their titles, a shard for every worker at a time; see `Engine`.

        Raises:
            KnowledgeBaseError: There is no cluster at the address, or it has failed.
        """
        with _own_print(), self._cluster() as ray:
            from ray.exceptions import RayError

            reference = ray.put(encoder)
            try:
                for window in _windows(shards, self.workers):
                    vectors = self._embedded([own for shard in window for own in shard], reference, progress)
                    yield from np.split(vectors, np.cumsum([len(shard) for shard in window])[:-1])
            except RayError as error:
                raise KnowledgeBaseError(
                    f"The Ray cluster could not embed the passages ({str(error).strip().splitlines()[-1]}): look at "
                    "its logs, and run the command again with --resume."
                ) from error

    def _embedded(self, passages: list[Passage], reference: Any, progress: Progress) -> NDArray[np.float32]:
        """The vectors of M passages, (M, D), in their order, whichever worker was done first."""
        import pyarrow as pa
        import ray.data

        places = np.arange(len(passages))
        columns = {
            "place": pa.array(places),
            "title": pa.array([own.title for own in passages], pa.string()),
            "text": pa.array([own.text for own in passages], pa.string()),
        }
        table = pa.table(columns)
        blocks = [table.slice(start, _BATCH) for start in range(0, len(passages), _BATCH)]
        embedded = ray.data.from_arrow(blocks).map_batches(
            _Embed,
            fn_constructor_args=(reference, self.cpus, "cuda" if self.gpus else None),
            batch_size=_BATCH,
            batch_format="pyarrow",
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(blocks))),
        )
        vectors: NDArray[np.float32] | None = None
        for batch in embedded.iter_batches(batch_size=None, batch_format="numpy"):
            if vectors is None:
                vectors = np.empty((len(passages), batch["vector"].shape[1]), dtype=np.float32)
            vectors[batch["place"]] = batch["vector"]
            progress.advance(len(batch["place"]))
        if vectors is None:
            raise KnowledgeBaseError("The Ray cluster returned no vectors: look at its logs.")
        return vectors

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        """Connect to the cluster, or start one; leave it as it was found."""
        import ray

        if ray.is_initialized():
            yield ray
            return
        if self.address is not None:
            _check_reachable(self.address)
        here = {} if self.address else {"num_cpus": self.workers * self.cpus + 1, "include_dashboard": False}
        try:
            ray.init(address=self.address or "local", log_to_driver=False, logging_level="ERROR", **here)
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


@contextmanager
def _own_print() -> Iterator[None]:
    """Put ``print`` back as it was: Ray replaces it in the whole process, for bars that are not shown here."""
    own = builtins.print
    try:
        yield
    finally:
        builtins.print = own


class _Embed:
    """A worker: holds the encoder, and embeds batches of passages.

    Args:
        reference: The encoder, in the cluster's memory.
        cpus: How many processors the worker may use.
        device: Where to compute; where the encoder was, if left out.
    """

    def __init__(self, reference: Any, cpus: int, device: str | None) -> None:
        import ray
        import torch

        torch.set_num_threads(cpus)
        self.encoder: TextEncoder = ray.get(reference)
        if device is not None:
            self.encoder.model.to(device)

    def __call__(self, batch: Any) -> dict[str, Any]:
        """Embed a table of passages: their places and vectors."""
        vectors = self.encoder.encode(batch["text"].to_pylist(), titles=batch["title"].to_pylist())
        return {"place": batch["place"].to_numpy(), "vector": vectors}


def _windows(shards: Iterable[list[Passage]], size: int) -> Iterator[list[list[Passage]]]:
    window: list[list[Passage]] = []
    for shard in shards:
        window.append(shard)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def _check_reachable(address: str) -> None:
    """Find out within seconds that nothing answers at an address, which Ray tries for minutes.

    Raises:
        KnowledgeBaseError: Nothing does.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{address} is no address of a Ray cluster: write HOST:PORT.") from error
    if host is None or port is None:
        return  # "auto" and names that Ray knows
    try:
        socket.create_connection((host, port), timeout=_CONNECTED_WITHIN).close()
    except OSError as error:
        raise KnowledgeBaseError(
            f"There is no Ray cluster at {address} ({error.strerror or error}): check the address, and that 'ray "
            "start --head' was run there."
        ) from error

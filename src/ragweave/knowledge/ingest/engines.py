"""What embeds the passages of a knowledge base.

Notation used for tensor shapes: M passages, D vector size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.progress import Progress
    from ragweave.types import Passage


class Engine(Protocol):
    """Embeds passages, shard by shard."""

    def embed(
        self, shards: Iterable[list[Passage]], encoder: TextEncoder, progress: Progress
    ) -> Iterator[NDArray[np.float32]]:
        """Embed passages with their titles.

        Args:
            shards: The passages, as many at a time as are to be in memory.
            encoder: What embeds them.
            progress: Hears of every passage that is done.

        Yields:
            The vectors of each shard, (M, D), in the order of the passages.
        """
        ...


class LocalEngine:
    """Embeds in this process, on the encoder's device."""

    def embed(
        self, shards: Iterable[list[Passage]], encoder: TextEncoder, progress: Progress
    ) -> Iterator[NDArray[np.float32]]:
        """Embed passages with their titles; see `Engine`."""
        for passages in shards:
            yield encoder.encode(
                [passage.text for passage in passages],
                titles=[passage.title for passage in passages],
                progress=progress.advance,
            )

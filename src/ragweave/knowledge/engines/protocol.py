"""What embeds the passages of a knowledge base.

Notation used for tensor shapes: M passages, D vector size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ragweave.encoding import TextEncoder
    from ragweave.knowledge.passages import Passage
    from ragweave.knowledge.progress import Progress


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

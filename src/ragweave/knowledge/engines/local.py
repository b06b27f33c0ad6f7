"""Embedding in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ragweave.encoding import TextEncoder
    from ragweave.knowledge.passages import Passage
    from ragweave.knowledge.progress import Progress


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

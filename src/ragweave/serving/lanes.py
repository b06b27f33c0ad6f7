"""Work that is not answering, one thing after the other in a thread of its own, and no queue that grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ragweave.serving.errors import DeadlineError, OverloadedError

T = TypeVar("T")


class Lane:
    """A thread that does one thing after the other.

    Args:
        name: What to call its thread.
        most: How many things may wait or be under way.
        deadline: How many seconds one may take, its waiting included.
    """

    def __init__(self, name: str, *, most: int, deadline: float) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"ragweave-{name}")
        self._most = most
        self._deadline = deadline
        self._under_way = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Do something in the lane's thread.

        Raises:
            OverloadedError: Too much is waiting.
            DeadlineError: It took too long; what had begun is finished all the same.
        """
        if self._under_way >= self._most:
            raise OverloadedError(1)
        self._under_way += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise DeadlineError(f"This took longer than {self._deadline:g} s and was given up.") from error

    async def stop(self) -> None:
        """End when all that waits is done."""
        await asyncio.to_thread(self._pool.shutdown)

    def _ended(self, future: asyncio.Future[T]) -> None:
        self._under_way -= 1
        if not future.cancelled():
            future.exception()  # whoever gave up waiting does not ask for it

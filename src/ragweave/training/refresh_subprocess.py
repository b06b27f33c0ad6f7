"""The process of an index refresh: ``python -m ragweave.training.refresh_subprocess PARENT JOB``.

PARENT is the trainer's process id. JOB is JSON with the arguments of `refresh`. The process ends with the trainer.
Otherwise it would hold the lock of the knowledge base, and a resumed run could not write.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from types import FrameType

from ragweave.errors import RagweaveError

_POLL_INTERVAL = 1.0  # seconds
_CLEANUP_TIME = 10.0  # seconds


def refresh(
    knowledge_base: str,
    version: str,
    output: str,
    *,
    keep_versions: list[str],
    encoder: str,
    encoder_name: str,
    device: str | None,
    ray_workers: int | None,
    ray_address: str | None,
) -> None:
    """Embed the passages of a knowledge base with an encoder, as a new version of the knowledge base ``output``.

    The encoder is a folder, and is named ``encoder_name`` in the new version. ``ray_workers`` is None to embed in
    this process.
    """
    # Imported here, so that the process ends with the trainer even while it imports torch.
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.knowledge.ingest.ray_engine import RayEngine

    KnowledgeBase.open(knowledge_base, version=version).reembed(
        output,
        encoder=TextEncoder.from_pretrained(encoder, name=encoder_name, device=device),
        engine=None if ray_workers is None else RayEngine(workers=ray_workers, address=ray_address),
        keep=0,
        keep_named=keep_versions,
    )


def interrupt_with_parent(parent: int) -> None:
    """Raise KeyboardInterrupt once in the main thread when this process is told to end or its parent has ended.

    SIGINT and SIGTERM tell it to end, even if they were ignored before. Later signals are ignored, so that they do
    not interrupt the cleanup. Call this in the main thread.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    # PR_SET_PDEATHSIG follows the thread that started this process, and threads end before their process.
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_INTERVAL)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_CLEANUP_TIME)
    os._exit(1)  # the main thread is in code that does not handle signals


def main() -> None:
    """Run the job; an error is the last line of the output."""
    interrupt_with_parent(int(sys.argv[1]))
    try:
        refresh(**json.loads(sys.argv[2]))
    except RagweaveError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""A command of ragweave that ends with who started it: ``python -m ragweave.training.child PROCESS COMMAND ...``.

A refresh that outlived its trainer would hold the lock of the knowledge base, and the resumed run could not have it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

_LOOKS_EVERY = 1.0  # seconds
_TIDIES_WITHIN = 10.0  # seconds


def end_with(parent: int) -> None:
    """Let this process be interrupted, once, when it is asked to end or when its parent has ended.

    It is asked by SIGINT or SIGTERM, also where it was started with these ignored. What comes after the first is
    ignored, so that nothing breaks off the tidying up. To be called in the main thread.

    Args:
        parent: The id of the process that started this one.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    # Not PR_SET_PDEATHSIG: that looks at the thread which started this process, and threads end before processes.
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def main() -> None:
    """Run the command."""
    end_with(int(sys.argv.pop(1)))
    from ragweave.cli import main as command

    command()


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOKS_EVERY)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_TIDIES_WITHIN)
    os._exit(1)  # the main thread is in code that hears no signals


if __name__ == "__main__":
    main()

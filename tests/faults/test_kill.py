"""Writers killed in the middle of their work, hundreds of them, leave a whole knowledge base."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest

from ragweave.knowledge.base import KnowledgeBase
from tests.faults.conftest import CHANGES, content

KILLS = 60
CHANGES_OF_FOLDERS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def write_in_process(change, folder, kill_at=None, pause=0.0):
    """Run a change in a process of its own, and kill it at one of its steps.

    A step opens a file for writing, or creates, renames or removes a file or a folder. The writer announces the
    step ``kill_at`` through a pipe and continues, but stops before the next one. So the kill comes at any instant
    between the two, and never too late, however busy the machine is.

    Args:
        change: What the process does.
        folder: Only steps in this folder count.
        kill_at: The number of the step after which it is killed; None lets it finish.
        pause: Seconds from the announcement to the kill.

    Returns:
        Whether it was killed at work, and else how many steps it made.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _write(change, folder, kill_at, writing)
    os.close(writing)
    with open(reading, "rb", buffering=0) as pipe:  # noqa: PTH123  # a file descriptor
        killed = pipe.read(1) == b"!"
        if killed:
            time.sleep(pause)
            os.kill(child, signal.SIGKILL)
        steps = 0 if killed else int(pipe.read() or 0)
    _, status = os.waitpid(child, 0)
    assert killed or status == 0
    return killed, steps


def _is_step(event, arguments):
    opens = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    return opens or event in CHANGES_OF_FOLDERS


def _write(change, folder, kill_at, pipe):
    steps = 0

    def count(event, arguments):
        nonlocal steps
        if _is_step(event, arguments) and str(arguments[0]).startswith(str(folder)):
            steps += 1
            if steps == kill_at:
                os.write(pipe, b"!")
            elif kill_at is not None and steps > kill_at:
                signal.pause()

    try:
        sys.addaudithook(count)
        change()
        os.write(pipe, b" %d" % steps)
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(1)
    os._exit(0)


@pytest.mark.parametrize("seed", range(4))
def test_killed_writers_leave_whole_versions(folder, tiny_encoder, seed):
    """Writers follow one another in the same knowledge base; most are killed at work, some come to an end."""
    source, where = np.random.default_rng(seed), folder()
    kinds = ("add", "delete", "compact", "overwrite")
    kb, notes = where / "kb", where / "notes"
    new = notes / "changing.txt"
    vector = tiny_encoder.encode(["ulm"])

    def change():
        """One of the changes, so that there is always something to do."""
        kind = kinds[number % len(kinds)]
        if kind == "delete":
            base = KnowledgeBase.open(kb)
            base.delete(ids=[base.passage(int(base.search(vector, 1)[1][0, 0])).id])
        else:
            CHANGES[kind](where, tiny_encoder)

    steps = {}
    for number, kind in enumerate(kinds):
        new.write_text(f"Text number {number}.")
        killed, steps[kind] = write_in_process(change, where)
        assert steps[kind] > 5
    versions, killed = set(), 0
    for number in range(KILLS):
        new.write_text(f"Text number {number}.")
        # Some numbers lie beyond the last step: those writers come to an end.
        at = int(source.integers(1, 1.5 * steps[kinds[number % len(kinds)]]))
        killed += write_in_process(change, where, at, pause=source.uniform(0, 0.005))[0]
        assert content(kb)
        versions.add(KnowledgeBase.open(kb).version)
        if not number % 10:  # refill what deletions take away
            CHANGES["overwrite"](where, tiny_encoder)
    new.unlink()
    assert killed > KILLS / 4, "too few writers were at work when they were killed"
    assert len(versions) > KILLS / 10, "too few writers came to an end"
    KnowledgeBase.open(kb).add([notes], encoder=tiny_encoder).compact(keep=0).verify()
    assert sorted(path.name for path in kb.iterdir()) == [".writer.lock", "CURRENT", "segments", "versions"]

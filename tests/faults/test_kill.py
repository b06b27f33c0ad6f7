"""A writer that is killed at any time, several hundred of them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from ragweave.knowledge.base import KnowledgeBase
from tests.faults.conftest import CHANGES, content

KILLS = 100

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.parametrize("seed", range(4))
def test_killed_writers_leave_whole_versions(folder, tiny_encoder, seed):
    """Writers follow one another in the same knowledge base, each killed while it is at work or after."""
    source, where, pause = np.random.default_rng(seed), folder(), threading.Event()
    kinds = ("add", "delete", "compact", "overwrite")
    kb, notes = where / "kb", where / "notes"
    new = notes / "changing.txt"

    def change():
        """One of the changes, so that there is always something to do."""
        kind = kinds[number % len(kinds)]
        if kind == "delete":
            base = KnowledgeBase.open(kb)
            base.delete(ids=[base.passage(int(base.search(vector, 1)[1][0, 0])).id])
        else:
            CHANGES[kind](where, tiny_encoder)

    vector = tiny_encoder.encode(["ulm"])
    began = time.perf_counter()
    CHANGES["add"](where, tiny_encoder)
    longest = 1.5 * (time.perf_counter() - began)
    versions, killed = set(), 0
    for number in range(KILLS):
        new.write_text(f"Text number {number}.")
        child = os.fork()
        if not child:
            try:
                change()
            except BaseException as error:
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(0)
        pause.wait(source.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        assert content(kb)
        versions.add(KnowledgeBase.open(kb).version)
        if not number % 10:  # refill what deletions take away
            CHANGES["overwrite"](where, tiny_encoder)
    new.unlink()
    assert killed > KILLS / 4, "too few writers were at work when they were killed"
    assert len(versions) > KILLS / 10, "too few writers came to an end"
    KnowledgeBase.open(kb).add([notes], encoder=tiny_encoder).compact(keep=0).verify()
    assert sorted(path.name for path in kb.iterdir()) == [".writer.lock", "CURRENT", "segments", "versions"]

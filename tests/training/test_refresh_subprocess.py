"""The process of a refresh ends with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support.waiting import PATIENCE, wait_until

CHILD = """
import signal, sys, time
from pathlib import Path
if sys.argv[3] == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells start what is in their background
from ragweave.training.refresh_subprocess import interrupt_with_parent
interrupt_with_parent(int(sys.argv[1]))
note = Path(sys.argv[2])
try:
    note.with_suffix(".up").touch()
    time.sleep(600)
except KeyboardInterrupt:
    note.with_suffix(".interrupted").touch()
    while sys.argv[3] != "orphan" and not note.with_suffix(".asked-again").exists():
        time.sleep(0.01)
    note.touch()
"""
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2], "orphan"])
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hearing", ["hears", "deaf"])
def test_it_is_interrupted_once_when_it_is_asked_to_end(tmp_path, number, hearing):
    note = tmp_path / "tidied"
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(os.getpid()), str(note), hearing])
    try:
        wait_until(note.with_suffix(".up").exists)
        process.send_signal(number)
        wait_until(note.with_suffix(".interrupted").exists)
        for again in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(again)
        note.with_suffix(".asked-again").touch()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
    assert note.exists()


def test_it_is_interrupted_when_its_parent_is_killed(tmp_path):
    note = tmp_path / "tidied"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(note)])
    try:
        wait_until(note.with_suffix(".up").exists)
    finally:
        parent.kill()
        parent.wait()
    wait_until(note.exists)

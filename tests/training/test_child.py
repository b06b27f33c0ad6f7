"""The process of a refresh ends with who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

CHILD = """
import signal, sys, time
from pathlib import Path
if sys.argv[3] == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells start what is in their background
from ragweave.training.child import end_with
end_with(int(sys.argv[1]))
note = Path(sys.argv[2])
try:
    note.with_suffix(".up").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)  # it is asked again meanwhile
    note.touch()
"""
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2], "hears"])
time.sleep(60)
"""


def wait_for(path):
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hearing", ["hears", "deaf"])
def test_it_is_interrupted_once_when_it_is_asked_to_end(tmp_path, number, hearing):
    note = tmp_path / "tidied"
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(os.getpid()), str(note), hearing])
    wait_for(note.with_suffix(".up"))
    for again in (number, signal.SIGTERM, signal.SIGINT):
        process.send_signal(again)
        time.sleep(0.1)
    assert process.wait(30) == 0
    assert note.exists()


def test_it_is_interrupted_when_its_parent_is_killed(tmp_path):
    note = tmp_path / "tidied"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(note)])
    wait_for(note.with_suffix(".up"))
    parent.kill()
    parent.wait()
    wait_for(note)

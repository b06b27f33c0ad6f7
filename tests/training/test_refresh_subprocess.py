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
if sys.argv[3] == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background jobs of a shell
from ragweave.training.refresh_subprocess import interrupt_with_parent
interrupt_with_parent(int(sys.argv[1]))
finished = Path(sys.argv[2])
try:
    finished.with_suffix(".up").touch()
    time.sleep(600)
except KeyboardInterrupt:
    finished.with_suffix(".interrupted").touch()
    while sys.argv[3] != "orphan" and not finished.with_suffix(".asked-again").exists():
        time.sleep(0.01)
    finished.touch()
"""
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2], "orphan"])
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("sigint", ["default", "ignored"])
def test_a_signal_interrupts_once(tmp_path, number, sigint):
    finished = tmp_path / "finished"
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(os.getpid()), str(finished), sigint])
    try:
        wait_until(finished.with_suffix(".up").exists)
        process.send_signal(number)
        wait_until(finished.with_suffix(".interrupted").exists)
        for again in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(again)
        finished.with_suffix(".asked-again").touch()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
    assert finished.exists()


def test_the_end_of_the_parent_interrupts(tmp_path):
    finished = tmp_path / "finished"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(finished)])
    try:
        wait_until(finished.with_suffix(".up").exists)
    finally:
        parent.kill()
        parent.wait()
    wait_until(finished.exists)

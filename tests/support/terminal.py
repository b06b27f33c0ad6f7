"""Commands whose standard error is a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a command shows on standard error, a terminal, without the sequences that move the cursor."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        while piece := _read(controller):
            shown += piece
    os.close(controller)
    text = _ESCAPES.sub("", shown.decode())
    assert process.returncode == 0, text
    return text


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 1 << 16)
    except OSError:  # the other end is closed
        return b""

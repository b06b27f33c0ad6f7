"""Reads files in a child process, so that a file cannot crash, block, or fill the memory of this one.

Answers are lines of JSON, so that a file that takes over the child cannot make this process execute anything.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from ragweave.errors import MissingExtraError, OmissionWarning, SourceError, SourceWarning
from ragweave.knowledge.ingest_settings import Chunking, ReadSettings
from ragweave.types import Document, Passage, Place, SourceFile

# With -P, no module of the working directory is imported. The folder of ragweave may not be on the path otherwise.
_CODE = "import sys; sys.path.append(sys.argv[1]); from ragweave.knowledge.ingest.loaders.loader import main; main()"
_BATCH_CHARACTERS = 2**20
_TIMED_OUT = 1  # the status with which faulthandler ends a process


Reader = Callable[[SourceFile, ReadSettings, Chunking | None], Iterator[Any]]
"""Reads the documents of a file, or with a chunking its passages."""


def read_in_process(file: SourceFile, settings: ReadSettings, chunking: Chunking | None) -> Iterator[Any]:
    """Read a file in a process that is idle, or a new one; see `_ReaderProcess.read`."""
    idle = _idle_processes()
    process = idle.pop() if idle else _ReaderProcess()
    try:
        yield from process.read(file, settings, chunking)
    finally:
        idle.append(process)


@cache
def _idle_processes() -> list[_ReaderProcess]:
    return []


class _ReaderProcess:
    """A process that reads one file after the other. It starts with the first, and again after a crash or a limit."""

    def __init__(self) -> None:
        self._process: Any = None  # mypy assumes that the pipes of a Popen may be None
        self._owner = self._memory = 0
        self._folder = ""

    def read(self, file: SourceFile, settings: ReadSettings, chunking: Chunking | None) -> Iterator[Any]:
        state = "more"
        try:
            self._start(settings.memory)
            # The working directory may have changed since the process started.
            folder = "" if file.path.is_absolute() else os.getcwd()  # noqa: PTH109
            record = {**asdict(file), "path": str(file.path)}
            pieces = None if chunking is None else asdict(chunking)
            request = {"file": record, "settings": asdict(settings), "chunking": pieces, "folder": folder}
            with suppress(BrokenPipeError):  # the process has ended, which `_receive` explains
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            while state == "more":
                items, losses, error, state = self._receive(file, settings)
                for is_omission, message in losses:
                    warnings.warn(message, OmissionWarning if is_omission else SourceWarning, stacklevel=2)
                yield from items
            if error == MemoryError.__name__:
                error = _exceeds(file, f"{settings.memory} MiB of memory", "--read-memory", "memory")
            if error:
                raise SourceError(error)
        finally:
            if state != "ready":
                self.close()  # even if the caller stops: the next file must not get the answer of this one

    def close(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process = None

    def _start(self, memory: int) -> None:
        """Start the process, unless it runs; a process of the parent before a fork is not used."""
        is_usable = self._process is not None and self._owner == os.getpid() and self._memory == memory
        if is_usable and self._process.poll() is None:
            return
        self.close()
        command = [sys.executable, "-P", "-c", _CODE, str(Path(__file__).parents[4]), str(memory)]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        # Threads would take memory, and each process reads one file at a time.
        # The folder for copies of archive members is deleted with the process, even if a file crashes it.
        self._folder = mkdtemp(prefix="ragweave-")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": self._folder}
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, env=environment)  # noqa: S603
        self._owner, self._memory = os.getpid(), memory
        atexit.register(self.close)
        if self._process.stdout.readline() != b"ready\n":
            raise SourceError(
                "The process that reads files does not start. Run "
                f"'{sys.executable} -P -c \"import ragweave.knowledge.ingest.loaders.loader\"' to see why."
            )

    def _receive(
        self, file: SourceFile, settings: ReadSettings
    ) -> tuple[list[Document | Passage], list[tuple[bool, str]], str, str]:
        """The next documents or passages, warnings, the error, and whether more follows."""
        line = self._process.stdout.readline(settings.memory * 2**20)
        with suppress(ValueError, TypeError, LookupError):
            answer = json.loads(line)
            items = [_item(record) for record in answer["items"]]
            return items, answer["losses"], answer["error"], answer["state"]
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)  # a process that ends closes its pipe first
        self._process.kill()
        status = self._process.wait()
        if status == _TIMED_OUT:
            limit = f"{_seconds(file, settings):g} seconds"
            raise SourceError(_exceeds(file, limit, "--read-seconds", "seconds"))
        reason = next((one.name for one in signal.Signals if one == -status), f"exit status {status}")
        raise SourceError(
            f"The file {file.path} ended the process that reads it ({reason}): it is damaged, or needs "
            f"more than {settings.memory} MiB of memory. Save it again, leave it out, or raise --read-memory "
            "(ReadSettings.memory)."
        )


def _item(record: dict[str, Any]) -> Document | Passage:
    if "document_id" in record:
        return Passage(**record)
    place, rows = record.pop("place"), record.pop("rows")
    place["heading"] = tuple(place["heading"])
    return Document(**record, place=Place(**place), rows=tuple((start, row) for start, row in rows))


def _seconds(file: SourceFile, settings: ReadSettings) -> float:
    """The limit for a file: larger files get proportionally more time."""
    with suppress(OSError):  # its loader reports what is wrong
        return settings.seconds * (1 + file.path.stat().st_size // 2**26)
    return settings.seconds


def _exceeds(file: SourceFile, limit: str, option: str, field: str) -> str:
    return (
        f"The file {file.path} cannot be read within {limit}: it is very large, damaged, or malicious. "
        f"Leave it out, or raise {option} (ReadSettings.{field})."
    )


# --- In the child ---


def serve(read: Reader) -> None:
    """Read the files named on standard input, until it ends, and write their contents to standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries write to standard output
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    warnings.simplefilter("ignore")
    memory = int(sys.argv[2]) * 2**20
    _limit_memory(memory)
    answers.write(b"ready\n")
    answers.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        os.chdir(request["folder"] or ".")
        file = SourceFile(**{**request["file"], "path": Path(request["file"]["path"])})
        settings = ReadSettings.from_record(request["settings"])
        chunking = Chunking(**request["chunking"]) if request["chunking"] else None
        for answer, state in _answers(read(file, settings, chunking), _seconds(file, settings), memory):
            answers.write(answer)
            answers.flush()
            if state == "leaving":
                return


def _answers(items: Iterator[Document | Passage], seconds: float, memory: int) -> Iterator[tuple[bytes, str]]:
    """Yield documents or passages in batches with the warnings of their loader, and whether more follows."""
    state = "more"
    while state == "more":
        started = time.monotonic()
        # This thread needs no interpreter lock, so it ends the process whatever code is running.
        faulthandler.dump_traceback_later(max(seconds, 1e-3), exit=True)
        try:
            answer, state = _answer(items, memory)
        except MemoryError:
            answer, state = _encoded([], [], MemoryError.__name__, "leaving"), "leaving"
        faulthandler.cancel_dump_traceback_later()
        seconds -= time.monotonic() - started  # without the time in which the parent uses them
        yield answer, state


def _answer(items: Iterator[Document | Passage], memory: int) -> tuple[bytes, str]:
    batch: list[Document | Passage] = []
    state, error, left = "ready", "", _BATCH_CHARACTERS
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SourceWarning)
        try:
            while left > 0 and (item := next(items, None)):
                batch.append(item)
                left -= 100 + len(item.title) + len(item.text)
        except (SourceError, MissingExtraError) as failure:
            error = str(failure)
    if left <= 0 and not error:
        state = "more"
    elif _allocated() > 0.75 * memory:
        state = "leaving"  # memory that one file leaves must not count against the next
    losses = [(issubclass(warning.category, OmissionWarning), str(warning.message)) for warning in caught]
    return _encoded(batch, losses, error, state), state


def _encoded(
    items: list[Document | Passage], losses: list[tuple[bool, str]], error: str, state: str
) -> bytes:
    answer = {"items": items, "losses": losses, "error": error, "state": state}
    return json.dumps(answer, ensure_ascii=False, default=_fields).encode(errors="surrogatepass") + b"\n"


def _fields(item: Document | Passage | Place) -> dict[str, Any]:
    """The result of `asdict`, which would copy all values, a fifth of the reading time."""
    return {name: getattr(item, name) for name in type(item).__slots__}


def _limit_memory(size: int) -> None:
    """Limit what this process allocates, not the files that it maps. Windows and macOS have no such limit."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _allocated() -> int:
    """Bytes of memory that this process has, as its limit counts them; 0 where that is not known."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * mmap.PAGESIZE
    return 0

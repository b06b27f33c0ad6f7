"""The process that reads files: what ends it costs one file, and it is started once and anew after that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ragweave.errors import ConfigurationError, SourceError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.loaders.loader import read_documents
from ragweave.knowledge.ingest_settings import ReadSettings
from ragweave.types import Document
from tests.support.documents import only_document, read, write
from tests.support.waiting import wait_until


def children() -> set[psutil.Process]:
    """The processes that this process has started to read files."""
    running = (c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE)
    return {
        child for child in running if "ragweave.knowledge.ingest.loaders.loader" in " ".join(child.cmdline())
    }


def reader() -> psutil.Process:
    (process,) = children()
    return process


@pytest.fixture(autouse=True)
def started(tmp_path) -> None:
    """One process that runs and is idle."""
    assert only_document(page(tmp_path, "warm")).text == "warm"
    for process in list(children())[1:]:
        kill(process)


def kill(process: psutil.Process) -> None:
    process.kill()
    process.wait()


def page(folder: Path, text: str, repeated: int = 1) -> Path:
    """A web page, which is read in the process."""
    return write(folder / f"{text}.html", f"<p>{text}</p>" * repeated)


def endless(folder: Path) -> Path:
    """A file that takes seconds to read."""
    return write(folder / "endless.html", "<table><tr><td>cell</td></tr></table>\n" * 10**6)


def test_one_process_reads_many_files(tmp_path):
    processes = set()
    for number in range(3):
        assert only_document(page(tmp_path, f"Text {number}")).text == f"Text {number}"
        processes.add(reader().pid)
    assert len(processes) == 1 and os.getpid() not in processes


def test_small_texts_start_no_process(tmp_path):
    path = write(tmp_path / "a.md", "# Lima\n\nLima is in Peru.")
    code = (
        "import psutil, sys; from pathlib import Path; "
        "from ragweave.knowledge.ingest.loaders.loader import read_documents; "
        "print([d.title for d in read_documents([Path(sys.argv[1])])], psutil.Process().children())"
    )
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert result.stdout == "['Lima'] []\n"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_costs_one_file(tmp_path, tiny_encoder, number):
    files = [page(tmp_path, "Lima"), endless(tmp_path), page(tmp_path, "Ulm")]
    thread = threading.Thread(target=crash_when_busy, args=(reader(), number))
    thread.start()
    base = KnowledgeBase.build(files, tmp_path / "kb", encoder=tiny_encoder)
    thread.join()
    assert {base.passage(row).text for row in range(2)} == {"Lima", "Ulm"}
    (sentence,) = base.manifest.change.skipped
    assert "endless.html ended the process that reads it (" + signal.Signals(number).name in sentence


def crash_when_busy(process: psutil.Process, number: int) -> None:
    """Send a signal to a process once it has worked for half a second more."""
    start = sum(process.cpu_times()[:2])
    while sum(process.cpu_times()[:2]) < start + 0.5:
        time.sleep(0.01)
    process.send_signal(number)


def test_a_file_that_takes_too_long(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read within 0\.01 seconds.* raise --read-seconds"):
        read(endless(tmp_path), settings=ReadSettings(seconds=0.01))
    assert only_document(page(tmp_path, "Lima")).text == "Lima"


def test_a_file_that_takes_too_much_memory(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read within 256 MiB of memory.* raise --read-memory"):
        read(write(tmp_path / "a.txt", "line\n" * 2 * 10**7), settings=ReadSettings(memory=256))
    assert only_document(page(tmp_path, "Lima")).text == "Lima"


@pytest.mark.parametrize("limits", [{"memory": 20}, {"seconds": 0}])
def test_limits_that_no_file_keeps(limits):
    with pytest.raises(ConfigurationError, match="set at least 256 MiB, and a positive time"):
        ReadSettings(**limits)


def test_a_process_that_cannot_start(tmp_path, monkeypatch):
    kill(reader())
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SourceError, match=r"The process that reads files does not start\. Run '/bin/false"):
        read(page(tmp_path, "Lima"))
    monkeypatch.undo()
    assert only_document(page(tmp_path, "Lima")).text == "Lima"


def test_memory_of_a_large_file_does_not_count_against_the_next(tmp_path):
    before = reader().pid
    settings = ReadSettings(memory=512)
    read(write(tmp_path / "a.txt", "line\n" * 10**7), settings=settings)
    assert read(page(tmp_path, "Lima"), settings=settings)[0].text == "Lima"
    assert reader().pid != before


def test_relative_paths_after_a_change_of_the_working_directory(tmp_path, monkeypatch):
    page(tmp_path / "notes", "Lima")
    monkeypatch.chdir(tmp_path / "notes")
    assert read(Path("Lima.html"))[0].text == "Lima"


def test_two_files_are_read_at_once(tmp_path):
    rows = "".join(f"<p>{n}</p>" for n in range(10))
    files = [write(tmp_path / name, rows) for name in ("a.html", "b.html")]
    table = "text\n" + "".join(f"row {n} {'x' * 300}\n" for n in range(20000))
    tables = [write(tmp_path / name, table) for name in ("a.csv", "b.csv")]
    streams: list[Iterator[Document]] = [read_documents([path]) for path in (*tables, *files)]
    pairs = zip(streams[0], streams[1], strict=True)
    assert sum(a.text == b.text for a, b in pairs) == 20000
    assert [len(list(stream)) for stream in streams[2:]] == [1, 1]


def test_no_module_of_the_working_directory_is_imported(tmp_path, monkeypatch):
    for name in ("json.py", "lxml.py", "unicodedata.py"):
        write(tmp_path / name, f"open({str(tmp_path / 'imported')!r}, 'w').close()")
    kill(reader())
    monkeypatch.chdir(tmp_path)
    assert only_document(page(tmp_path, "Lima")).text == "Lima"
    assert not (tmp_path / "imported").exists()


def test_after_an_interrupt_the_next_file_gets_its_own_text(tmp_path):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path = endless(tmp_path)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            read(path)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert only_document(page(tmp_path, "Lima")).text == "Lima"


def test_a_caller_that_stops_does_not_disturb_the_next_file(tmp_path):
    table = write(tmp_path / "a.csv", "text\n" + "".join(f"row {n} {'x' * 300}\n" for n in range(20000)))
    documents = read_documents([table])
    assert next(documents).text.startswith("row 0 ")
    del documents
    assert only_document(page(tmp_path, "Lima")).text == "Lima"


def test_a_fork_reads_with_a_process_of_its_own(tmp_path):
    path = page(tmp_path, "Lima")
    child = os.fork()
    if not child:
        os._exit(0 if only_document(path).text == "Lima" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert only_document(path).text == "Lima"


def test_the_process_ends_with_its_parent(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; "
        "from ragweave.knowledge.ingest.loaders.loader import read_documents; "
        "list(read_documents([Path(sys.argv[1])])); import psutil; "
        "print(psutil.Process().children()[0].pid, flush=True); os.kill(os.getpid(), 9)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, page(tmp_path, "Lima")], capture_output=True, text=True
    )
    wait_until(lambda: has_ended(int(result.stdout)))


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

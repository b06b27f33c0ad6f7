"""One copy of the index for all processes of a machine: what those that search one knowledge base hold of it.

    python benchmarks/shared_index.py [--passages 200000] [--processes 1 2 4] [--folder kept/]

Every process opens the knowledge base and searches it, which reads all vectors of a flat index. Reported, when all
have done so: the memory that mapped files of the knowledge base take in all processes together, counted in each of
them (Rss), and as it is (Pss, a page that n processes share counts 1/n in each), as Linux says it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import emit, say
from scale import GeneratedEncoder, write_passages


def mapped(folder: Path) -> dict[str, int]:
    """Bytes of this process's mappings of files below a folder, by ``Rss`` and ``Pss``."""
    found, inside = {"Rss": 0, "Pss": 0}, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        name, _, rest = line.partition(":")
        if "-" in name.split(" ")[0]:  # a mapping begins: addresses, and the file at the end
            inside = str(folder) in line
        elif inside and name in found:
            found[name] += int(rest.split()[0]) * 1024
    return found


def reader(folder: Path) -> None:
    """Search, say so, wait until all others have, and say what is mapped."""
    from ragweave import KnowledgeBase

    encoder: Any = GeneratedEncoder()
    base = KnowledgeBase.open(folder)
    base.search(encoder.encode(["a question", "another"]), 5)
    print("ready", flush=True)
    sys.stdin.readline()
    own = mapped(folder)
    print(own["Rss"], own["Pss"], flush=True)
    sys.stdin.readline()  # what is shared is so for as long as all are there


def measure(folder: Path, processes: int) -> tuple[float, float]:
    """Megabytes of all processes together: counted in each, and as they are."""
    running = [
        subprocess.Popen(  # noqa: S603  # this file
            [sys.executable, __file__, "--reader", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]

    def said() -> list[str]:
        return [process.stdout.readline() for process in running if process.stdout is not None]

    def go_on() -> None:
        for process in running:
            if process.stdin is not None:
                process.stdin.write("\n")
                process.stdin.flush()

    said()
    go_on()
    counts = [line.split() for line in said()]
    go_on()
    for process in running:
        process.communicate()
    return sum(int(rss) for rss, _ in counts) / 1e6, sum(int(pss) for _, pss in counts) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--folder", type=Path, help="where the knowledge base is made, and stays")
    parser.add_argument("--reader", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reader is not None:
        reader(args.reader)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        kb = folder / "kb"
        if not kb.exists():
            from ragweave import KnowledgeBase

            encoder: Any = GeneratedEncoder()
            write_passages(folder / "passages", range(args.passages))
            KnowledgeBase.build([folder / "passages"], kb, encoder=encoder, index="flat")
        say(f"vectors of {args.passages * GeneratedEncoder.dimension * 4 / 1e6:.0f} MB")
        for processes in args.processes:
            counted, shared = measure(kb, processes)
            for what, value in (("counted in each", counted), ("as it is", shared)):
                emit(
                    {
                        "benchmark": f"shared index, {processes} process{'es' * (processes > 1)}",
                        "what": what,
                        "median": value,
                        "unit": "MB",
                    }
                )


if __name__ == "__main__":
    main()

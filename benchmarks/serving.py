"""Questions a second of `ragweave serve`, and how long callers wait, at several numbers of callers at once.

    python benchmarks/serving.py [KB] [--size embedded] [--clients 1 8 32] [--questions 96] [--max-batch 8]
    python benchmarks/serving.py [KB] --clients 32 --soak 10
    python benchmarks/serving.py [KB] --clients 32 --zipf QUESTIONS.jsonl [--rounds 1]

KB is a knowledge base; the one of the World Factbook that `make demo` leaves, where left out. The peer is one caller
who asks the same questions one at a time. `--size tiny` takes a generator so small that the work between its steps is
what counts, and a knowledge base of its own. `--soak` asks on for so many minutes while documents are added to a copy
of the knowledge base and deleted from it, and watches lost requests, memory, descriptors and versions.
`--zipf` draws questions ("question" in every line) by Zipf's law, and compares a server whose passage cache has room
for a third of their passages with one that has none, by throughput and by the wait for the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import harness
import httpx
import numpy as np
import psutil
from harness import emit, machine, say

from ragweave import KnowledgeBase, RagPipeline

DOCS = Path(__file__).parents[1] / "docs"
MIB = 2**20
KEY = "a-key-for-changes"
KEPT = 20
"""How many of the documents that a soak adds are there at a time."""


@dataclass
class Asked:
    """What became of some questions.

    Attributes:
        seconds: How long each answer took.
        refused: How often a caller was told to come again (429), and did.
        failed: Requests with any other status, or without a response.
        first: How long the first token of each stream took, or the whole answer where it was not streamed.
    """

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    first: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kb", nargs="?", default=".cache/world-factbook/kb")
    parser.add_argument("--size", default="embedded", choices=("embedded", "tiny"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    parser.add_argument("--zipf", type=Path, metavar="QUESTIONS")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    if args.zipf is not None:
        lines = args.zipf.read_text(encoding="utf-8").splitlines()
        compare_caches(
            args.kb, [json.loads(line)["question"] for line in lines][:200], max(args.clients), args.rounds
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        kb, model = (args.kb, "embedded") if args.size == "embedded" else small(Path(folder))
        if args.soak is not None:
            kb = str(shutil.copytree(kb, Path(folder) / "changed"))
        questions = questions_of(KnowledgeBase.open(kb), args.questions)
        keys = Path(folder) / "keys.txt"
        keys.write_text(KEY)
        options = ["--max-batch", str(args.max_batch), "--deadline", "300", "--admin-key-file", str(keys)]
        with serving(kb, model, options) as (url, process):
            say(f"{machine()}; {args.size}; {len(questions)} questions, batches up to {args.max_batch}")
            asyncio.run(ask(url, questions[:4], clients=1))  # warm up
            compare(url, questions, args.clients)
            if args.soak is not None:
                clients = max(args.clients)
                asyncio.run(soak(url, Path(kb), questions, process, clients=clients, minutes=args.soak))


def compare(url: str, questions: list[str], clients: list[int]) -> None:
    """Ask the same questions by different numbers of callers; the first is what the others are compared with."""
    one_at_a_time = None
    for number in clients:
        began = time.perf_counter()
        asked = asyncio.run(ask(url, questions, clients=number))
        rate = len(asked.seconds) / (time.perf_counter() - began)
        one_at_a_time = one_at_a_time or rate
        ratio = rate / one_at_a_time
        name = f"{number} caller{'s' if number > 1 else ''}"
        emit(
            {
                "benchmark": "serving",
                "what": name,
                "median": rate,
                "unit": "questions/s",
                "ratio": ratio,
                "lowest": ratio,
                "highest": ratio,
            }
        )
        ordered = sorted(asked.seconds)
        for what, value in (("p50", statistics.median(ordered)), ("p99", ordered[int(0.99 * len(ordered))])):
            emit({"benchmark": "serving", "what": f"{name}, {what}", "median": value, "unit": "s"})
        emit({"benchmark": "serving", "what": f"{name}, lost", "median": asked.failed, "unit": "questions"})


def compare_caches(kb: str, questions: list[str], clients: int, rounds: int) -> None:
    """Ask a server with a passage cache and one without in turn, after a round that fills the cache."""
    source = np.random.default_rng(0)
    popularity = 1 / np.arange(1, len(questions) + 1)  # Zipf's law with exponent 1
    drawn = source.choice(len(questions), len(questions), p=popularity / popularity.sum())
    asked = [questions[number] for number in drawn.tolist()]
    budget = bytes_of_passages(kb, questions) // 3
    say(f"{machine()}; {len(questions)} questions, {clients} clients, cache of {budget / MIB:.0f} MiB")
    rates: dict[str, list[float]] = {"no cache": [], "passage cache": []}
    first: dict[str, list[float]] = {name: [] for name in rates}
    options = ["--max-batch", "8", "--deadline", "300", "--passage-cache"]
    with (
        serving(kb, "embedded", [*options, "0"]) as (without, _),
        serving(kb, "embedded", [*options, str(budget)]) as (with_cache, _),
    ):
        addresses = {"no cache": without, "passage cache": with_cache}
        for name, url in addresses.items():
            asyncio.run(ask(url, asked[: len(asked) if name == "passage cache" else 8], clients=clients))
        for _ in range(rounds):
            for name, url in addresses.items():
                began = time.perf_counter()
                got = asyncio.run(ask(url, asked, clients=clients, stream=True))
                rates[name].append((time.perf_counter() - began) / len(got.first))
                first[name].append(statistics.median(got.first))
                say(
                    f"{name}: {len(got.first) / (time.perf_counter() - began):.2f} questions/s, {got.failed} lost"
                )
    harness.compare("serving by Zipf's law, a question", rates, "no cache")
    harness.compare("serving by Zipf's law, p50 of the first token", first, "no cache")


def bytes_of_passages(kb: str, questions: list[str]) -> int:
    """How much the keys and values of all passages that the questions retrieve take in bfloat16."""
    pipeline = RagPipeline.from_pretrained("embedded", knowledge_base=kb, dtype="bfloat16", passage_cache=0)
    shape, retriever = pipeline.model.generator.config, pipeline.retriever
    found = pipeline.retrieve(questions, n_docs=5)
    rows = np.unique(found.rows)
    texts = [f"{passage.title} {passage.text}" for passage in pipeline.knowledge_base.passages(rows)]
    tokens = sum(len(ids) for ids in retriever.generator_tokenizer(texts)["input_ids"])
    head = shape.hidden_size // shape.num_attention_heads
    return tokens * 2 * shape.num_hidden_layers * shape.num_key_value_heads * head * 2


async def soak(
    url: str, kb: Path, questions: list[str], process: psutil.Process, *, clients: int, minutes: float
) -> None:
    """Ask and change documents for some minutes, and look at the server after each fiftieth of them."""
    end = time.monotonic() + minutes * 60
    watched: list[tuple[float, int, int]] = []

    def look() -> None:
        versions = sum(1 for _ in (kb / "versions").iterdir())
        watched.append((process.memory_info().rss / MIB, process.num_fds(), versions))
        say("{:.0f} MiB, {} descriptors, {} versions".format(*watched[-1]))

    async def watch() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(minutes * 60 / 50)
            look()

    asked, changed, _ = await asyncio.gather(
        ask(url, questions, clients=clients, until=end), change(url, questions, until=end), watch()
    )
    look()
    memory, descriptors, versions = zip(*watched, strict=True)
    for what, value, unit in (
        ("answered", len(asked.seconds), "questions"),
        ("refused", asked.refused + changed.refused, "requests"),
        ("failed", asked.failed + changed.failed, "requests"),
        ("changed", len(changed.seconds), "documents"),
        ("memory after the first tenth", memory[len(memory) // 10], "MiB"),
        ("memory in the middle", memory[len(memory) // 2], "MiB"),
        ("memory at the end", memory[-1], "MiB"),
        ("largest memory", max(memory), "MiB"),
        ("most descriptors", max(descriptors), "files"),
        ("most versions on disk", max(versions), "versions"),
        ("longest wait for an answer", max(asked.seconds), "s"),
    ):
        emit({"benchmark": f"soak, {minutes:g} min", "what": what, "median": value, "unit": unit})


async def send(client: httpx.AsyncClient, asked: Asked, method: str, path: str, **content: Any) -> None:
    """Send a request until it is not refused for now, and note what became of it."""
    began = time.perf_counter()
    first = None
    try:
        while True:
            async with client.stream(method, path, **content) as response:
                async for line in response.aiter_lines():
                    if line.startswith("event: error"):
                        raise httpx.HTTPError("the stream ended in an error")
                    if first is None and line.startswith("event: token"):
                        first = time.perf_counter() - began
            if response.status_code != 429:
                break
            asked.refused += 1
            await asyncio.sleep(float(response.headers["Retry-After"]))
        response.raise_for_status()
    except httpx.HTTPError as error:
        asked.failed += 1
        say(f"lost: {method} {path}: {error!r}")
    else:
        asked.seconds.append(time.perf_counter() - began)
        asked.first.append(asked.seconds[-1] if first is None else first)


async def change(url: str, texts: list[str], *, until: float) -> Asked:
    """Add a document a second, and delete the oldest where there are enough."""
    changed = Asked()
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=300, trust_env=False) as client:
        for number in count():
            if time.monotonic() >= until:
                return changed
            document = {"id": f"soak-{number}", "text": f"{texts[number % len(texts)]} {number}"}
            await send(client, changed, "POST", "/v1/documents", json={"documents": [document]})
            if number >= KEPT:
                await send(client, changed, "DELETE", f"/v1/documents/soak-{number - KEPT}")
            await asyncio.sleep(1)
    return changed


async def ask(
    url: str, questions: list[str], *, clients: int, until: float | None = None, stream: bool = False
) -> Asked:
    """Ask each question once; with ``until``, all of them again and again until then."""
    asked, number = Asked(), 0
    limits = httpx.Limits(max_connections=clients)

    async def caller(client: httpx.AsyncClient) -> None:
        nonlocal number
        while (number < len(questions)) if until is None else (time.monotonic() < until):
            body = {"question": questions[number % len(questions)], "stream": stream}
            number += 1
            await send(client, asked, "POST", "/v1/answers", json=body)

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=300, trust_env=False) as client:
        await asyncio.gather(*(caller(client) for _ in range(clients)))
    return asked


def questions_of(base: KnowledgeBase, count: int) -> list[str]:
    """Questions about passages spread over a knowledge base, no two alike."""
    step = max(1, len(base) // count)
    passages = [base.passage(row * step % len(base)) for row in range(count)]
    return [
        f"What is said in part {number} of {passage.title[:60]} about {' '.join(passage.text.split()[:5])}?"
        for number, passage in enumerate(passages)
    ]


def small(folder: Path) -> tuple[str, str]:
    """A knowledge base of two pages, and a model whose generator is small and random."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from ragweave import RagConfig, RagTokenForGeneration, RagTokenizer, TextEncoder
    from ragweave.pipeline import embedded

    encoder = TextEncoder.from_pretrained(embedded.NAME)
    tokenizer = AutoTokenizer.from_pretrained(embedded.generator_path())
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    generator = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, **ends))
    config = RagConfig.from_question_encoder_generator_configs(
        encoder.model.config, generator.config, **embedded.CONTEXT_FIELDS
    )
    RagTokenForGeneration(config, encoder.model, generator).save_pretrained(folder / "model")
    RagTokenizer(encoder.tokenizer, tokenizer).save_pretrained(folder / "model")
    pages = [DOCS / "retrieval.md", DOCS / "knowledge-base.md"]
    return str(KnowledgeBase.build(pages, folder / "kb", encoder=encoder).path), str(folder / "model")


@contextmanager
def serving(kb: str, model: str, options: list[str]) -> Iterator[tuple[str, psutil.Process]]:
    """The command, in a process of its own; its address."""
    command = [sys.executable, "-m", "ragweave", "serve", "--kb", kb, "--model", model, "--port", "0"]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            lines = []
            for line in process.stderr or ():
                lines.append(line)
                if address := re.search(r"http://\S+", line):
                    yield address[0], psutil.Process(process.pid)
                    return
            raise SystemExit("".join(lines))
        finally:
            process.terminate()


if __name__ == "__main__":
    main()

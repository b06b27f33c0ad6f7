"""Questions a second of `ragweave serve`, and how long callers wait, at several numbers of callers at once.

    python benchmarks/serving.py [KB] [--size embedded] [--clients 1 8 32] [--questions 96] [--max-batch 8]
    python benchmarks/serving.py [KB] --clients 32 --soak 10

KB is a knowledge base; the one of the World Factbook that `make demo` leaves, where left out. The peer is one caller
who asks the same questions one at a time. `--size tiny` takes a generator so small that the work between its steps is
what counts, and a knowledge base of its own. `--soak` asks on for so many minutes, and watches errors and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from harness import emit, machine, say

from ragweave import KnowledgeBase

DOCS = Path(__file__).parents[1] / "docs"
MIB = 2**20


@dataclass
class Asked:
    """What became of some questions.

    Attributes:
        seconds: How long each answer took.
        refused: How often a caller was told to come again (429), and did.
        failed: Questions that were not answered.
    """

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0


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
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kb, model = (args.kb, "embedded") if args.size == "embedded" else small(Path(folder))
        questions = questions_of(KnowledgeBase.open(kb), args.questions)
        with serving(kb, model, args.max_batch) as (url, process):
            say(f"{machine()}; {args.size}; {len(questions)} questions, batches up to {args.max_batch}")
            asyncio.run(ask(url, questions[:4], clients=1))  # warm up
            compare(url, questions, args.clients)
            if args.soak is not None:
                soak(url, questions, process, clients=max(args.clients), minutes=args.soak)


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


def soak(url: str, questions: list[str], process: psutil.Process, *, clients: int, minutes: float) -> None:
    """Ask for some minutes; the memory of the server is looked at after each tenth of them."""
    memory, total, end = [], Asked(), time.monotonic() + minutes * 60
    while time.monotonic() < end:
        tenth = min(end, time.monotonic() + minutes * 6)
        asked = asyncio.run(ask(url, questions, clients=clients, until=tenth))
        total.seconds += asked.seconds
        total.refused += asked.refused
        total.failed += asked.failed
        memory.append(process.memory_info().rss / MIB)
        say(f"{len(total.seconds)} answered, {total.failed} failed, {memory[-1]:.0f} MiB")
    for what, value, unit in (
        ("answered", len(total.seconds), "questions"),
        ("failed", total.failed, "questions"),
        ("memory after the first tenth", memory[0], "MiB"),
        ("memory at the end", memory[-1], "MiB"),
        ("largest memory", max(memory), "MiB"),
    ):
        emit({"benchmark": f"soak, {minutes:g} min", "what": what, "median": value, "unit": unit})


async def ask(url: str, questions: list[str], *, clients: int, until: float | None = None) -> Asked:
    """Ask each question once; with ``until``, all of them again and again until then."""
    asked, number = Asked(), 0
    limits = httpx.Limits(max_connections=clients)

    async def caller(client: httpx.AsyncClient) -> None:
        nonlocal number
        while (number < len(questions)) if until is None else (time.monotonic() < until):
            body = {"question": questions[number % len(questions)]}
            number += 1
            began = time.perf_counter()
            while (response := await client.post("/v1/answers", json=body)).status_code == 429:
                asked.refused += 1
                await asyncio.sleep(float(response.headers["Retry-After"]))
            if response.status_code == 200:
                asked.seconds.append(time.perf_counter() - began)
            else:
                asked.failed += 1

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
def serving(kb: str, model: str, max_batch: int) -> Iterator[tuple[str, psutil.Process]]:
    """The command, in a process of its own; its address."""
    command = [sys.executable, "-m", "ragweave", "serve", "--kb", kb, "--model", model, "--port", "0"]
    options = ["--max-batch", str(max_batch), "--deadline", "300"]
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

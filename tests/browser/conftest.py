"""A browser, and a server over a knowledge base with a hostile document."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragweave import KnowledgeBase, RagPipeline
from ragweave.serving.settings import Limits, ServingSettings
from tests.support.browsing import chromium, missing
from tests.support.encoders import load_tiny_encoder
from tests.support.pipelines import save_rag_model
from tests.support.serving import Running, served

HOSTILE = (
    "<script>document.title = 'taken'</script> <img src=x onerror=\"document.title = 'taken'\"> "
    "</li></ol><b>bold</b> &lt;i&gt; of ulm. 🦙🦙 The llama lives in Peru."
)


class Paced(RagPipeline):
    """A pipeline whose tokens wait for a semaphore, if a test sets one."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.tokens: threading.Semaphore | None = None

    def stream(self, questions, **options):
        def processor(ids, scores):
            if self.tokens is not None:
                assert self.tokens.acquire(timeout=200)
            return scores

        return super().stream(questions, logits_processor=[processor], **options)


@pytest.fixture(scope="package")  # and no longer: an idle browser keeps a processor busy
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    return save_rag_model(tmp_path_factory.mktemp("page-model"), tiny_encoder_path, "token", "llama")


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path, model_path: Path) -> Paced:
    folder = tmp_path_factory.mktemp("page")
    sources = folder / "documents"
    sources.mkdir()
    (sources / "peru.txt").write_text("Lima is the capital of Peru. The Andes run through it.")
    hostile = {"id": "hostile", "title": "<script>alert(1)</script>", "text": HOSTILE}
    (sources / "hostile.jsonl").write_text(json.dumps(hostile))
    base = KnowledgeBase.build([sources], folder / "kb", encoder=load_tiny_encoder(tiny_encoder_path))
    plain = RagPipeline.from_pretrained(model_path, knowledge_base=base, dtype="float32")
    return Paced(plain.model, plain.retriever, plain.encoder, extractive=True)


@pytest.fixture(scope="session")
def server(pipeline: Paced) -> Iterator[Running]:
    with served(pipeline, ServingSettings(limits=Limits(n_docs=5))) as running:
        yield running

"""A tiny pipeline, and servers for it: a shared one, and one whose documents a test may change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ragweave import RagPipeline
from ragweave.serving.settings import KeyRing, ServingSettings
from tests.support.pipelines import build_knowledge_base, save_rag_model
from tests.support.serving import ADMIN_KEY, Running, served

WITH_ADMIN_KEY = ServingSettings(admin_keys=KeyRing([ADMIN_KEY]), refresh_seconds=0)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    return save_rag_model(tmp_path_factory.mktemp("served-model"), tiny_encoder_path, "token", "llama")


@pytest.fixture(scope="session")
def base_path(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    return build_knowledge_base(tmp_path_factory.mktemp("served-base"), tiny_encoder_path)


@pytest.fixture(scope="session")
def pipeline(model_path: Path, base_path: Path) -> RagPipeline:
    return RagPipeline.from_pretrained(model_path, knowledge_base=base_path, dtype="float32")


@pytest.fixture
def own_pipeline(model_path: Path, tmp_path: Path, tiny_encoder_path: Path) -> RagPipeline:
    """A pipeline whose knowledge base a test may change."""
    base = build_knowledge_base(tmp_path, tiny_encoder_path)
    return RagPipeline.from_pretrained(model_path, knowledge_base=base, dtype="float32")


@pytest.fixture(scope="session")
def server(pipeline: RagPipeline) -> Iterator[Running]:
    """A server without keys; tests do not change its documents."""
    with served(pipeline) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def own_server(own_pipeline: RagPipeline) -> Iterator[Running]:
    """A server whose documents a test may change with the admin key."""
    with served(own_pipeline, WITH_ADMIN_KEY) as running:
        yield running


@pytest.fixture(scope="session")
def refused_admin(pipeline: RagPipeline) -> Iterator[httpx.Client]:
    """A client with the admin key, for changes that the server refuses."""
    with served(pipeline, WITH_ADMIN_KEY) as running, running.client(ADMIN_KEY) as client:
        yield client

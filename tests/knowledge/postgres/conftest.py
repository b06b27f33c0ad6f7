"""Knowledge bases in PostgreSQL."""

from __future__ import annotations

import pytest

from ragweave import KnowledgeBase


@pytest.fixture
def uri(postgres) -> str:
    """The URI of a knowledge base that does not exist yet."""
    return postgres.uri()


@pytest.fixture
def kb(uri, notes, tiny_encoder) -> KnowledgeBase:
    """The notes in PostgreSQL."""
    return KnowledgeBase.build([notes], uri, encoder=tiny_encoder)

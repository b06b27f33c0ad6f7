"""A knowledge base of three passages, which the tests of training share."""

from __future__ import annotations

import pytest

from tests.support.pipelines import build_knowledge_base


@pytest.fixture(scope="session")
def kb(tmp_path_factory, tiny_encoder_path):
    return build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)

"""Embedding the passages of a knowledge base with another encoder, interrupted or not."""

from __future__ import annotations

import numpy as np
import pytest

from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import ConfigurationError, KnowledgeBaseError
from ragweave.knowledge.base import KnowledgeBase
from tests.support.encoders import save_tiny_encoder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return TextEncoder.from_pretrained(save_tiny_encoder(tmp_path_factory.mktemp("other"), seed=7))


@pytest.fixture
def kb(tmp_path, tiny_encoder):
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("peru", "ulm", "danube"):
        (notes / f"{name}.txt").write_text(f"The {name} is a river of the capital.")
    base = KnowledgeBase.build([notes], tmp_path / "kb", encoder=tiny_encoder)
    (notes / "lima.txt").write_text("Lima is the capital of peru.")
    return base.add([notes], encoder=tiny_encoder).delete(ids=["ulm.txt"])


def test_result_equals_a_build_with_the_other_encoder(kb, other, tmp_path):
    written = kb.reembed(tmp_path / "new", encoder=other)
    assert written.version == "000001"
    assert written.manifest.change.kind == "reembed"
    assert len(written.manifest.segments) == 1
    before = {passage.id: passage for passage in (kb.passage(row) for row in range(kb.manifest.rows))}
    del before["ulm.txt#0"]
    passages = written.passages(range(len(written)))
    assert {passage.id: passage for passage in passages} == before
    titles = [passage.title for passage in passages]
    expected = other.encode([passage.text for passage in passages], titles=titles)
    np.testing.assert_allclose(written.vectors_of(range(3)), expected, atol=1e-6)
    assert kb.latest().version == kb.version
    compacted = kb.compact()  # until then the words of deleted passages count
    scores = [base.text_scorer(k1=1.2, b=0.75)("capital of peru") for base in (written, compacted)]
    np.testing.assert_allclose(*(score.of(np.arange(3)) for score in scores), atol=1e-6)
    assert written.add([tmp_path / "notes" / "lima.txt"], encoder=other).version == "000001"


def test_an_existing_knowledge_base_gets_a_version_and_old_ones_are_deleted(
    kb, other, tiny_encoder, tmp_path
):
    first = kb.reembed(tmp_path / "new", encoder=other)
    second = kb.reembed(tmp_path / "new", encoder=tiny_encoder)
    third = first.reembed(tmp_path / "new", encoder=other, keep=1)
    assert third.version_names() == ["000002", "000003"]
    assert first.passage(0).text == second.passage(0).text  # an open version stays readable
    np.testing.assert_array_equal(third.vectors_of([0, 1, 2]), first.vectors_of([0, 1, 2]))
    with pytest.raises(KnowledgeBaseError):
        first.check_encoder(tiny_encoder)
    KnowledgeBase.open(tmp_path / "new", encoder=other)


class Stops:
    """An engine that records its passages, and may fail after the first shard."""

    def __init__(self, *, fails):
        self.fails, self.seen = fails, []

    def embed(self, shards, encoder, progress):
        for passages in shards:
            self.seen += [passage.id for passage in passages]
            titles = [passage.title for passage in passages]
            yield encoder.encode([passage.text for passage in passages], titles=titles)
            if self.fails:
                raise KnowledgeBaseError("no more")


def test_an_interrupted_run_resumes(kb, other, tmp_path, monkeypatch):
    monkeypatch.setattr("ragweave.knowledge.store.SHARD", 2)
    with pytest.raises(KnowledgeBaseError, match="no more"):
        kb.reembed(tmp_path / "new", encoder=other, engine=Stops(fails=True))
    assert not (tmp_path / "new").exists()
    engine = Stops(fails=False)
    resumed = kb.reembed(tmp_path / "new", encoder=other, engine=engine, resume=True)
    assert len(engine.seen) < len(resumed)
    whole = kb.reembed(tmp_path / "whole", encoder=other)
    np.testing.assert_allclose(resumed.vectors_of([0, 1, 2]), whole.vectors_of([0, 1, 2]), atol=1e-6)


def test_resuming_with_another_encoder_is_refused(kb, other, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("ragweave.knowledge.store.SHARD", 2)
    with pytest.raises(KnowledgeBaseError, match="no more"):
        kb.reembed(tmp_path / "new", encoder=other, engine=Stops(fails=True))
    with pytest.raises(KnowledgeBaseError, match="without --resume"):
        kb.reembed(tmp_path / "new", encoder=tiny_encoder, resume=True)


def test_mistakes(kb, other, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(KnowledgeBaseError, match="is a file"):
        kb.reembed(tmp_path / "file", encoder=other)
    with pytest.raises(ConfigurationError, match="is a database"):
        kb.reembed("postgresql://nobody@localhost/none", encoder=other)
    with pytest.raises(ConfigurationError, match="0 or more"):
        kb.reembed(tmp_path / "new", encoder=other, keep=-1)
    with pytest.raises(KnowledgeBaseError, match="is empty"):
        kb.delete(sources=["**"]).reembed(tmp_path / "new", encoder=other)

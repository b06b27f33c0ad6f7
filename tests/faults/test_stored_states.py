"""ragweave warm killed at every step, and on a full disk: what is stored is whole, and the rest comes next time."""

from __future__ import annotations

import errno
import os
import time
import warnings
from pathlib import Path

import pytest

from ragweave import KnowledgeBase, RagPipeline
from ragweave.errors import KnowledgeBaseError
from ragweave.pipeline import warming
from ragweave.pipeline.warming import Warmer
from tests.faults.test_every_write import Faults, PowerCutError
from tests.faults.test_kill import write_in_process
from tests.support.pipelines import build_knowledge_base, save_rag_model


@pytest.fixture
def warmer(tmp_path: Path, tiny_encoder_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warmer:
    monkeypatch.setattr(warming, "_GROUP_SIZE", 1)
    kb = build_knowledge_base(tmp_path, tiny_encoder_path)
    model = save_rag_model(tmp_path / "model", tiny_encoder_path, "token", "llama")
    return Warmer(RagPipeline.from_pretrained(model, knowledge_base=kb, dtype="float32"))


def finish(warmer: Warmer) -> int:
    """Check what is stored, store the rest, and delete it again; returns how many passages were stored."""
    KnowledgeBase.open(warmer._snapshot.path).verify()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a damaged file
        plan = Warmer(warmer._pipeline).plan()
        warmer.run(plan, lambda _: None)
        assert Warmer(warmer._pipeline).plan().stored == 3
    for path in warmer.store.folder.glob("*.safetensors"):
        path.unlink()
    return plan.stored


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_step(warmer: Warmer) -> None:
    root = warmer.store.folder.parent
    plan = warmer.plan()
    killed, steps = write_in_process(lambda: warmer.run(plan, lambda _: None), root)
    assert not killed and steps >= 2 * 3
    assert finish(warmer) == 3
    stored = set()
    for at in range(1, steps - 1):  # two steps made the folders
        killed, _ = write_in_process(lambda: warmer.run(plan, lambda _: None), root, at)
        assert killed
        stored.add(finish(warmer))
    assert stored >= {0, 1, 2}
    left = list(root.glob("*/.*"))
    assert left  # the beginnings of files, which nobody reads
    for path in left:
        os.utime(path, (time.time() - 10_000,) * 2)
    KnowledgeBase.open(root.parent).compact()
    assert not list(root.glob("*/*"))


@pytest.mark.parametrize("for_good", [False, True], ids=["full disk", "power cut"])
def test_a_fault_at_every_write(warmer: Warmer, monkeypatch: pytest.MonkeyPatch, for_good: bool) -> None:
    plan = warmer.plan()
    finish(warmer)
    for at in range(1, 100):
        with monkeypatch.context() as patch:
            faults = Faults(patch, at, for_good=for_good)
            try:
                warmer.run(plan, lambda _: None)
            except PowerCutError:
                assert for_good
            except KnowledgeBaseError as error:
                assert os.strerror(errno.ENOSPC) in str(error)
        if faults.calls < at:
            break
        finish(warmer)
    assert at > 6

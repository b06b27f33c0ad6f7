"""Passages that were read ahead: the same answers, from files that are checked, dropped when stale, and whole."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ragweave import KnowledgeBase, RagPipeline
from ragweave.cli import app
from ragweave.errors import ConfigurationError, KnowledgeBaseError, StoredStatesWarning
from ragweave.pipeline import warming
from ragweave.pipeline.warming import Warmer
from tests.support.pipelines import build_knowledge_base, save_rag_model

QUESTIONS = ["Where is Lima?", "What is the capital of Kenya, and what is its coast?", "Is Chile long?"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path) -> Path:
    folder = tmp_path_factory.mktemp("warm")
    build_knowledge_base(folder, tiny_encoder_path)
    for kind in ("llama", "gpt2", "bart"):
        save_rag_model(folder / kind, tiny_encoder_path, "token", kind)
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """The knowledge base, to be changed, and the models."""
    shutil.copytree(built, tmp_path / "copy")
    return tmp_path / "copy"


def load(folder: Path, kind: str = "llama", size: int | str = "1GiB", dtype: str = "float32") -> RagPipeline:
    options: Any = {"dtype": dtype, "passage_cache": size}
    return RagPipeline.from_pretrained(folder / kind, knowledge_base=folder / "kb", **options)


def warm(pipeline: RagPipeline, dtype: str | None = None, **choice: Any) -> int:
    """Store passages; returns how many were read."""
    warmer = Warmer(pipeline, dtype)
    plan = warmer.plan(**choice)
    steps: list[int] = []
    warmer.run(plan, steps.append)
    assert sum(steps) == len(plan.passages)
    return len(plan.passages)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "kb" / "states").glob("*/*"))


def answers(pipeline: RagPipeline) -> list[tuple[str, float]]:
    return [(answer.answer, answer.score) for answer in pipeline(QUESTIONS, n_docs=3, max_new_tokens=6)]


def check_same(actual: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [text for text, _ in actual] == [text for text, _ in expected]
    assert [score for _, score in actual] == pytest.approx([score for _, score in expected], abs=1e-4)


def test_stored_passages_give_the_same_answers_and_are_not_read(folder: Path) -> None:
    for kind in ("llama", "gpt2"):
        expected = answers(load(folder, kind, 0))
        assert warm(load(folder, kind)) == len(files(folder)) == 3  # gpt2's take the place of llama's
        assert all(path.stat().st_size < 2**16 for path in files(folder))
        pipeline = load(folder, kind)
        check_same(answers(pipeline), expected)
        cache = pipeline.passage_cache
        assert cache is not None
        assert (cache.hits, cache.misses, cache.bytes) == (3, 0, 0)  # mapped, and not copied into memory


def test_a_pipeline_that_is_open_finds_what_is_stored_later(folder: Path) -> None:
    pipeline = load(folder)
    warm(load(folder))
    answers(pipeline)
    assert pipeline.passage_cache is not None
    assert (pipeline.passage_cache.hits, pipeline.passage_cache.misses) == (3, 0)


def test_bfloat16_is_half_as_large_and_close(folder: Path) -> None:
    expected = answers(load(folder, size=0))
    warm(load(folder), "float32")
    large = sum(path.stat().st_size for path in files(folder))
    assert warm(load(folder), "bfloat16") == 3  # replaces what is stored otherwise
    assert sum(path.stat().st_size for path in files(folder)) < 0.7 * large
    pipeline = load(folder)
    scores = [score for _, score in answers(pipeline)]
    assert scores == pytest.approx([score for _, score in expected], abs=0.5)
    assert pipeline.passage_cache is not None
    assert pipeline.passage_cache.misses == 0
    assert pipeline.passage_cache.bytes > 0  # converted to what the generator computes in


def test_an_interrupted_run_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "_GROUP_SIZE", 1)
    warmer = Warmer(load(folder))

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warmer.run(warmer.plan(), interrupt)
    assert len(files(folder)) == 1
    plan = Warmer(load(folder)).plan()
    assert (len(plan.passages), plan.stored) == (2, 1)
    assert warm(load(folder)) == 2
    assert warm(load(folder)) == 0


def test_budget_and_top_choose_passages(folder: Path) -> None:
    warmer = Warmer(load(folder))
    whole = warmer.plan()
    assert len(whole.passages) == 3
    less = warmer.plan(budget=whole.bytes - 1)
    assert (len(less.passages), less.over_budget) == (2, 1)
    assert less.bytes <= whole.bytes - 1
    assert len(warmer.plan(top=1).passages) == 1
    warmer.run(whole, lambda _: None)
    assert sum(path.stat().st_size for path in files(folder)) <= whole.bytes
    assert warmer.plan(budget=0).over_budget == 3


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def other_shape(path: Path) -> None:
    save_file({"states": load_file(path)["states"][:, :, :, :-1].contiguous()}, path)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a bit": flip,
    "the end": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "the header": lambda path: path.write_bytes(b"\xff" * 100),
    "nothing left": lambda path: path.write_bytes(b""),
    "other shape": other_shape,
    "other type": lambda path: save_file({"states": torch.zeros(3, dtype=torch.int8)}, path),
    "other content": lambda path: save_file({"other": torch.zeros(3)}, path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_said_and_replaced(folder: Path, damage: str) -> None:
    expected = answers(load(folder, size=0))
    warm(load(folder))
    for path in files(folder):
        DAMAGE[damage](path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline = load(folder)  # files are opened when they are used
    with pytest.warns(StoredStatesWarning, match="ragweave warm"):
        check_same(answers(pipeline), expected)
    with pytest.warns(StoredStatesWarning):
        assert warm(load(folder)) == 3
    pipeline = load(folder)
    check_same(answers(pipeline), expected)
    assert pipeline.passage_cache is not None and pipeline.passage_cache.misses == 0


def test_other_weights_do_not_use_them(folder: Path) -> None:
    warm(load(folder))
    changed, used = load(folder), load(folder)
    answers(used)
    with torch.no_grad():
        for pipeline in (changed, used):  # before and after the first question
            for weight in pipeline.model.generator.parameters():
                weight.add_(torch.linspace(-0.3, 0.3, weight.numel()).view_as(weight))
    fresh = answers(changed)
    assert changed.passage_cache is not None and changed.passage_cache.hits == 0
    check_same(answers(used), fresh)
    changed.model.save_pretrained(folder / "changed")
    for path in (folder / "llama").iterdir():  # the tokenizers
        if not (folder / "changed" / path.name).exists():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / "changed" / path.name)
    trained = load(folder, "changed")
    check_same(answers(trained), fresh)
    assert trained.passage_cache is not None and trained.passage_cache.hits == 0
    half = load(folder, dtype="bfloat16")
    answers(half)
    assert half.passage_cache is not None and half.passage_cache.hits == 0


def test_deleted_passages_are_dropped(folder: Path) -> None:
    warm(load(folder))
    base = KnowledgeBase.open(folder / "kb")
    assert base.info()["stored_passages"] == 3
    assert base.info()["stored_bytes"] == sum(path.stat().st_size for path in files(folder))
    base = base.delete(ids=["peru.txt"])
    assert base.info()["stored_passages"] == len(files(folder)) == 2
    flip_header = files(folder)[0]
    flip_header.write_bytes(b"no header")
    base = base.compact(keep=0)
    assert base.info()["stored_passages"] == 1
    base.verify()
    shutil.rmtree(folder / "kb" / "states")
    answers(load(folder))  # whole without them
    assert "stored_passages" not in base.info()


def test_generators_that_read_otherwise_are_refused(folder: Path) -> None:
    warm(load(folder))
    for kind, dtype in (("bart", "float32"), ("llama", "int8")):
        with pytest.raises(ConfigurationError, match="cannot be stored"):
            Warmer(load(folder, kind, dtype=dtype))
        answers(load(folder, kind, dtype=dtype))
    with pytest.raises(ConfigurationError, match="bfloat16, float32"):
        Warmer(load(folder), "int8")


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(KnowledgeBaseError, match="has 10 left"):
        warm(load(folder))
    assert files(folder) == []


def test_the_command(folder: Path) -> None:
    kb, model = str(folder / "kb"), str(folder / "llama")
    run = CliRunner().invoke(app, ["warm", kb, "--model", model])
    assert run.exit_code == 1
    assert "--top N or --all" in run.stderr
    options = ["warm", kb, "--model", model, "--generator-dtype", "float32"]
    run = CliRunner().invoke(app, [*options, "--all", "--budget", "1MiB"])
    assert run.exit_code == 0, run.stderr
    assert "3 passages to read, at most" in run.stderr
    assert "3 passages stored, 0 stored before, 0 dropped" in run.stdout
    run = CliRunner().invoke(app, [*options, "--top", "2", "--json"])
    assert json.loads(run.stdout)["stored_before"] == 2
    run = CliRunner().invoke(app, ["info", kb])
    assert "stored_passages" in run.stdout

"""Embedding on a real Ray cluster, which the tests start: same output as local, even if a worker is killed."""

from __future__ import annotations

import builtins
import contextlib
import os
import sys
import time

import numpy as np
import psutil
import pytest

from ragweave import KnowledgeBase
from ragweave.errors import ConfigurationError, KnowledgeBaseError, MissingExtraError
from ragweave.knowledge import store
from ragweave.knowledge.ingest import ray_engine
from ragweave.knowledge.ingest.ray_engine import RayEngine
from ragweave.types import NoProgress, Passage
from tests.support.waiting import PATIENCE


@pytest.fixture(scope="module")
def cluster():
    """A cluster on this machine that the tests share, as starting one takes seconds."""
    import ray

    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    # By default, its workers would wait for all other tests.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray writes it like this
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.fixture
def notes(tmp_path):
    lines = [f"{n},The river {n} is in peru. It is {n} km long." for n in range(200)]
    (tmp_path / "rivers.csv").write_text("title,text\n" + "\n".join(lines) + "\n")
    return tmp_path / "rivers.csv"


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(store, "SHARD", 100)
    monkeypatch.setattr(ray_engine, "_BATCH", 10)


def assert_same(one, other):
    segment = ("segments", "000001")
    passages = [base.path.joinpath(*segment, "passages.arrow").read_bytes() for base in (one, other)]
    assert passages[0] == passages[1]
    rows = range(len(one))
    assert one.vectors_of(rows) == pytest.approx(other.vectors_of(rows), abs=1e-5)


class Killer(NoProgress):
    """Kills a worker as soon as some passages are embedded."""

    def __init__(self) -> None:
        self.killed = []
        self._stage = ""

    def start(self, stage, total):
        self._stage = stage

    def advance(self, steps):
        if self._stage == "Embedding" and not self.killed:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "MapWorker" in " ".join([*process.cmdline(), process.name()]):
                        process.kill()
                        self.killed.append(process)
                        return


@pytest.mark.parametrize("kills", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_output_is_that_of_the_local_build_though_a_worker_is_killed(
    cluster, tmp_path, notes, tiny_encoder, small_shards, monkeypatch, kills
):
    if not kills:
        monkeypatch.setattr(store, "SHARD", 1000)  # each shard starts workers, and each worker imports torch
    local = KnowledgeBase.build([notes], tmp_path / "local", encoder=tiny_encoder)
    progress, original_print = Killer() if kills else NoProgress(), builtins.print
    far = KnowledgeBase.build(
        [notes],
        tmp_path / "far",
        encoder=tiny_encoder,
        engine=RayEngine(workers=1 + kills),
        progress=progress,
    )
    assert builtins.print is original_print
    if kills:
        assert len(progress.killed) == 1
        assert psutil.wait_procs(progress.killed, timeout=PATIENCE)[0] == progress.killed
    assert_same(local, far)
    assert cluster.is_initialized()  # it ran before


class StopError(Exception):
    pass


class Stop(NoProgress):
    def __init__(self) -> None:
        self.done = 0

    def advance(self, steps):
        self.done += steps
        if self.done > 150:
            raise StopError


@pytest.mark.slow
def test_an_interrupted_build_resumes(cluster, tmp_path, notes, tiny_encoder, small_shards):
    engine = RayEngine(workers=1)
    with pytest.raises(StopError):
        KnowledgeBase.build([notes], tmp_path / "far", encoder=tiny_encoder, engine=engine, progress=Stop())
    counted = []

    class Count(NoProgress):
        def start(self, stage, total):
            counted.append([stage, 0])

        def advance(self, steps):
            counted[-1][1] += steps

    far = KnowledgeBase.build(
        [notes], tmp_path / "far", encoder=tiny_encoder, engine=engine, resume=True, progress=Count()
    )
    assert ["Embedding", 200] in counted
    assert_same(KnowledgeBase.build([notes], tmp_path / "local", encoder=tiny_encoder), far)


class Meeting:
    """Encodes when two processes have begun to; a process that is given both batches would wait for itself."""

    def __init__(self, folder):
        self.folder = folder

    def encode(self, texts, titles):
        (self.folder / str(os.getpid())).touch()
        end = time.monotonic() + PATIENCE
        while len(list(self.folder.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        return np.full((len(texts), 1), len(list(self.folder.iterdir())), dtype=np.float32)


@pytest.mark.slow  # two workers import torch
def test_two_batches_go_to_two_workers(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "_BATCH", 2)
    cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find the tests
    passages = [Passage(str(n), str(n), "A", "A text.", "a.txt") for n in range(4)]
    (vectors,) = RayEngine(workers=2).embed([passages], Meeting(tmp_path), NoProgress())
    assert vectors.tolist() == [[2.0]] * 4


def test_errors_of_workers_are_reported(cluster):
    class Broken:
        def __reduce__(self):
            return (RuntimeError, ("the weights are gone",))

    passages = [Passage("a", "a", "A", "A text.", "a.txt")]
    with pytest.raises(KnowledgeBaseError, match="The Ray cluster could not embed the passages"):
        list(RayEngine(workers=1).embed([passages], Broken(), NoProgress()))


def test_nothing_answers_at_the_address(tmp_path, notes, tiny_encoder):
    import ray

    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(KnowledgeBaseError, match=r"no Ray cluster at 127\.0\.0\.1:9 .*ray start --head"):
        KnowledgeBase.build(
            [notes], tmp_path / "kb", encoder=tiny_encoder, engine=RayEngine(address="127.0.0.1:9")
        )
    assert not (tmp_path / "kb").exists()
    with pytest.raises(ConfigurationError, match="not the address of a Ray cluster"):
        list(RayEngine(address="here:there").embed([[]], tiny_encoder, NoProgress()))


@pytest.mark.slow
def test_a_cluster_that_the_engine_started_is_stopped(tmp_path, notes, tiny_encoder, small_shards):
    import ray

    far = KnowledgeBase.build([notes], tmp_path / "far", encoder=tiny_encoder, engine=RayEngine(workers=1))
    assert not ray.is_initialized()
    assert len(far) == 200


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("ragweave.errors.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ragweave\[ray\]'"):
        RayEngine()


def test_numbers_out_of_range():
    with pytest.raises(ConfigurationError, match="choose 1 or more"):
        RayEngine(workers=0)

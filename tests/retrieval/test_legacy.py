"""The paper's own index: real FAISS, and pickles from which nothing is ever executed."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragweave import RagConfig
from ragweave.errors import IndexDataError
from ragweave.retrieval.legacy import INDEX_FILE, META_FILE, PASSAGES_FILE, LegacyIndex
from ragweave.retrieval.protocol import Index
from ragweave.retrieval.retriever import build_index
from ragweave.retrieval.unpickling import load_plain_data

D = 8
N = 200


def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)


def save_legacy(folder: Path, protocol: int = 4) -> Path:
    """The three files: vectors with the extra dimension that makes inner products Euclidean distances."""
    own = vectors()
    norms = (own**2).sum(1)
    extra = np.sqrt(norms.max() - norms)[:, None]
    index = faiss.index_factory(D + 1, "HNSW32_SQ8")
    index.train(np.hstack([own, extra]))
    index.add(np.hstack([own, extra]))
    faiss.write_index(index, str(folder / INDEX_FILE))
    ids = [str(1000 + row) for row in range(N)]
    (folder / META_FILE).write_bytes(pickle.dumps(ids, protocol=protocol))
    passages = {name: (f"text {name}", f"title {name}") for name in ids}
    (folder / PASSAGES_FILE).write_bytes(pickle.dumps(passages, protocol=protocol))
    return folder


@pytest.mark.parametrize("protocol", range(6))
def test_finds_passages_by_inner_product(tmp_path: Path, protocol: int) -> None:
    folder = save_legacy(tmp_path, protocol)
    index = build_index(RagConfig(index_name="legacy", index_path=str(folder), retrieval_vector_size=D))
    assert isinstance(index, Index)
    index.init_index()
    asked = vectors()[:5] * 3
    ids, found = index.get_top_docs(asked, 4)
    exact = np.argsort(-(asked @ vectors().T), axis=1)[:, 0]
    assert (ids[:, 0] == 1000 + exact).mean() >= 0.8  # 8-bit vectors and a graph: nearly always the best
    assert found == pytest.approx(vectors()[ids - 1000], abs=0.05)
    docs = index.get_doc_dicts(ids)
    assert docs[0]["title"] == [f"title {name}" for name in ids[0]]
    assert docs[0]["text"] == [f"text {name}" for name in ids[0]]


def test_passages_that_are_not_there(tmp_path: Path) -> None:
    index = LegacyIndex(D, str(save_legacy(tmp_path)))
    index.init_index()
    ids, found = index.get_top_docs(vectors()[:1], N + 3)
    assert (ids[0, -3:] == -1).all()
    assert not found[0, -3:].any()
    assert index.get_doc_dicts(ids)[0]["text"][-1] == ""


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    folder = save_legacy(tmp_path)
    with pytest.raises(IndexDataError, match="dimension 12"):
        LegacyIndex(11, str(folder)).init_index()
    (folder / META_FILE).write_bytes(pickle.dumps(["1", "2"]))
    with pytest.raises(IndexDataError, match="2 ids"):
        LegacyIndex(D, str(folder)).init_index()
    (folder / INDEX_FILE).write_bytes((folder / INDEX_FILE).read_bytes()[:100])
    with pytest.raises(IndexDataError, match="no FAISS index"):
        LegacyIndex(D, str(folder)).init_index()
    (folder / PASSAGES_FILE).unlink()
    with pytest.raises(IndexDataError, match="lacks the file"):
        LegacyIndex(D, str(folder))


class Reduces:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def payloads(marker: Path) -> dict[str, bytes]:
    """Real payloads: unpickled the ordinary way, most of them would make the marker."""
    import os
    import subprocess

    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": pickle.dumps(Reduces(os.system, command)),
        "subprocess": pickle.dumps(Reduces(subprocess.call, ["touch", str(marker)])),
        "eval": pickle.dumps(Reduces(eval, code)),
        "exec": pickle.dumps({"a": [("b", Reduces(exec, code))]}),
        "protocol 0": pickle.dumps([Reduces(eval, code)], protocol=0),
        "GLOBAL": f"cos\nsystem\n(S'{command}'\ntR.".encode(),
        "INST": f"(S'{command}'\nios\nsystem\n.".encode(),
        "OBJ": f"(cos\nsystem\nS'{command}'\no.".encode(),
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c"
        + bytes([len(command)])
        + command.encode()
        + b"\x85R.",
        "NEWOBJ": pickle.dumps(Path("x")),
        "getattr": b"cbuiltins\ngetattr\n(cbuiltins\ndict\nS'fromkeys'\ntR.",
        "import": b"cbuiltins\n__import__\n(S'os'\ntR.",
        "persistent id": b"Pos.system\n.",
        "extension": b"\x80\x02\x82\x01.",
        "numpy": pickle.dumps(np.zeros(2)),
        "build": b"\x80\x02c__main__\nobject\n)\x81}X\x01\x00\x00\x00aK\x01sb.",
    }


@pytest.mark.parametrize("name", payloads(Path("unused")))
def test_nothing_in_a_pickle_is_executed(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    file = tmp_path / "data.pkl"
    file.write_bytes(payloads(marker)[name])
    with pytest.raises(IndexDataError, match="no plain data"):
        load_plain_data(file)
    assert not marker.exists()


def test_the_payloads_are_real(tmp_path: Path) -> None:
    for name in ("os.system", "eval", "GLOBAL", "INST", "OBJ", "STACK_GLOBAL"):
        marker = tmp_path / name
        pickle.loads(payloads(marker)[name])
        assert marker.exists(), name


def test_plain_data_is_read(tmp_path: Path) -> None:
    data = {"1": ("a", "ä"), "n": [1, 2.5, None, True, {3, 4}, frozenset({5}), b"x", -(10**30)]}
    for protocol in range(6):
        file = tmp_path / f"{protocol}.pkl"
        file.write_bytes(pickle.dumps({key: data[key] for key in ("1",)}, protocol))
        assert load_plain_data(file) == {"1": ("a", "ä")}
    file.write_bytes(pickle.dumps(data))
    assert load_plain_data(file) == data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_is_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    file = tmp_path_factory.mktemp("garbage") / "data.pkl"
    file.write_bytes(garbage)
    with contextlib.suppress(IndexDataError):
        load_plain_data(file)

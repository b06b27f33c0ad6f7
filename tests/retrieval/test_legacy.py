"""LegacyIndex: the paper's own files, from a folder and from the hub."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import faiss
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from ragweave import RagRetriever
from ragweave.errors import IndexDataError
from ragweave.retrieval.index_protocol import Index
from ragweave.retrieval.legacy import INDEX_FILE, META_FILE, PASSAGES_FILE, LegacyIndex
from ragweave.retrieval.rag_retriever import build_index
from tests.support import indexes, retrieval
from tests.support.indexes import FIRST_LEGACY_ID, D

N = 400


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three files: don't change them."""
    return indexes.write_legacy(tmp_path_factory.mktemp("legacy"), n_passages=N)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The three files, to do anything to."""
    return indexes.write_legacy(tmp_path / "legacy", n_passages=N)


def opened(folder: Path | str | None, **options: Any) -> LegacyIndex:
    index = LegacyIndex(D, None if folder is None else str(folder), **options)
    index.init_index()
    return index


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_finds_the_largest_inner_products(tmp_path: Path, protocol: int) -> None:
    index = opened(indexes.write_legacy(tmp_path, protocol, n_passages=N))
    assert isinstance(index, Index)
    assert len(index) == N
    asked = retrieval.questions(20)
    ids, found = index.get_top_docs(asked, 5)
    assert (ids.dtype, found.dtype) == (np.int64, np.float32)
    kept = faiss.read_index(str(tmp_path / INDEX_FILE)).reconstruct_n(0, N)[:, :D]  # of eight bits a number
    best = retrieval.best_rows(asked, kept, 5) + FIRST_LEGACY_ID
    assert np.mean([len(set(a) & set(b)) for a, b in zip(ids, best, strict=True)]) > 4.5
    assert np.array_equal(found, kept[ids - FIRST_LEGACY_ID])
    for own, doc in zip(ids, index.get_doc_dicts(ids), strict=True):
        assert doc == {"title": indexes.titles(own), "text": indexes.texts(own)}


def test_passages_that_are_not_there_are_empty(shared: Path) -> None:
    index = opened(shared)
    ids, found = index.get_top_docs(retrieval.questions(1), N + 3)
    present = int((ids >= 0).sum())
    assert present <= N
    assert (ids[0, present:] == -1).all()
    assert not found[0, present:].any()
    assert index.get_doc_dicts(ids)[0]["text"][present:] == [""] * (N + 3 - present)
    assert index.get_doc_dicts(np.array([[-1]])) == [{"title": [""], "text": [""]}]


def test_the_index_is_memory_mapped(shared: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux says what is mapped")
    index = opened(shared)
    assert str(shared / INDEX_FILE) in maps.read_text("utf-8")
    assert index.faiss_index.d == D + 1


def test_the_index_is_read_when_it_is_needed(shared: Path) -> None:
    index = LegacyIndex(D, str(shared))
    assert not index.is_initialized()
    with pytest.raises(IndexDataError, match="init_index"):
        index.get_top_docs(retrieval.questions(), 2)
    index.init_index()
    loaded = index.faiss_index
    index.init_index()
    assert index.faiss_index is loaded


@pytest.mark.parametrize("of_file", [True, False])
def test_passages_elsewhere(folder: Path, tmp_path: Path, of_file: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = (folder / PASSAGES_FILE).rename(tmp_path / "elsewhere" / PASSAGES_FILE)
    index = opened(folder, passages_path=str(moved if of_file else moved.parent))
    assert len(index) == N


def test_ids_may_be_numbers(folder: Path) -> None:
    (folder / META_FILE).write_bytes(pickle.dumps(list(range(FIRST_LEGACY_ID, FIRST_LEGACY_ID + N))))
    assert opened(folder).get_top_docs(retrieval.questions(), 1)[0].min() >= FIRST_LEGACY_ID


@pytest.mark.parametrize("name", [INDEX_FILE, META_FILE, PASSAGES_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(IndexDataError, match=f"lacks the file {name}"):
        opened(folder)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.98])
@pytest.mark.parametrize("name", [INDEX_FILE, META_FILE, PASSAGES_FILE])
def test_a_truncated_file_is_named(folder: Path, name: str, kept: float) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(
        IndexDataError, match=f"{name} (does not hold plain data|is not a complete FAISS index)"
    ):
        opened(folder)


class Executes:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", [META_FILE, PASSAGES_FILE])
def test_nothing_in_a_file_is_executed(folder: Path, name: str) -> None:
    marker = folder / "marker"
    data = ["1", Executes(marker)] if name == META_FILE else {"1": ("text", Executes(marker))}
    (folder / name).write_bytes(pickle.dumps(data))
    with pytest.raises(IndexDataError, match=f"{name} does not hold plain data"):
        opened(folder)
    assert not marker.exists()


@pytest.mark.parametrize("data", [[], {}, "x", None, ["text"], 1])
def test_passages_of_another_kind(folder: Path, data: Any) -> None:
    (folder / PASSAGES_FILE).write_bytes(pickle.dumps(data))
    with pytest.raises(IndexDataError, match="does not hold a dictionary from passage ids"):
        opened(folder)


@pytest.mark.parametrize(
    "data", [{}, "x", None, 1, ["x"] * N, [None] * N, [10**30] * N, [[1]] * N, ["1.5"] * N]
)
def test_ids_of_another_kind(folder: Path, data: Any) -> None:
    (folder / META_FILE).write_bytes(pickle.dumps(data))
    with pytest.raises(IndexDataError, match="does not hold a list of passage ids"):
        opened(folder)


@pytest.mark.parametrize("passage", [None, "ab", ("text",), ("text", 1), ("text", "title", "more"), 7])
def test_a_passage_of_another_kind(folder: Path, passage: Any) -> None:
    (folder / PASSAGES_FILE).write_bytes(pickle.dumps({"1": ("text", "title"), "2": passage}))
    index = opened(folder)
    assert index.get_doc_dicts(np.array([[1]])) == [{"title": ["title"], "text": ["text"]}]
    with pytest.raises(IndexDataError, match=r"Passage 2 is .*(not among|expected)"):
        index.get_doc_dicts(np.array([[2]]))


def test_a_passage_that_only_the_index_knows(shared: Path) -> None:
    with pytest.raises(IndexDataError, match="Passage 5 is in the index but not among"):
        opened(shared).get_doc_dicts(np.array([[5]]))


def test_an_index_of_other_passages(folder: Path) -> None:
    (folder / META_FILE).write_bytes(pickle.dumps(["1", "2"]))
    with pytest.raises(
        IndexDataError, match=rf"{N} vectors of dimension {D + 1}, .* 2 ids; expected as many"
    ):
        opened(folder)


def test_an_index_of_another_dimension(shared: Path) -> None:
    with pytest.raises(IndexDataError, match=rf"dimension {D + 1}, .*of dimension 12 .retrieval_vector_size"):
        LegacyIndex(11, str(shared)).init_index()
    with pytest.raises(IndexDataError, match="question encoder"):
        opened(shared).get_top_docs(np.zeros((1, D + 1), np.float32), 1)


@pytest.mark.parametrize(
    ("kind", "location"), [("dataset", None), ("dataset", "me/legacy"), ("model", "me/legacy")]
)
def test_from_the_hub(shared: Path, monkeypatch: pytest.MonkeyPatch, kind: str, location: str | None) -> None:
    calls = []

    def hf_hub_download(repository: str, name: str, *, repo_type: str) -> str:
        calls.append((repository, name, repo_type))
        if repo_type != kind:
            raise LocalEntryNotFoundError("not there")
        return str(shared / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    assert len(opened(location)) == N
    assert {repository for repository, _, _ in calls} == {location or "huggingface/wiki_dpr"}
    assert [name for _, name, own in calls if own == kind] == [PASSAGES_FILE, INDEX_FILE, META_FILE]


@pytest.mark.parametrize("location", [None, "nobody/nothing", "/nowhere/at/all"])
def test_a_repository_that_is_nowhere(
    location: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        IndexDataError, match=r"^index_path: '.*' is neither a folder with psgs_w100\.tsv\.pkl"
    ):
        opened(location)


def test_a_retriever(shared: Path, tmp_path: Path) -> None:
    config = retrieval.config(index_name="legacy", index_path=str(shared), n_docs=3)
    assert isinstance(build_index(config), LegacyIndex)
    tokenizers = retrieval.question_tokenizer(), retrieval.generator_tokenizer()
    retriever = RagRetriever(config, *tokenizers)
    ids = tokenizers[0](list(retrieval.QUESTIONS), padding=True)["input_ids"]
    found = retriever(ids, retrieval.questions(), return_tensors="np")
    contexts = tokenizers[1].batch_decode(found["context_input_ids"], skip_special_tokens=True)
    for own, context in zip(found["doc_ids"].flat, contexts, strict=True):
        assert context.startswith(f"title {own} / text {own} // ")
    retriever.save_pretrained(tmp_path / "saved")
    again = RagRetriever.from_pretrained(tmp_path / "saved")
    assert np.array_equal(again(ids, retrieval.questions())["doc_ids"], found["doc_ids"])

"""CanonicalHFIndex: wiki_dpr, and other data sets of the same columns, from folders and from the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import faiss
import huggingface_hub
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub.utils import filter_repo_objects

from ragweave import RagRetriever
from ragweave.errors import ConfigurationError, IndexDataError
from ragweave.retrieval import canonical
from ragweave.retrieval.canonical import CanonicalHFIndex
from ragweave.retrieval.index_protocol import Index
from ragweave.retrieval.rag_retriever import build_index
from tests.support import indexes, retrieval
from tests.support.indexes import N_DUMMY, D, N

KINDS = {"exact": "HNSW128_SQ8-IP", "compressed": "IVF4096_HNSW128_PQ128-IP"}


@pytest.fixture(scope="module")
def wiki_dpr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of wiki_dpr, shared: don't change it."""
    return indexes.write_wiki_dpr(tmp_path_factory.mktemp("wiki_dpr"))


@pytest.fixture
def copied(wiki_dpr: Path, tmp_path: Path) -> Path:
    """A snapshot of wiki_dpr to do anything to."""
    return Path(shutil.copytree(wiki_dpr, tmp_path / "wiki_dpr"))


def opened(folder: Path | str, **options: Any) -> CanonicalHFIndex:
    index = CanonicalHFIndex(D, dataset_name=str(folder), **options)
    index.init_index()
    return index


def faiss_path(folder: Path, index_name: str) -> Path:
    return folder / "index" / f"psgs_w100.nq.{KINDS[index_name]}-train.faiss"


def flat(folder: Path, **options: Any) -> CanonicalHFIndex:
    """An exact index of all passages, whatever the layout of their folder."""
    index_path = indexes.write_faiss(folder.parent / "flat.faiss")
    return opened(folder, index_path=str(index_path), **options)


def assert_finds_everything(index: CanonicalHFIndex, n_passages: int = N) -> None:
    """Whether an exact index finds what a plain search over all vectors does, with its texts."""
    assert len(index) == n_passages
    asked = retrieval.questions()
    rows, found = index.get_top_docs(asked, 6)
    assert np.array_equal(rows, retrieval.best_rows(asked, indexes.vectors(n_passages), 6))
    assert np.array_equal(found, indexes.vectors(n_passages)[rows])
    for own, doc in zip(rows, index.get_doc_dicts(rows), strict=True):
        assert doc["title"] == indexes.titles(own)
        assert doc["text"] == indexes.texts(own)


class TestWikiDpr:
    @pytest.mark.parametrize("index_name", KINDS)
    def test_finds_what_faiss_finds(self, wiki_dpr: Path, index_name: str) -> None:
        index = opened(wiki_dpr, index_name=index_name)
        assert isinstance(index, Index)
        assert len(index) == N
        asked = retrieval.questions(8)
        rows, found = index.get_top_docs(asked, 5)
        _, expected = faiss.read_index(str(faiss_path(wiki_dpr, index_name))).search(asked, 5)
        assert np.array_equal(rows, expected)
        assert (rows.dtype, found.dtype) == (np.int64, np.float32)
        assert np.array_equal(found, indexes.vectors()[rows])  # the Parquet files' vectors, not FAISS' codes
        for own, doc in zip(rows, index.get_texts(rows), strict=True):
            assert doc == {
                "id": [str(row + 1) for row in own],
                "title": indexes.titles(own),
                "text": indexes.texts(own),
            }

    @pytest.mark.parametrize("index_name", [*KINDS, None, "wiki_dpr"])
    def test_the_data_set_is_there_with_its_index(self, wiki_dpr: Path, index_name: str | None) -> None:
        index, asked = opened(wiki_dpr, index_name=index_name), retrieval.questions(3)
        rows, vectors = index.get_top_docs(asked, 4)
        _, found = index.dataset.search_batch("embeddings", asked, 4)
        assert np.array_equal(found, rows)
        assert index.dataset[int(rows[0, 0])]["title"] == indexes.titles(rows[0, :1])[0]
        assert np.array_equal(index.get_doc_dicts(rows)[0]["embeddings"], vectors[0])

    def test_an_unknown_index_name_is_refused(self, wiki_dpr: Path) -> None:
        with pytest.raises(
            ConfigurationError, match=r"'hnsw'\. Choose one of: custom, legacy, exact, compressed"
        ):
            opened(wiki_dpr, index_name="hnsw")

    def test_exact_finds_the_largest_inner_products(self, wiki_dpr: Path) -> None:
        index, asked = opened(wiki_dpr, index_name="exact"), retrieval.questions(20)
        kept = index.faiss_index.reconstruct_n(0, N)  # of eight bits a number
        rows, _ = index.get_top_docs(asked, 5)
        best = retrieval.best_rows(asked, kept, 5)
        assert np.mean([len(set(a) & set(b)) for a, b in zip(rows, best, strict=True)]) > 4.9

    def test_the_small_stand_in_needs_no_faiss_file(self, wiki_dpr: Path) -> None:
        assert_finds_everything(opened(wiki_dpr, use_dummy_dataset=True), N_DUMMY)

    def test_the_default_index_is_the_compressed_one(self, wiki_dpr: Path) -> None:
        assert CanonicalHFIndex(D, dataset_name=str(wiki_dpr)).index_path == faiss_path(
            wiki_dpr, "compressed"
        )

    def test_index_path_goes_first(self, wiki_dpr: Path, tmp_path: Path) -> None:
        index_path = indexes.write_faiss(tmp_path / "my.faiss")
        assert_finds_everything(opened(wiki_dpr, index_name="exact", index_path=str(index_path)))

    def test_index_path_within_the_folder(self, wiki_dpr: Path) -> None:
        inside = faiss_path(wiki_dpr, "exact").relative_to(wiki_dpr)
        index = opened(wiki_dpr, index_name="compressed", index_path=str(inside))
        assert index.index_path == wiki_dpr / inside

    def test_index_path_that_is_nowhere(self, wiki_dpr: Path) -> None:
        with pytest.raises(IndexDataError, match=r"index_path: there is no file my\.faiss"):
            CanonicalHFIndex(D, dataset_name=str(wiki_dpr), index_path="my.faiss")

    def test_passages_that_are_not_there_are_empty(self, wiki_dpr: Path) -> None:
        index = opened(wiki_dpr, use_dummy_dataset=True)
        rows, found = index.get_top_docs(retrieval.questions(), N_DUMMY + 2)
        assert (rows[:, N_DUMMY:] == -1).all()
        assert not found[:, N_DUMMY:].any()
        for doc in index.get_doc_dicts(rows):
            assert doc["title"][N_DUMMY:] == doc["text"][N_DUMMY:] == ["", ""]
            assert "" not in doc["text"][:N_DUMMY]
        assert index.get_texts(np.array([[-1]])) == [{"id": [""], "title": [""], "text": [""]}]

    def test_other_splits(self, copied: Path) -> None:
        shutil.rmtree(copied / "data" / "psgs_w100" / "nq")
        indexes.write_shards(copied / "data" / "psgs_w100" / "nq", split="test")
        assert len(CanonicalHFIndex(D, dataset_name=str(copied), dataset_split="test")) == N
        with pytest.raises(IndexDataError, match=r"split 'train' in .*holds test-00000-of-00003\.parquet"):
            CanonicalHFIndex(D, dataset_name=str(copied))


class TestHowLittleIsRead:
    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
        """(row group, column) of everything that is read from Parquet files."""
        found: list[tuple[int, str]] = []
        genuine = pq.ParquetFile.read_row_group

        def spy(self: Any, number: int, columns: list[str]) -> Any:
            found.extend((number, name) for name in columns)
            return genuine(self, number, columns=columns)

        def forbidden(*_: Any, **__: Any) -> None:
            raise AssertionError("more was read than a row group")

        monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
        for name in ("read", "read_row_groups", "iter_batches"):
            monkeypatch.setattr(pq.ParquetFile, name, forbidden)
        return found

    def test_opening_reads_no_row(self, wiki_dpr: Path, reads: list[Any]) -> None:
        opened(wiki_dpr, index_name="exact")
        assert reads == []

    def test_texts_without_vectors(self, wiki_dpr: Path, reads: list[Any]) -> None:
        index = opened(wiki_dpr, index_name="exact")
        index.get_texts(np.array([[3, 7, 1251], [-1, 1250, 3]]))  # row groups 0 of shard 0, 1 of shard 1
        assert sorted(reads) == sorted((group, name) for group in (0, 1) for name in ("id", "text", "title"))

    def test_vectors_without_texts(self, wiki_dpr: Path, reads: list[Any]) -> None:
        index, asked = opened(wiki_dpr, index_name="exact"), retrieval.questions()
        rows, _ = index.get_top_docs(asked, 2)
        starts = np.cumsum([0, *indexes.SHARDS])
        shards = np.searchsorted(starts, rows, side="right") - 1
        groups = {
            (s, (r - starts[s]) // indexes.ROW_GROUP) for s, r in zip(shards.flat, rows.flat, strict=True)
        }
        assert sorted(reads) == sorted((int(group), "embeddings") for _, group in groups)

    def test_row_groups_are_kept(self, wiki_dpr: Path, reads: list[Any]) -> None:
        index = opened(wiki_dpr, index_name="exact")
        first = index.get_top_docs(retrieval.questions(), 2)
        del reads[:]
        assert np.array_equal(index.get_top_docs(retrieval.questions(), 2)[1], first[1])
        assert reads == []

    @pytest.mark.parametrize("index_name", KINDS)
    def test_files_are_memory_mapped(self, wiki_dpr: Path, index_name: str) -> None:
        maps = Path("/proc/self/maps")
        if not maps.exists():
            pytest.skip("only Linux says what is mapped")
        index = opened(wiki_dpr, index_name=index_name)
        mapped = maps.read_text("utf-8")
        assert str(faiss_path(wiki_dpr, index_name)) in mapped
        assert str(wiki_dpr / "data" / "psgs_w100" / "nq" / "train-00001-of-00003.parquet") in mapped
        assert index.get_top_docs(retrieval.questions(), 2)[0].min() >= 0


class TestOtherDataSets:
    """Any layout with the columns title, text and embeddings."""

    def test_parquet_files_in_a_folder(self, tmp_path: Path) -> None:
        indexes.write_shards(tmp_path / "mine")
        assert_finds_everything(flat(tmp_path / "mine"))

    def test_the_layout_of_the_hub(self, tmp_path: Path) -> None:
        indexes.write_shards(tmp_path / "mine" / "data")
        indexes.write_shards(tmp_path / "mine" / "data", [20], split="test")
        assert_finds_everything(flat(tmp_path / "mine"))
        assert_finds_everything(opened(tmp_path / "mine", dataset_split="test"), 20)

    def test_the_layout_of_the_hubs_own_conversion(self, tmp_path: Path) -> None:
        for split, size in (("train", 40), ("validation", 30)):
            (tmp_path / "default" / split).mkdir(parents=True)
            pq.write_table(indexes.table(range(size)), tmp_path / "default" / split / "0000.parquet")
        assert_finds_everything(opened(tmp_path), 40)
        assert_finds_everything(opened(tmp_path, dataset_split="validation"), 30)

    def test_files_that_name_no_split_are_for_training(self, tmp_path: Path) -> None:
        pq.write_table(indexes.table(range(25)), tmp_path / "a.parquet")
        pq.write_table(indexes.table(range(25, 40)), tmp_path / "b.parquet")
        assert_finds_everything(opened(tmp_path), 40)
        with pytest.raises(IndexDataError, match=r"split 'test' in .*holds a\.parquet, b\.parquet"):
            opened(tmp_path, dataset_split="test")

    def test_another_variant_of_wiki_dpr_by_its_folder(self, copied: Path) -> None:
        multiset = (copied / "data" / "psgs_w100" / "nq").rename(copied / "data" / "psgs_w100" / "multiset")
        assert_finds_everything(flat(multiset))

    def test_save_to_disk(self, tmp_path: Path) -> None:
        passages, index_path = retrieval.saved_dataset(tmp_path)
        index = opened(passages, index_path=index_path)
        asked = retrieval.questions()
        rows, found = index.get_top_docs(asked, 9)
        assert np.array_equal(rows[:, :7], retrieval.best_rows(asked, retrieval.vectors(), 7))
        assert np.array_equal(found[:, :7], retrieval.vectors()[rows[:, :7]])
        assert (rows[:, 7:] == -1).all()
        assert (
            index.get_doc_dicts(rows)[0]["text"] == [retrieval.PASSAGES[r][1] for r in rows[0, :7]] + [""] * 2
        )
        assert index.get_texts(np.array([[-1, -1]])) == [{"title": ["", ""], "text": ["", ""]}]

    def test_save_to_disk_of_splits(self, tmp_path: Path) -> None:
        splits = {"train": retrieval.dataset(5, factory=None), "test": retrieval.dataset(factory=None)}
        datasets.DatasetDict(splits).save_to_disk(str(tmp_path))
        assert len(opened(tmp_path)) == 5
        assert len(opened(tmp_path, dataset_split="test")) == 7
        with pytest.raises(IndexDataError, match=r"no split 'dev' in .*; it has test, train"):
            opened(tmp_path, dataset_split="dev")

    def test_save_to_disk_of_another_split(self, tmp_path: Path) -> None:
        passages = retrieval.dataset(factory=None)
        test = datasets.Dataset(passages.data.table, split=datasets.Split.TEST)
        test.save_to_disk(str(tmp_path))
        assert len(opened(tmp_path, dataset_split="test")) == 7
        with pytest.raises(IndexDataError, match="holds the split 'test', but dataset_split is 'train'"):
            opened(tmp_path)

    def test_save_to_disk_that_lacks_a_file(self, tmp_path: Path) -> None:
        passages, _ = retrieval.saved_dataset(tmp_path)
        next(Path(passages).glob("*.arrow")).unlink()
        with pytest.raises(IndexDataError, match="not a complete data set saved"):
            opened(passages)

    def test_its_own_faiss_file(self, tmp_path: Path) -> None:
        indexes.write_shards(tmp_path)
        indexes.write_faiss(tmp_path / "index" / "passages.faiss")
        assert_finds_everything(opened(tmp_path))

    def test_several_faiss_files(self, tmp_path: Path) -> None:
        indexes.write_shards(tmp_path)
        for name in ("one", "two"):
            indexes.write_faiss(tmp_path / f"{name}.faiss")
        with pytest.raises(IndexDataError, match=r"index_path: one\.faiss, two\.faiss"):
            opened(tmp_path)
        assert_finds_everything(opened(tmp_path, index_path="two.faiss"))
        for index_name, kind in KINDS.items():
            path = indexes.write_faiss(tmp_path / f"passages.{kind}.faiss")
            assert opened(tmp_path, index_name=index_name).index_path == path

    def test_a_file_of_the_other_kind_is_not_taken(self, tmp_path: Path) -> None:
        indexes.write_shards(tmp_path)
        indexes.write_faiss(tmp_path / f"passages.{KINDS['compressed']}.faiss")
        assert CanonicalHFIndex(D, dataset_name=str(tmp_path), index_name="exact").index_path is None

    def test_there_is_no_small_stand_in(self, tmp_path: Path) -> None:
        indexes.write_shards(tmp_path)
        with pytest.raises(IndexDataError, match=r"use_dummy_dataset: .*no small stand-in"):
            opened(tmp_path, use_dummy_dataset=True)


class TestBadData:
    def test_missing_shards_are_named(self, copied: Path) -> None:
        (copied / "data" / "psgs_w100" / "nq" / "train-00001-of-00003.parquet").unlink()
        with pytest.raises(IndexDataError, match=r"1 of 3 Parquet files .* train-00001-of-00003\.parquet"):
            opened(copied)

    def test_no_shards(self, copied: Path) -> None:
        shutil.rmtree(copied / "data" / "psgs_w100" / "nq")
        with pytest.raises(IndexDataError, match="no Parquet file at all"):
            opened(copied)

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(IndexDataError, match="no Parquet file at all"):
            opened(tmp_path)

    def test_no_passages(self, tmp_path: Path) -> None:
        pq.write_table(indexes.table(range(1)).slice(0, 0), tmp_path / "train.parquet")
        with pytest.raises(IndexDataError, match="is empty"):
            opened(tmp_path)

    def test_too_many_passages_to_search_without_a_file(
        self, copied: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.rmtree(copied / "index")
        monkeypatch.setattr(canonical, "MOST_BUILT_IN_MEMORY", N - 1)
        with pytest.raises(IndexDataError, match=r"no FAISS file for index_name='exact'.*give index_path"):
            CanonicalHFIndex(D, dataset_name=str(copied), index_name="exact")

    @pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.95, 0.999])
    @pytest.mark.parametrize("index_name", KINDS)
    def test_a_truncated_faiss_file(self, copied: Path, index_name: str, kept: float) -> None:
        path = faiss_path(copied, index_name)
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
        index = CanonicalHFIndex(D, dataset_name=str(copied), index_name=index_name)
        with pytest.raises(IndexDataError, match="not a complete FAISS index"):
            index.init_index()
        assert not index.is_initialized()

    def test_an_index_of_other_passages(self, wiki_dpr: Path, tmp_path: Path) -> None:
        path = indexes.write_faiss(tmp_path / "a.faiss", own=indexes.vectors()[:-1])
        with pytest.raises(IndexDataError, match=f"{N - 1} vectors, but there are {N} passages"):
            opened(wiki_dpr, index_path=str(path))

    def test_an_index_of_another_dimension(self, wiki_dpr: Path, tmp_path: Path) -> None:
        path = indexes.write_faiss(tmp_path / "a.faiss", own=indexes.vectors()[:, :8].copy())
        with pytest.raises(IndexDataError, match=rf"dimension 8; expected {D}, .*retrieval_vector_size"):
            opened(wiki_dpr, index_path=str(path))

    def test_an_index_of_distances_is_warned_of(self, wiki_dpr: Path, tmp_path: Path) -> None:
        index = faiss.IndexFlatL2(D)
        index.add(indexes.vectors())
        faiss.write_index(index, str(tmp_path / "a.faiss"))
        with pytest.warns(UserWarning, match="METRIC_INNER_PRODUCT"):
            opened(wiki_dpr, index_path=str(tmp_path / "a.faiss"))

    def test_passages_of_another_dimension(self, wiki_dpr: Path) -> None:
        with pytest.raises(IndexDataError, match=rf"vectors are of dimension {D}; expected 12"):
            CanonicalHFIndex(12, dataset_name=str(wiki_dpr), use_dummy_dataset=True).init_index()

    def test_questions_of_another_dimension(self, wiki_dpr: Path) -> None:
        with pytest.raises(IndexDataError, match="question encoder"):
            opened(wiki_dpr).get_top_docs(np.zeros((1, 3), np.float32), 2)

    def test_searching_too_early(self, wiki_dpr: Path) -> None:
        index = CanonicalHFIndex(D, dataset_name=str(wiki_dpr))
        assert index.faiss_index is None
        with pytest.raises(IndexDataError, match="init_index"):
            index.get_top_docs(retrieval.questions(), 2)

    def test_opening_twice_reads_once(self, wiki_dpr: Path) -> None:
        index = opened(wiki_dpr)
        loaded = index.faiss_index
        index.init_index()
        assert index.faiss_index is loaded


class TestHub:
    """With a stand-in of the hub: of a whole repository, it fetches what was asked for."""

    @pytest.fixture
    def calls(self, wiki_dpr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def snapshot_download(repository: str, *, allow_patterns: list[str], **options: Any) -> str:
            files = [path.relative_to(wiki_dpr).as_posix() for path in wiki_dpr.rglob("*") if path.is_file()]
            fetched = sorted(filter_repo_objects(files, allow_patterns=allow_patterns))
            for name in fetched:
                (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(wiki_dpr / name, tmp_path / "cache" / name)
            found.append({"repository": repository, "fetched": fetched, **options})
            return str(tmp_path / "cache")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return found

    @pytest.mark.parametrize("dataset", ["wiki_dpr", "facebook/wiki_dpr"])
    @pytest.mark.parametrize("index_name", KINDS)
    def test_of_wiki_dpr_only_what_is_needed(
        self, calls: list[dict[str, Any]], dataset: str, index_name: str
    ) -> None:
        config = retrieval.config(
            index_name=index_name, dataset=dataset, dataset_revision="main~1", retrieval_vector_size=D
        )
        index = build_index(config)
        index.init_index()
        assert index.get_top_docs(retrieval.questions(), 2)[0].min() >= 0
        shards = [f"data/psgs_w100/nq/train-{number:05}-of-00003.parquet" for number in range(3)]
        assert calls == [
            {
                "repository": "facebook/wiki_dpr",
                "repo_type": "dataset",
                "revision": "main~1",
                "fetched": [*shards, f"index/psgs_w100.nq.{KINDS[index_name]}-train.faiss"],
            }
        ]

    def test_the_small_stand_in(self, calls: list[dict[str, Any]]) -> None:
        assert_finds_everything(opened("wiki_dpr", use_dummy_dataset=True), N_DUMMY)
        assert calls[0]["fetched"] == ["data/psgs_w100/dummy.nq/train-00000-of-00001.parquet"]
        assert calls[0]["revision"] is None

    def test_with_an_index_of_ones_own(self, calls: list[dict[str, Any]], tmp_path: Path) -> None:
        index_path = indexes.write_faiss(tmp_path / "my.faiss")
        assert_finds_everything(opened("wiki_dpr", index_path=str(index_path)))
        assert not any(name.endswith(".faiss") for name in calls[0]["fetched"])

    def test_with_another_index_of_the_repository(self, calls: list[dict[str, Any]]) -> None:
        inside = f"index/psgs_w100.nq.{KINDS['exact']}-train.faiss"
        opened("wiki_dpr", index_path=inside)
        assert [name for name in calls[0]["fetched"] if name.endswith(".faiss")] == [inside]

    def test_another_data_set(self, calls: list[dict[str, Any]]) -> None:
        index = CanonicalHFIndex(
            D, dataset_name="someone/passages", index_name="exact", dataset_revision="v2"
        )
        assert len(index) == N
        assert (calls[0]["repository"], calls[0]["revision"]) == ("someone/passages", "v2")


@pytest.mark.parametrize("dataset", ["nobody/nothing", "/nowhere/at/all", "../nowhere", "wiki_dpr"])
def test_a_data_set_that_is_nowhere(dataset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        IndexDataError, match=r"^dataset: '.*' is neither a folder nor .*give the folder .*\(.+\)"
    ):
        CanonicalHFIndex(D, dataset_name=dataset, dataset_revision="v1")


@pytest.mark.parametrize("index_name", KINDS)
def test_a_retriever(wiki_dpr: Path, tmp_path: Path, index_name: str) -> None:
    config = retrieval.config(index_name=index_name, dataset=str(wiki_dpr), n_docs=3, dataset_split="train")
    tokenizers = retrieval.question_tokenizer(), retrieval.generator_tokenizer()
    retriever = RagRetriever(config, *tokenizers)
    assert isinstance(retriever.index, CanonicalHFIndex)
    ids = tokenizers[0](list(retrieval.QUESTIONS), padding=True)["input_ids"]
    found = retriever(ids, retrieval.questions(), return_tensors="np")
    assert found["retrieved_doc_embeds"].shape == (3, 3, D)
    contexts = tokenizers[1].batch_decode(found["context_input_ids"], skip_special_tokens=True)
    for row, context in zip(found["doc_ids"].flat, contexts, strict=True):
        assert context.startswith(f"title {row} / text {row} // ")
    retriever.save_pretrained(tmp_path)
    again = RagRetriever.from_pretrained(tmp_path)
    assert np.array_equal(again(ids, retrieval.questions())["doc_ids"], found["doc_ids"])


def test_a_retriever_of_the_small_stand_in(wiki_dpr: Path) -> None:
    config = retrieval.config(index_name="compressed", dataset=str(wiki_dpr), use_dummy_dataset=True)
    index = build_index(config)
    index.init_index()
    assert_finds_everything(index, N_DUMMY)

"""One flipped bit, or a file that is cut off, gives an error that names the file, and never ends the process."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest

from ragweave.errors import KnowledgeBaseError, TruncatedFileError
from ragweave.knowledge import snapshot
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.layout import verify_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FLIPS = 6
SAME, NAMED, OTHER, FAILED = range(4)


class Vectors:
    """Satisfies `Engine` with random vectors, since an index is searched from some thousands of passages on."""

    def embed(self, shards, encoder, progress) -> Iterator[np.ndarray]:
        source = np.random.default_rng(0)
        for shard in shards:
            yield source.normal(size=(len(shard), encoder.dimension)).astype(np.float32)


@pytest.fixture(scope="module", params=["flat", "HNSW8", "IVF16,Flat", "IVF16,PQ4x4", "SQ8"])
def base(request, tmp_path_factory, tiny_encoder):
    """A knowledge base with an index, copies of passages and deleted ones."""
    folder = tmp_path_factory.mktemp("damage")
    count = 40 if request.param == "flat" else 5000
    lines = [json.dumps({"id": f"d{n}", "text": f"lima number {n}"}) for n in range(count)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    (folder / "b.jsonl").write_text(json.dumps({"id": "copy", "text": "lima number 3"}))
    base = KnowledgeBase.build(
        [folder / "a.jsonl", folder / "b.jsonl"],
        folder / "kb",
        encoder=tiny_encoder,
        engine=Vectors(),
        index=request.param,
    )
    return base.delete(ids=["d7"])


def answers(path: Path) -> str:
    """Everything that a question may read."""
    base = KnowledgeBase.open(path)
    vectors = np.random.default_rng(1).normal(size=(4, 16)).astype(np.float32)
    scores, rows = base.search(vectors, 7)
    word_scores, word_rows = base.search_text(["lima 3", "number 12"], 7)
    passages = [base.passages(part) for part in (*rows, *word_rows)]
    found = [scores.tolist(), rows.tolist(), word_scores.tolist(), word_rows.tolist(), passages]
    more = [base.sources(), base.document("copy"), base.sources_of(3), base.row_of("d9"), base.info()]
    return repr([found, more])


def outcome(path: Path, expected: str, name: str) -> int:
    """Ask in a process of its own, and say what happened; a signal is a negative number."""
    child = os.fork()
    if not child:
        code = FAILED
        try:
            warnings.simplefilter("ignore")
            code = SAME if answers(path) == expected else OTHER
        except KnowledgeBaseError as error:
            code = NAMED if name in str(error) else FAILED
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def flip(path: Path, source: np.random.Generator) -> bytes:
    """Flip one bit, and return what the file held."""
    before = path.read_bytes()
    content = bytearray(before)
    content[source.integers(len(content))] ^= 1 << int(source.integers(8))
    path.write_bytes(content)
    return before


@pytest.fixture
def files(base, tmp_path):
    """The files of a copy of the knowledge base, and what it answers."""
    root = shutil.copytree(base.path, tmp_path / "kb")
    expected = answers(root)
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size)
    return (
        root,
        expected,
        [path for path in paths if path.name != "CURRENT" and "000001" not in str(path)]
        + [path for path in paths if path.parts[-3:-1] == ("segments", "000001")],
    )


def test_a_flipped_bit_changes_no_answer(files):
    root, expected, paths = files
    assert {path.name for path in paths} >= {"manifest.json", "passages.arrow", "word_rows.npy", "copies.npy"}
    source = np.random.default_rng(0)
    for path in paths:
        for _ in range(FLIPS if path.suffix == ".faiss" else 2):  # only the index differs between kinds
            before = flip(path, source)
            assert outcome(root, expected, path.name) in (SAME, NAMED), path
            path.write_bytes(before)


def test_a_flipped_bit_in_a_large_file_ends_no_process(files, monkeypatch):
    """Large files are not compared with their hashes when they are opened: there, bounds are all that is checked."""
    monkeypatch.setattr(snapshot, "CHECKED_BYTES", 0)
    root, expected, paths = files
    source = np.random.default_rng(1)
    outcomes = set()
    for path in paths:
        for _ in range(FLIPS if path.suffix == ".faiss" else 2):  # only the index differs between kinds
            before = flip(path, source)
            outcomes.add(outcome(root, expected, path.name))
            assert outcomes <= {SAME, NAMED, OTHER}, path
            path.write_bytes(before)
    assert outcomes == {SAME, NAMED, OTHER}


@pytest.mark.parametrize("base", ["IVF16,Flat", "IVF16,PQ4x4,RFlat"], indirect=True)
@pytest.mark.parametrize("row", [-2, 5000, 1 << 62])
def test_rows_of_an_index_that_do_not_exist_are_noticed(base, tmp_path, monkeypatch, row):
    monkeypatch.setattr(snapshot, "CHECKED_BYTES", 0)
    root = shutil.copytree(base.path, tmp_path / "kb")
    path = root / "segments" / "000001" / "index.faiss"
    index = faiss.read_index(str(path))
    inner = faiss.downcast_index(getattr(index, "base_index", index))
    faiss.rev_swig_ptr(inner.invlists.get_ids(3), inner.invlists.list_size(3))[:] = row
    faiss.write_index(index, str(path))
    with pytest.raises(KnowledgeBaseError, match=r"index\.faiss is missing or damaged.*info KB --verify"):
        KnowledgeBase.open(root)


def test_verify_names_all_damaged_files_and_an_intact_version(base, tmp_path):
    root = shutil.copytree(base.path, tmp_path / "kb")
    count, size = verify_folder(root)
    assert (count, size) == base.verify()
    assert count > 10 and size == base.info()["bytes"]
    deleted = root / "versions" / "000002" / "deleted.npy"
    deleted.write_bytes(deleted.read_bytes()[:-1] + b"!")
    (root / "versions" / "000002" / "copies.npy").unlink()
    with pytest.raises(
        KnowledgeBaseError, match=r"deleted\.npy has changed.*copies\.npy is missing.*rollback .* 000001"
    ):
        verify_folder(root)
    (root / "segments" / "000001" / "vectors.npy").unlink()
    with pytest.raises(KnowledgeBaseError, match="No other version is intact"):
        verify_folder(root)


def test_a_file_that_is_cut_off_in_place_is_noticed_before_it_is_read_again(base, tmp_path):
    opened = KnowledgeBase.open(shutil.copytree(base.path, tmp_path / "kb"))
    path = tmp_path / "kb" / "segments" / "000001" / "vectors.npy"
    os.truncate(path, 100)
    with pytest.raises(TruncatedFileError, match=r"vectors\.npy was cut off"):
        opened.latest()

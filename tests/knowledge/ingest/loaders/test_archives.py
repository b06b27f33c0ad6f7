"""Archives: their files are read as those of a folder, and nothing leaves the archive or exhausts the machine."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from ragweave.errors import OmissionWarning, SourceError, SourceWarning
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.ingest.loaders.archives import read_archive
from ragweave.knowledge.ingest_settings import Chunking, ReadSettings
from ragweave.types import SourceFile
from tests.support.documents import read, write, write_pdf, write_zip


def write_tar(path: Path, files: dict[str, bytes], links: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    mode = {".tar": "w", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w:gz")
    speed = {"compresslevel": 1} if mode == "w:gz" else {}
    with tarfile.open(path, mode, **speed) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for link in links:
            archive.addfile(link)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".TGZ", ".tar.bz2", ".tar.xz"])
def test_members_are_read_by_the_loader_of_their_kind(tmp_path, ending):
    pdf = write_pdf(tmp_path / "a.pdf", ["Ulm on the Danube"]).read_bytes()
    files = {
        "deep/notes.md": b"# Lima\n\nIn Peru.",
        "README": b"Read me.",
        "a.pdf": pdf,
        "b.csv": b"n,c\nx,Jena\n",
    }
    path = tmp_path / f"all{ending}"
    write_zip(path, files) if ending == ".zip" else write_tar(path, files)
    documents = {document.id: document for document in read(path)}
    assert list(documents) == [
        f"{path.name}/{name}" for name in ("deep/notes.md", "README", "a.pdf", "b.csv:2")
    ]
    notes = documents[f"{path.name}/deep/notes.md"]
    assert (notes.title, notes.source, notes.markdown) == ("Lima", str(path), True)
    assert documents[f"{path.name}/a.pdf"].text == "Ulm on the Danube"


def test_what_is_not_read_is_counted_by_kind(tmp_path):
    files = {"a.txt": b"Lima", "b.png": b"x", "c.png": b"x", ".git/config": b"x", "program": b"\x7fELF\0"}
    links = (
        special("link.txt", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.txt", tarfile.LNKTYPE, "a.txt"),
        special("disk.txt", tarfile.BLKTYPE),
        special("pipe.txt", tarfile.FIFOTYPE),
        special("folder", tarfile.DIRTYPE),
    )
    path = write_tar(tmp_path / "a.tar.gz", files, links)
    words = "a.tar.gz: 8 files in it are ignored: 2 .png, 2 links, 2 devices, 1 hidden, 1 without ending."
    with pytest.warns(OmissionWarning) as caught:
        assert [document.text for document in read(path)] == ["Lima"]
    assert [str(warning.message) for warning in caught] == [words]


def test_names_that_lead_out_of_the_archive(tmp_path):
    names = ["../up.txt", "/etc/x.txt", "a/../../b.txt", "c:\\windows\\d.txt", "nul\0.txt"]
    before = sorted(tmp_path.parent.rglob("*"))
    for path in (tmp_path / "a.zip", tmp_path / "b.tar"):
        files = dict.fromkeys(names[: 4 if path.suffix == ".zip" else 5], b"text")
        write_zip(path, files) if path.suffix == ".zip" else write_tar(path, files)
        ids = [document.id for document in read(path)]
        assert ids[:4] == [f"{path.name}/{n}" for n in ("up.txt", "etc/x.txt", "a/b.txt", "c:/windows/d.txt")]
    after = {path for path in tmp_path.parent.rglob("*") if path.parent != tmp_path}
    assert after == {path for path in before if path.parent != tmp_path}


def test_archives_in_archives(tmp_path):
    write_zip(tmp_path / "3.zip", {"d.txt": b"three"})
    for depth in (2, 1, 0):
        inner = tmp_path / f"{depth + 1}.zip"
        write_zip(tmp_path / f"{depth}.zip", {f"{inner.name}": inner.read_bytes(), "t.txt": b"at %d" % depth})
    with pytest.warns(
        SourceWarning, match=r"0\.zip/1\.zip/2\.zip/3\.zip is nested in 2 other archives .* ignored"
    ):
        ids = [document.id for document in read(tmp_path / "0.zip")]
    assert sorted(ids) == ["0.zip/1.zip/2.zip/t.txt", "0.zip/1.zip/t.txt", "0.zip/t.txt"]


def test_encrypted_members_are_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.txt": b"Lima", "b.txt": b"Ulm"})
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    content[directory + 8] |= 1
    with pytest.warns(OmissionWarning, match="1 files in it are ignored: 1 encrypted"):
        assert [document.text for document in read(write(path, bytes(content)))] == ["Lima"]


def test_a_member_that_cannot_be_read_costs_itself(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.pdf": b"no pdf", "b.txt": b"r\xe9", "c.txt": b"Lima"})
    with pytest.warns(SourceWarning) as caught:
        assert [document.text for document in read(path)] == ["Lima"]
    assert len(caught) == 2
    assert "a.zip/a.pdf cannot be read" in str(caught[0].message)
    assert "a.zip/b.txt is not UTF-8 text" in str(caught[1].message)


def test_a_damaged_member_and_two_of_one_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for name, text in (("a.txt", "Lima, Lima"), ("b.txt", "Ulm"), ("b.txt", "Jena")):
            archive.writestr(name, text)
    content = (tmp_path / "a.zip").read_bytes().replace(b"Lima, Lima", b"Lima, Lime", 1)
    with pytest.warns(SourceWarning) as caught:
        documents = read(write(tmp_path / "a.zip", content))
    assert [document.text for document in documents] == ["Ulm"]
    assert "a.zip/a.txt in it is damaged (Bad CRC-32" in str(caught[0].message)
    assert "There are two files a.zip/b.txt in it" in str(caught[1].message)


@pytest.mark.parametrize("end", [1200, 2048 + 100])
def test_an_archive_that_is_cut_keeps_its_start(tmp_path, end):
    path = write_tar(tmp_path / "a.tar", {"a.txt": b"Lima", "b.txt": b"Ulm" * 500, "c.txt": b"Jena"})
    with pytest.warns(SourceWarning, match=r"a\.tar.* is damaged"):
        assert [d.text for d in read(write(path, path.read_bytes()[:end]))] == ["Lima"]


def test_a_damaged_header_is_not_the_end(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"a.txt": b"Lima", "b.txt": b"Ulm"})
    content = bytearray(path.read_bytes())
    content[1024] ^= 1
    with pytest.warns(SourceWarning, match=r"bad checksum\): nothing after a\.txt is read"):
        assert [d.text for d in read(write(path, bytes(content)))] == ["Lima"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08"])
def test_what_is_no_archive(tmp_path, name, content):
    with pytest.raises(SourceError, match="cannot be read"):
        read(write(tmp_path / name, content))


def bomb(path: Path) -> Path:
    """300 MB of zeros in members that no loader reads, or each of which is within its limit."""
    if path.suffix == ".zip":
        return write_zip(path, {f"{number}.txt": b"a" * 10**7 for number in range(30)})
    return write_tar(path, {f"{number}.bin": bytes(10**7) for number in range(30)})


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_bombs_are_refused(tmp_path, name):
    with pytest.raises(SourceError, match=r"unpacks to .* times its size"):
        read(bomb(tmp_path / name))


def test_a_bomb_of_archives_in_an_archive(tmp_path):
    part = write_tar(tmp_path / "part.tar.gz", {f"{number}.bin": bytes(10**7) for number in range(10)})
    path = write_zip(
        tmp_path / "a.zip", {f"{n}.tar.gz": part.read_bytes() for n in range(4)} | {"a.txt": b"Lima"}
    )
    with pytest.raises(SourceError, match=r"a\.zip unpacks to more than 100 times its size"):
        read(path)


def test_a_zip_file_that_holds_itself(tmp_path):
    """Its only member is the file itself, as in Russ Cox's quine; two levels of it are read."""
    content = write_zip(tmp_path / "in.zip", {"in.zip": b""}).read_bytes()
    for _ in range(6):
        content = write_zip(tmp_path / "in.zip", {"in.zip": content}).read_bytes()
    with pytest.warns(SourceWarning, match="nested in 2 other archives"):
        assert read(tmp_path / "in.zip") == []


def test_a_header_of_enormous_length(tmp_path):
    info = special("x", tarfile.XHDTYPE)
    info.size = 2**30
    header = info.tobuf(tarfile.PAX_FORMAT)
    start = write_tar(tmp_path / "a.tar", {"a.txt": b"Lima"}).read_bytes()[:1024]
    with pytest.warns(SourceWarning, match="a header is enormous"):
        assert [d.text for d in read(write(tmp_path / "a.tar", start + header + bytes(4096)))] == ["Lima"]


def test_copies_are_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    path = write_zip(tmp_path / "a.zip", {"a.txt": b"Lima", "b.txt": b"Ulm"})
    documents = read_archive(SourceFile(path, "a.zip"), ReadSettings())
    assert next(documents).text == "Lima"
    assert len(list((tmp_path / "copies").rglob("*"))) == 2
    documents.close()
    assert list((tmp_path / "copies").rglob("*")) == []


def test_markdown_in_an_archive_is_cut_at_headings(tmp_path, tiny_encoder):
    path = write_zip(tmp_path / "a.zip", {"a.md": b"# Lima\n\nIn Peru.\n\n## River\n\nRimac."})
    base = KnowledgeBase.build([path], tmp_path / "kb", encoder=tiny_encoder, chunking=Chunking("markdown"))
    assert [base.passage(row).title for row in range(2)] == ["Lima", "Lima > River"]
    assert base.passage(0).source == str(path)

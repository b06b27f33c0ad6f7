"""Finding sources: folders, patterns and links; ids of documents; sources that are missing or of another kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from datasets import Dataset

from ragweave.errors import SourceError, SourceWarning
from ragweave.knowledge.ingest.loaders.loader import find_sources, read_documents
from ragweave.knowledge.ingest_settings import ReadSettings
from tests.support.documents import read, write


def test_folder_is_read_in_sorted_order_with_relative_ids(tmp_path):
    write(tmp_path / "b" / "z.txt", "Z text")
    write(tmp_path / "b" / "a.md", "# A title\n\ntext")
    write(tmp_path / "a_first.txt", "first")
    write(tmp_path / "c.png", "not read")
    write(tmp_path / ".hidden" / "h.txt", "not read")
    write(tmp_path / "D.TXT", "upper case")
    documents = read(tmp_path)
    assert [(document.id, document.title) for document in documents] == [
        ("D.TXT", "D"),
        ("a_first.txt", "A first"),
        ("b/a.md", "A title"),
        ("b/z.txt", "Z"),
    ]
    assert documents[2].text == "# A title\n\ntext"
    assert documents[2].source == str(tmp_path / "b" / "a.md")


def test_every_file_of_a_folder_is_read_or_ignored_with_a_reason(tmp_path):
    for name in ("a.txt", "b.PNG", "c.png", "deep/Makefile", "deep/.env", ".git/config", "deep/d.gz"):
        write(tmp_path / name, "text")
    (tmp_path / "program").write_bytes(b"\x7fELF\0")
    write(tmp_path / os.fsdecode(b"r\xe9.bin"), "text")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    reasons = {file.name: file.ignored for file in find_sources([tmp_path])}
    assert reasons == {
        ".git": "hidden",
        "a.txt": "",
        "b.PNG": ".png",
        "c.png": ".png",
        "deep/.env": "hidden",
        "deep/Makefile": "",
        "deep/d.gz": ".gz",
        "gone.txt": "",  # its loader says that it is missing
        "pipe.txt": "not a file",
        "program": "without ending",
        r"r\udce9.bin": ".bin",
    }


def test_a_hidden_file_is_read_if_it_is_named(tmp_path):
    path = write(tmp_path / ".notes.txt", "text")
    write(tmp_path / "a.txt", "text")
    assert [file.ignored for file in find_sources([tmp_path])] == ["hidden", ""]
    assert [file.ignored for file in find_sources([tmp_path, path])] == ["", ""]


def test_a_name_that_is_not_utf8(tmp_path):
    write(tmp_path / "a.txt", "Lima")
    path = write(tmp_path / os.fsdecode(b"deep/r\xe9.txt"), "Ulm")
    page = write(tmp_path / os.fsdecode(b"r\xe9.html"), "<p>Jena</p>")
    documents = {document.id: document for document in read(tmp_path)}
    assert [document.text for document in documents.values()] == ["Lima", "Ulm", "Jena"]
    assert list(documents) == ["a.txt", r"deep/r\udce9.txt", r"r\udce9.html"]
    assert documents[r"r\udce9.html"].source == rf"{tmp_path}/r\udce9.html"
    assert [read(file)[0].id for file in (path, page)] == [r"r\udce9.txt", r"r\udce9.html"]


def test_id_of_a_single_file_is_its_name(tmp_path):
    assert [d.id for d in read(write(tmp_path / "deep" / "notes.txt", "text"))] == ["notes.txt"]


def test_patterns(tmp_path):
    for name in ("a.txt", "b.md", "deep/c.txt"):
        write(tmp_path / name, f"Text of {name}.")
    assert [d.id for d in read(tmp_path / "*.txt")] == ["a.txt"]
    assert [d.id for d in read(tmp_path / "**" / "*.txt")] == ["a.txt", "c.txt"]
    with pytest.raises(SourceError, match="Nothing matches"):
        read(tmp_path / "*.pdf")
    write(tmp_path / "[x].txt", "A name that looks like a pattern.")
    assert [d.id for d in read(tmp_path / "[x].txt")] == ["[x].txt"]


def test_no_sources():
    with pytest.raises(SourceError, match="No source"):
        read()


def test_missing_file_is_reported_before_anything_is_read(tmp_path):
    write(tmp_path / "a.txt", "text")
    with pytest.raises(SourceError, match=r"There is no file or folder .*gone"):
        read_documents([tmp_path, tmp_path / "gone.txt"])


@pytest.mark.parametrize(("files", "words"), [([], "is empty"), (["a.png"], "no file that can be read")])
def test_folder_without_readable_files(tmp_path, files, words):
    for name in files:
        write(tmp_path / name, "x")
    with pytest.raises(SourceError, match=words) as caught:
        read(tmp_path)
    assert ".jsonl" in str(caught.value)


def test_file_of_another_kind(tmp_path):
    with pytest.raises(SourceError, match=r"\.txt"):
        read(write(tmp_path / "a.png", "x"))


def test_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(SourceError, match="kind"):
        read(tmp_path / "a.txt")


def test_duplicate_ids_name_both_files(tmp_path):
    one, two = write(tmp_path / "one" / "a.txt", "x"), write(tmp_path / "two" / "a.txt", "y")
    with pytest.raises(SourceError, match=r"id 'a\.txt'") as caught:
        read(one, two)
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)


def test_duplicate_ids_within_one_file(tmp_path):
    path = write(tmp_path / "a.csv", "id,title,text\nx,T,one\nx,T,two\n")
    with pytest.raises(SourceError, match="Two documents have the id 'x'"):
        read(path)


def test_links_that_lead_back_do_not_hang_and_read_once(tmp_path):
    write(tmp_path / "a" / "x.txt", "text")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    assert [document.text for document in read(tmp_path)] == ["text"]


def test_links_that_lead_out_of_a_folder(tmp_path):
    folder = tmp_path / "notes"
    write(folder / "a.txt", "Lima")
    write(folder / "deep" / "b.txt", "Ulm")
    write(tmp_path / "secret" / "key.txt", "Jena")
    (folder / "within.txt").symlink_to("deep/b.txt")
    (folder / "file.txt").symlink_to(tmp_path / "secret" / "key.txt")
    (folder / "deep" / "folder").symlink_to(tmp_path / "secret")
    (tmp_path / "secret" / "loop").symlink_to(tmp_path)
    with pytest.warns(
        SourceWarning, match=r"notes: links .* not followed: deep/folder, file\.txt\. Add --follow"
    ):
        files = find_sources([folder])
    links = {file.name for file in files if file.ignored == "link out of the folder"}
    assert links == {"deep/folder", "file.txt"}
    with pytest.warns(SourceWarning):
        assert {document.text for document in read(folder)} == {"Lima", "Ulm"}
    settings = ReadSettings(follow_links=True)
    assert {document.text for document in read(folder, settings=settings)} == {"Lima", "Ulm", "Jena"}


def test_a_folder_that_is_a_link(tmp_path):
    write(tmp_path / "notes" / "a.txt", "Lima")
    (tmp_path / "link").symlink_to(tmp_path / "notes")
    assert [document.id for document in read(tmp_path / "link")] == ["a.txt"]


def test_broken_link(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(SourceError, match="cannot be read"):
        read(tmp_path)


def test_a_text_file_loads_no_other_reader(tmp_path):
    (tmp_path / "notes.md").write_text("# Peru\n\nLima.")
    program = (
        "import sys; from ragweave.knowledge.ingest.loaders.loader import read_documents;"
        f" print(len(list(read_documents([{str(tmp_path)!r}]))), sorted(name for name in sys.modules"
        " if name.startswith(('ragweave.knowledge.ingest.loaders.', 'lxml', 'pypdfium2'))))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    room = "ragweave.knowledge.ingest.loaders"
    assert output.strip() == f"1 ['{room}.loader', '{room}.reader_process', '{room}.text']"


def save_data_set(folder, state):
    """A data set as datasets saves it, with the file that a `map` has left in its folder."""
    rows = Dataset.from_dict({"text": ["Lima", "Ulm"]})
    rows.save_to_disk(str(folder))
    write(folder / "cache-1234.arrow", (folder / "data-00000-of-00001.arrow").read_bytes())
    if state is not None:
        write(folder / "state.json", json.dumps(state))
    return folder


@pytest.mark.parametrize("within", ["", "train"])
def test_of_a_saved_data_set_only_its_files_are_read(tmp_path, within):
    save_data_set(tmp_path / within, None)
    files = {file.name.rpartition("/")[2]: file.ignored for file in find_sources([tmp_path])}
    assert files == {
        "cache-1234.arrow": "not in state.json",
        "data-00000-of-00001.arrow": "",
        "dataset_info.json": ".json",
        "state.json": ".json",
    }
    assert [document.text for document in read(tmp_path)] == ["Lima", "Ulm"]


def test_a_data_set_whose_file_is_missing(tmp_path):
    save_data_set(tmp_path, {"_data_files": [{"filename": "data-00001-of-00002.arrow"}]})
    with pytest.raises(SourceError, match=r"data-00001-of-00002\.arrow cannot be read"):
        read(tmp_path)


def test_a_data_set_that_names_files_elsewhere(tmp_path):
    secret = save_data_set(tmp_path / "secret", None) / "data-00000-of-00001.arrow"
    names = ["../secret/data-00000-of-00001.arrow", str(secret), "/etc/passwd", "state.json"]
    folder = save_data_set(tmp_path / "a", {"_data_files": [{"filename": name} for name in names]})
    with pytest.warns(
        SourceWarning, match=r"state\.json names .*/etc/passwd.* not an \.arrow file of the folder"
    ):
        files = find_sources([folder])
    assert {file.path.parent for file in files} == {folder}


@pytest.mark.parametrize("state", [{}, [], {"_data_files": [1]}, {"_data_files": {"a": {}}}])
def test_a_state_of_something_else(tmp_path, state):
    save_data_set(tmp_path, state)
    assert [file.name for file in find_sources([tmp_path]) if not file.ignored] == [
        "cache-1234.arrow",
        "data-00000-of-00001.arrow",
    ]


@pytest.mark.parametrize(
    "broken", ["raise ImportError('libc.so.7: cannot open', name=__name__)", "import none_such"]
)
def test_a_missing_package_costs_the_files_that_need_it(tmp_path, broken):
    packages = {"a.docx": "lxml", "a.html": "lxml", "a.pdf": "pypdfium2"}
    for name, package in packages.items():
        write(tmp_path / "packages" / package / "__init__.py", broken)
        write(tmp_path / "notes" / name, "x" * 2**21)  # too large for this process
    write(tmp_path / "notes" / "b.txt", "Lima")
    code = (
        "import sys; from ragweave.knowledge.ingest.loaders.loader import *; loader = DocumentLoader()\n"
        "for file in find_sources([sys.argv[1]]):\n"
        "    try: print([document.text for document in loader.load(file)])\n"
        "    except Exception as error: print(type(error).__name__, error)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}/packages:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", code, tmp_path / "notes"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *errors, text = result.stdout.splitlines()
    for error, (name, package) in zip(errors, packages.items(), strict=True):
        missing = "none_such" if "none_such" in broken else package
        assert (
            f"{name} cannot be read: its reader needs the package '{missing}', which is missing or damaged"
            in error
        )
        assert error.endswith(f"Run: pip install --force-reinstall {missing}")
    assert text == "['Lima']"

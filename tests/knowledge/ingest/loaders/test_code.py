"""Source code: a document for each function, class and method, which together are the file."""

from __future__ import annotations

from pathlib import Path

import pytest

import ragweave
from ragweave.errors import SourceError
from ragweave.knowledge.base import KnowledgeBase
from tests.support.documents import read, write

PYTHON = '''"""Cities."""
import os

# The capital.
# Of Peru.
@cache
def lima(a,
         b):
    def inner():
        pass

    return a

RIVER = 1


class City:
    """A city."""

    name = "Ulm"

    @property
    def size(self):
        return 1

    @size.setter
    def size(self, value):
        pass

    class Mayor:
        pass
'''
GO = """package main

import "fmt"

// Adds two numbers.
func add(a int) int {
\tx := 1

\tif x > 0 {
\t}

\treturn x
}

func (s *Server) Name() string {
\treturn s.name
}
"""
JAVA = """package x;

public class City extends Place {
    private int size = 1;

    /** The size. */
    public int getSize() {
        return size;
    }

    @Override
    public String toString() {
        return "";
    }
}
"""
JAVASCRIPT = """import x from 'y';

export async function load(path) {
  await x(path);
}

const z = 1;
"""


@pytest.mark.parametrize(
    ("name", "code", "titles"),
    [
        ("a.py", PYTHON, ["", "lima", "", "City", "City.size", "City.size", "City.Mayor"]),
        ("a.go", GO, ["", "add", "Name"]),
        ("a.java", JAVA, ["", "City", "City.getSize", "City.toString"]),
        ("a.js", JAVASCRIPT, ["", "load", ""]),
        ("a.toml", "[tool]\nname = 1\n\n[other]\n", [""]),
        ("broken.py", "def f(:\n    pass\n\n\ndef good():\n    pass\n", ["f", "good"]),
    ],
)
def test_titles(tmp_path, name, code, titles):
    write(tmp_path / "src" / name, code)
    documents = read(tmp_path)
    path = f"src/{name}"
    assert [document.title for document in documents] == [f"{path}::{t}" if t else path for t in titles]
    assert len({document.id for document in documents}) == len(documents)
    for document in documents:  # each begins in its line
        lines = document.text.split("\n")
        assert code.split("\n")[document.line - 1 :][: len(lines)] == lines


def test_comments_and_decorators_belong_to_their_function(tmp_path):
    text = read(write(tmp_path / "a.py", PYTHON))[1].text
    assert text.startswith("# The capital.\n# Of Peru.\n@cache\ndef lima(a,\n         b):")
    assert text.rstrip().endswith("return a")


def test_nothing_is_lost_of_real_files():
    folder = Path(ragweave.__file__).parent
    files = sorted(folder.rglob("*.py"))[:60]
    for path in files:
        lines = [line for document in read(path) for line in document.text.split("\n") if line.strip()]
        assert lines == [line for line in path.read_text().split("\n") if line.strip()], path


def test_passages_keep_lines_and_indentation(tmp_path, tiny_encoder):
    code = "def f(a):\n    if a:\n        return 1\n    return 2\n"
    base = KnowledgeBase.build([write(tmp_path / "a.py", code)], tmp_path / "kb", encoder=tiny_encoder)
    assert base.passage(0).text == code.rstrip()
    assert base.passage(0).title == "a.py::f"


@pytest.mark.parametrize(
    "code",
    ["(" * 10**5, "-" * 10**6 + "1", "x = " + "[" * 10**4 + "]" * 10**4, "a" * 10**6, "if x:\n" * 200 + "\0"],
)
def test_hostile_code(tmp_path, code):
    path = write(tmp_path / "a.py", code)
    if "\0" in code:
        with pytest.raises(SourceError, match="not text"):
            read(path)
    else:
        assert "".join(document.text for document in read(path)) == code


def test_lines_made_to_slow_down_the_search_for_names(tmp_path):
    code = (
        "\n\n".join(f"{piece * 100} " for piece in ("a ", "*&", "public ", "class ", "<>", "x(", "fn ("))
        + "\n"
    )
    assert "".join(d.text for d in read(write(tmp_path / "a.c", code * 100))).count("public") == 100 * 100

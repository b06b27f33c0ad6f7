"""reStructuredText, LaTeX, Org, subtitles, notebooks and logs: the text is kept, markup is not taken for text."""

from __future__ import annotations

import json
import time
import warnings

import pytest

from ragweave.errors import SourceError, SourceWarning
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.knowledge.ingest_settings import Chunking
from tests.support.documents import only_document, read, write

RST = """\
=====
Tides
=====

.. _target:
.. image:: sea.png
   :width: 200

The :term:`sea` rises, see `the page <https://example.org>`_ and ``moon()``.

# not a heading

Spring tide
-----------

.. note:: Twice a *month*.

.. code-block:: python

   print("# 1")
"""
TEX = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\title{On \emph{tides}}
\begin{document}
\section{Caf\'e and na\"{\i}ve \TeX}
The sea rises by 5\,\% % a comment
(see \cite[p.~3]{moon}). $a_{1} + \frac{b}{c}$
\begin{itemize}
\item Spring tide
\end{itemize}
\begin{tabular}{ll} Port & Height \\ Brest & 7 m \\ \end{tabular}
\end{document}
"""
ORG = """\
#+TITLE: Tides
* TODO Spring tide :sea:
:PROPERTIES:
:ID: 7
:END:
See [[https://example.org][the page]].
# a comment
| Port  | Height |
|-------+--------|
| Brest | 7 m    |
#+BEGIN_SRC sh
# not a heading
#+END_SRC
"""
VTT = """\
WEBVTT

NOTE by nobody

1
00:00:01.000 --> 00:00:04.000 line:0
<v Ida>The <i>sea</i> rises.

00:00:04.000 --> 00:00:06.000
<v Ida>The sea rises.

2
00:00:06.000 --> 00:00:08.000
Twice a day.
"""


def test_restructured_text(tmp_path):
    document = only_document(write(tmp_path / "a.rst", RST))
    assert document.title == "Tides"
    assert "The sea rises, see the page and `moon()`." in document.text
    assert "Note: Twice a *month*." in document.text
    assert not any(
        word in document.text for word in ("target", "sea.png", "width", "===", "---", "code-block")
    )
    assert document.text.count("\n") == RST.count("\n")
    passages = chunk(document, Chunking("markdown"))
    assert [passage.title for passage in passages] == ["Tides", "Tides > Spring tide"]
    assert "# not a heading" in passages[0].text
    assert 'print("# 1")' in passages[1].text
    assert passages[1].line == RST.split("\n").index(".. note:: Twice a *month*.") + 1


def test_latex(tmp_path):
    document = only_document(write(tmp_path / "a.tex", TEX))
    assert document.title == "On tides"
    text = " ".join(document.text.split())
    assert "Café and naïve TeX" in text
    assert "The sea rises by 5 % (see [moon]). $a_{1} + \\frac{b}{c}$" in text
    assert "- Spring tide" in text
    assert "Port | Height" in text and "Brest | 7 m" in text
    assert not any(word in text for word in ("comment", "itemize", "usepackage", "inputenc", "tabular"))


def test_org(tmp_path):
    document = only_document(write(tmp_path / "a.org", ORG))
    assert document.title == "Tides"
    passages = chunk(document, Chunking("markdown"))
    assert [passage.title for passage in passages] == ["Tides > Spring tide"]
    assert "See the page." in passages[0].text
    assert "Brest | 7 m" in passages[0].text
    assert "# not a heading" in passages[0].text
    assert not any(word in document.text for word in ("comment", "ID:", "TODO", "example.org", "SRC", "---"))


@pytest.mark.parametrize("name", ["a.vtt", "a.srt"])
def test_subtitles(tmp_path, name):
    text = VTT if name == "a.vtt" else VTT.partition("nobody\n\n")[2].replace(".000", ",000")
    assert only_document(write(tmp_path / name, text)).text == "Ida: The sea rises.\nTwice a day."


def test_notebook(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Tides\n", "The sea rises."]},
        {
            "cell_type": "code",
            "source": "# count\nprint(7)",
            "outputs": [
                {"output_type": "stream", "text": ["\x1b[31m7\x1b[0m\n"]},
                {
                    "output_type": "display_data",
                    "data": {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"},
                },
                {"output_type": "error", "ename": "ValueError", "evalue": "no moon", "traceback": ["long"]},
            ],
        },
    ]
    document = only_document(write(tmp_path / "a.ipynb", json.dumps({"cells": cells, "nbformat": 4})))
    assert document.title == "Tides"
    assert all(
        text in document.text for text in ("The sea rises.", "print(7)", "```\n7\n", "ValueError: no moon")
    )
    assert "iVBOR" not in document.text and "\x1b" not in document.text
    assert [passage.title for passage in chunk(document, Chunking("markdown"))] == ["Tides"]
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1"], "outputs": []}]}]}
    assert "x = 1" in only_document(write(tmp_path / "old.ipynb", json.dumps(old))).text


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cells": 5}', '{"cells": [{}]}', "[" * 100_000])
def test_damaged_notebook(tmp_path, content):
    with pytest.raises(SourceError, match=r"a\.ipynb cannot be read"):
        read(write(tmp_path / "a.ipynb", content))


def test_a_log_with_a_bad_byte_is_kept(tmp_path):
    path = write(tmp_path / "a.log", b"started\nn\xe9e\nstopped\n")
    with pytest.warns(SourceWarning, match="1 bytes are not UTF-8"):
        assert only_document(path).text == "started\nn\ufffde\nstopped\n"


def test_files_without_ending_are_read_if_they_are_text(tmp_path):
    write(tmp_path / "README", "The sea rises.")
    write(tmp_path / "LICENSE", "Ébène".encode("utf-16"))
    write(tmp_path / "program", b"\x7fELF\x02\x00\x00")
    write(tmp_path / "latin", b"caf\xe9 and more")
    assert [document.id for document in read(tmp_path)] == ["LICENSE", "README"]
    with pytest.raises(SourceError, match="is not text"):
        read(tmp_path / "program")


@pytest.mark.parametrize("name", ["a.rst", "a.tex", "a.org", "a.vtt"])
@pytest.mark.parametrize(
    "pattern",
    ["`", "$", "\\begin{", "{" * 50, "[[", "<v ", ".. |", "*", ":A:\n", "\\section[", "a <", "\\[", " \\"],
)
def test_reading_takes_time_in_proportion(tmp_path, name, pattern):
    def seconds(size: int) -> float:
        path = write(tmp_path / f"{size}{name}", pattern * (size // len(pattern)))
        started = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SourceWarning)
            read(path)
        return time.process_time() - started

    # Quadratic time would be 64 times as much. A busy machine, which slows one run down, does not slow down all.
    limit = 30 * seconds(20_000) + 0.5
    assert any(seconds(160_000) < limit for _ in range(5))

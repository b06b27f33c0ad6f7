"""The ``qa`` gold files of the research scripts, and DPR's."""

from __future__ import annotations

import pytest

from ragweave.errors import DataError
from ragweave.evaluation.data import read_examples
from tests.support.questions import parts, written


@pytest.mark.parametrize("name", ["nq-test.qa.csv", "gold.tsv", "gold.txt", "gold"])
def test_they_are_recognised_by_their_first_line(tmp_path, name):
    path = written(tmp_path / name, "where is it?\t['Lima', \"it's Peru\"]", "", 'who?\t["Ada"]')
    expected = [("1", "where is it?", ("Lima", "it's Peru"), ()), ("2", "who?", ("Ada",), ())]
    assert parts(read_examples(path)) == parts(read_examples(path, format="qa")) == expected


@pytest.mark.parametrize(
    ("line", "question", "answers"),
    [
        (
            '"who said ""hi""?"\t"[\'Ann\', ""d\'Arc""]"',
            'who said "hi"?',
            ("Ann", "d'Arc"),
        ),  # as pandas writes
        ('"Hi" was said by whom?\t["Ann"]', '"Hi" was said by whom?', ("Ann",)),  # as it stands
        ('who said "hi"?\t["Ann"]', 'who said "hi"?', ("Ann",)),
        ("3, or 4?\t('3', 4)", "3, or 4?", ("3", "4")),
        ("a?\t ['b'] ", "a?", ("b",)),
    ],
)
def test_quotation_marks(tmp_path, line, question, answers):
    (found,) = read_examples(written(tmp_path / "gold.tsv", line), format="qa")
    assert (found.question, found.answers) == (question, answers)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a?", "line 2 of .* has no tab: write the question, a tab and a list"),
        ("a?\tLima", r'line 2 of .* no list: write \["Lima", "Lima, Peru"\], and not \'Lima\''),
        ("a?\t'Lima'", "line 2 of .* no list"),
        ("a?\t['Lima'", "line 2 of .* no list"),
        ("a?\t['Lima']\t['Peru']", "line 2 of .* no list"),
        ("a?\t{'Lima'}", "line 2 of .* no list"),
        ("a?\t" + "[" * 10_000, "line 2 of .* no list"),
        ("a?\t[" + "1+" * 10_000 + "1j]", "line 2 of .* no list"),
        ("a?\t" + "-" * 100_000 + "1", "line 2 of .* no list"),
        ("a?\t[]", "line 2 of .* has no answers"),
        ("a?\t['']", "line 2 of .* has the answer ''"),
        ("\t['a']", "line 2 of .* has no question"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        read_examples(written(tmp_path / "gold.tsv", "ok?\t['a']", line))


def test_nothing_in_a_list_is_executed(tmp_path):
    path = written(tmp_path / "gold.tsv", f"a?\t[open({str(tmp_path / 'made')!r}, 'w')]")
    with pytest.raises(DataError, match="no list"):
        read_examples(path, format="qa")
    assert not (tmp_path / "made").exists()

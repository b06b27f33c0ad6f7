"""What is written is read as it was, and a failure leaves the old file."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragweave.errors import DataError
from ragweave.evaluation.data import Example, GivenPassage, read_examples, write_examples
from tests.support.questions import written

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map(str.strip).filter(bool)
TEXTS = st.lists(TEXT, unique=True, max_size=4).map(tuple)
CONTEXT = st.builds(
    GivenPassage,
    text=TEXT,
    title=st.just("") | TEXT,
    id=st.just("") | TEXT,
    gold=st.sampled_from([True, False, None]),
)
EXAMPLE = st.builds(
    Example,
    id=TEXT,
    question=TEXT,
    answers=TEXTS,
    gold_passages=TEXTS,
    where=st.text(),
    contexts=st.lists(CONTEXT, max_size=3).map(tuple),
    label=st.none() | TEXT,
).filter(lambda example: example.answers or example.gold_passages)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(EXAMPLE, min_size=1, unique_by=lambda example: example.id))
def test_what_is_written_is_read(tmp_path, examples):
    write_examples(tmp_path / "out.jsonl", iter(examples))
    assert read_examples(tmp_path / "out.jsonl", contexts=True) == examples


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([Example("1", "a?", ("a",)), Example("1", "b?", ("b",))], "Two questions have the id '1'"),
        (
            [Example("1", "a?", ("a",)), Example("2", "\ud83d?", ("b",))],
            "surrogate pair is in line 2 of what would",
        ),
    ],
)
def test_examples_that_could_not_be_read(tmp_path, examples, message):
    path = written(tmp_path / "out.jsonl", "old")
    with pytest.raises(DataError, match=message):
        write_examples(path, examples)
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = written(tmp_path / "out.jsonl", "old")

    def broken():
        yield Example("1", "b?", ("b",))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_examples(path, broken())
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"cannot be written .No such file or directory.: check the folder"):
        write_examples(tmp_path / "nowhere" / "out.jsonl", [Example("1", "a?", ("a",))])

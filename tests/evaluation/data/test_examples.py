"""Formats are detected, gold passages are checked, and examples are read as they were written."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragweave import KnowledgeBase
from ragweave.errors import DataError
from ragweave.evaluation.data import (
    FORMATS,
    Example,
    GivenPassage,
    check_gold,
    lacking_gold,
    read_examples,
    write_examples,
)
from tests.support.questions import written

LINE = '{"question": "a?", "answers": ["b"]}'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dev.jsonl", LINE),
        ("DEV.JSONL", f"\n\n{LINE}"),
        ("dev.json", LINE),
        ("dev.json", f"{LINE}\n{LINE}"),
        ("CuratedTrec-test.txt", LINE),
        ("dev", f"[{LINE}]"),
        ("dev.json", f" \n[{LINE}]"),
        ("dev.jsonl", f"[\n{LINE}\n]"),
        ("dev.csv", "a?\t['b']"),
        ("dev.csv", "question,answer\na?,b"),
        ("dev.TSV", "question\tanswer\na?\tb"),
    ],
)
def test_endings_and_first_lines(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    example = read_examples(tmp_path / name)[0]
    assert (example.question, example.answers) == ("a?", ("b",))


def test_a_first_line_longer_than_what_is_read_at_a_time(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(f'[{{"question": "a?", "answers": ["b"], "more": "{"x" * 2**21}"}}]')
    assert read_examples(path)[0].answers == ("b",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "dev.txt",
            "a?",
            "The format of .* cannot be detected: name it with --format",
        ),
        ("dev.json", '{\n"question": "a?"\n}', "one JSON object over several lines"),
        ("dev.json", "", "cannot be detected"),
        ("dev.jsonl", "", "There are no questions in"),
        ("dev.csv", "\n\n", "There are no questions in"),
        ("dev.jsonl.gz", "\x1f", "is compressed: unpack it first"),
    ],
)
def test_files_that_say_too_little(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_examples(tmp_path / name)


def test_files_and_formats_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*: check the path, or add --format dataset"):
        read_examples(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match=r"There is no file .*: check the path\.$"):
        read_examples(tmp_path / "nothing.jsonl", format="jsonl")
    with pytest.raises(DataError, match=f"Unknown format 'xml'. Choose one of: {', '.join(FORMATS)}"):
        read_examples(tmp_path / "dev.txt", format="xml")
    with pytest.raises(DataError, match="limit is 0: ask for at least 1"):
        read_examples(written(tmp_path / "dev.jsonl", LINE), limit=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_encoder):
    folder = tmp_path_factory.mktemp("gold")
    source = written(folder / "peru.txt", "Lima is the capital.")
    return KnowledgeBase.build([source], folder / "kb", encoder=tiny_encoder)


def test_passages_and_documents_are_found(base):
    examples = [Example("1", "a?", ("a",), ("peru.txt",)), Example("2", "b?", ("b",), ("peru.txt#0",))]
    assert lacking_gold(examples, base) == []
    check_gold([*examples, Example("3", "c?", ("c",))], base)


def test_those_that_are_not_there_are_named_with_their_lines(tmp_path, base):
    golds = ["peru.txt#0", "chile.txt", ["peru.txt#0", "cuba.txt"]]
    lines = [{"question": f"{n}?", "answers": ["a"], "passages": gold} for n, gold in enumerate(golds)]
    path = written(tmp_path / "dev.jsonl", *lines)
    examples = read_examples(path)
    assert lacking_gold(examples, base) == [(examples[1], "chile.txt"), (examples[2], "cuba.txt")]
    message = (
        f"lacks 2 of the 4 gold passages: 'chile.txt' .line 2 of {path}., 'cuba.txt' .line 3 of {path}.. Build it .*"
        "--columns passages=-"
    )
    with pytest.raises(DataError, match=message):
        check_gold(examples, base)
    check_gold(read_examples(path, columns={"passages": "-"}), base)


def test_only_the_first_of_many_are_named(base):
    examples = [Example(f"q{n}", "a?", ("a",), (f"p{n}",)) for n in range(1000)]
    with pytest.raises(DataError, match=r"lacks 1000 of the 1000 .*'p4' \(q4\) and 995 others\. Build"):
        check_gold(examples, base)


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
            "surrogate pair is in line 2 of the text for",
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

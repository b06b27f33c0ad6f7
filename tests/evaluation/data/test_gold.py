"""Gold passages that a knowledge base lacks."""

from __future__ import annotations

import pytest

from ragweave import KnowledgeBase
from ragweave.errors import DataError
from ragweave.evaluation.data import Example, check_gold, lacking_gold, read_examples
from tests.support.questions import written


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

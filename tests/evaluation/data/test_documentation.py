"""The files shown in docs/evaluation-data.md are read as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ragweave.evaluation.data import FORMATS, RECIPES, read_examples
from tests.support.questions import parts

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation-data.md").read_text("utf-8")
CAPITAL, ANSWERS = "What is the capital of Peru?", ("Lima", "Ciudad de los Reyes")

SHOWN = {
    "dev.jsonl": [
        ("q1", CAPITAL, ANSWERS, ("peru#0",)),
        ("2", "Which river runs through Ulm?", ("the Danube",), ("ulm.txt", "rivers#2")),
        ("3", "Where are these said?", ("in a list",), ("lists",)),
    ],
    "kilt-dev.jsonl": [("k1", CAPITAL, ANSWERS, ("170691",))],
    "dpr-dev.json": [
        ("1", "what is the capital of peru", ("Lima",), ("17",)),
        ("2", "where does ulm lie", ("on the Danube",), ()),
    ],
    "nq-test.qa.csv": [
        ("1", "what is the capital of peru", ANSWERS, ()),
        ("2", 'who said "I came, I saw"?', ("Julius Caesar",), ()),
    ],
    "test.source": [
        ("1", CAPITAL, ("Lima",), ()),
        ("2", "Which river runs through Ulm?", ("the Danube",), ()),
    ],
    "dev.csv": [
        ("q1", CAPITAL, ANSWERS, ("peru#0",)),
        ("q2", "Which river, if any, runs through Ulm?", ("the Danube",), ()),
    ],
    "dev.tsv": [("1", CAPITAL, ("Lima",), ())],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    for name, content in re.findall(r"^`([\w.-]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.M | re.S):
        (folder / name).write_text(content, "utf-8")
    return folder


def test_every_file_that_is_shown_is_read(folder):
    assert {path.name for path in folder.iterdir()} == {*SHOWN, "test.target"}


@pytest.mark.parametrize("name", SHOWN)
def test_files_are_read_as_they_are_shown(folder, name):
    assert parts(read_examples(folder / name)) == SHOWN[name]


def test_every_format_and_recipe_is_described():
    for name in FORMATS[1:]:
        assert f"[`{name}`](#" in PAGE
    for name in RECIPES:
        assert f"| `{name}` |" in PAGE
    for recipe in RECIPES.values():
        assert recipe.hub.partition(":")[0] in PAGE

"""The metrics package imports quickly, every metric is documented, and the examples in docstrings are correct."""

from __future__ import annotations

import doctest
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ragweave.evaluation import metrics

MODULES = sorted(module.name for module in pkgutil.iter_modules(metrics.__path__, f"{metrics.__name__}."))
MODULES.append("ragweave.matching")
PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text("utf-8")


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


@pytest.mark.parametrize("name", [name for name in metrics.__all__ if name[0].islower()])
def test_every_metric_has_an_example_and_a_line_in_the_documents(name: str) -> None:
    assert "Example:\n" in getattr(metrics, name).__doc__
    assert f"`{name}" in PAGE


def test_importing_loads_no_library_but_numpy() -> None:
    heavy = ("torch", "transformers", "sacrebleu", "rouge_score", "nltk", "scipy")
    loaded = run(
        f"import sys, ragweave.evaluation.metrics; print([name for name in {heavy} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"
    loaded = run("import sys, ragweave.evaluation; print('numpy' in sys.modules)")
    assert loaded.strip() == "False"


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("sacrebleu", "bleu_1(['a'], [['a']])"),
        ("rouge_score", "rouge_l('a', ['a'])"),
        ("scipy", "bootstrap_interval([0, 1])"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_extra(module: str, call: str) -> None:
    output = run(
        f"import sys; sys.modules['{module}'] = None\n"
        "from ragweave.errors import MissingExtraError\n"
        "from ragweave.evaluation.metrics import *\n"
        f"try: {call}\n"
        "except MissingExtraError as error: print(error)"
    )
    assert f"'{module}'" in output
    assert "pip install 'ragweave[eval]'" in output

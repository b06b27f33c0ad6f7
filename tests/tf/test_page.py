"""The Python examples of docs/tensorflow.md and of the docstrings run; a small model stands in for the hub's."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import ragweave
from ragweave.retrieval.memory import MemoryIndex
from tests.support import retrieval
from tests.tf.parity import FORMULATIONS, OURS

PAGE = Path(__file__).parents[2] / "docs" / "tensorflow.md"
BLOCK = re.compile(r"<!-- not run: needs TensorFlow; .+? -->\n+```python\n(?P<code>.*?)^```", re.M | re.S)
DOCSTRING_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```", re.M | re.S)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that examples use, in a folder in which the names of the hub are those of small models."""
    monkeypatch.chdir(tmp_path)
    config = retrieval.config()
    tokenizers = retrieval.question_tokenizer(), retrieval.generator_tokenizer()
    titles, texts = zip(*retrieval.PASSAGES, strict=True)
    index = MemoryIndex(texts, retrieval.vectors(), titles)
    for formulation in FORMULATIONS:
        OURS[formulation](config).save_pretrained(tmp_path / f"facebook/rag-{formulation}-nq")
    return {
        "retriever": ragweave.RagRetriever(config, *tokenizers, index=index),
        "tokenizer": ragweave.RagTokenizer(*tokenizers),
    }


def test_the_page_runs(names: dict[str, Any]):
    blocks = [match["code"] for match in BLOCK.finditer(PAGE.read_text("utf-8"))]
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)  # noqa: S102  # the project's own page
    assert Path("rag-of-keras", "model.safetensors").is_file()


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_the_docstring_runs(formulation: str, names: dict[str, Any]):
    model_class = OURS[formulation]
    (block,) = DOCSTRING_BLOCK.findall(textwrap.dedent(model_class.__doc__.partition("Example:\n")[2]))
    names[model_class.__name__] = model_class
    exec(compile(block, model_class.__name__, "exec"), names)  # noqa: S102  # the project's own docstring
    assert [type(answer) for answer in names["answers"]] == [str]


def test_tensors_are_decoded(names: dict[str, Any]):
    tokenizer = names["tokenizer"]
    ids = tokenizer.generator("the capital of France")["input_ids"]
    row = OURS["token"](retrieval.config()).shift_tokens_right([ids], ids[0])[0]
    expected = tokenizer.decode([ids[0], *ids[:-1]])
    assert tokenizer.decode(row) == expected
    assert tokenizer.batch_decode([row, row]) == [expected, expected]

"""Importing ragweave is quick and loads no framework; names come when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ragweave

HEAVY = ("torch", "transformers", "numpy", "faiss", "datasets", "pyarrow", "huggingface_hub", "rich", "typer")


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_importing_loads_no_framework() -> None:
    loaded = run(f"import sys, ragweave; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_importing_takes_less_than_a_third_of_a_second() -> None:
    """A third of a second of the processor: it may be busy with something else."""
    program = "import time; start = time.process_time(); import ragweave; print(time.process_time() - start)"
    assert any(float(run(program)) < 0.3 for _ in range(10))


def test_looking_around_loads_nothing_either() -> None:
    loaded = run(
        "import sys, ragweave; dir(ragweave); ragweave.__all__; ragweave.__version__; import ragweave.errors;"
        f" print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("name", ragweave.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(ragweave, name) is not None


def test_every_name_that_resolves_is_public() -> None:
    assert len(ragweave.__all__) > 20
    assert sorted([*ragweave._HOME_OF, "__version__"]) == ragweave.__all__ == dir(ragweave)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ragweave' has no attribute 'RagTransformer'"):
        _ = ragweave.RagTransformer
    assert not hasattr(ragweave, "RagTransformer")


def test_the_models_never_import_transformers_own_rag() -> None:
    """It is the oracle of the tests and nothing else."""
    loaded = run(
        "import sys, ragweave; ragweave.RagTokenForGeneration, ragweave.RagSequenceForGeneration,"
        " ragweave.RagConfig, ragweave.RagTokenizer, ragweave.RagModel;"
        " print([name for name in sys.modules if name.startswith('transformers.models.rag.')])"
    )
    assert loaded.strip() == "[]"

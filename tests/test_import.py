"""Importing ragweave loads nothing else; names come when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ragweave


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_importing_and_looking_around_loads_nothing_else() -> None:
    """Nothing but the package itself and its errors, so it takes no time that a user would notice."""
    loaded = run(
        "import sys; before = {name.split('.')[0] for name in sys.modules}; import ragweave;"
        "dir(ragweave); ragweave.__all__; ragweave.__version__; import ragweave.errors;"
        "own = [name for name in sys.modules if name.split('.')[0] not in {*sys.stdlib_module_names, *before}];"
        "print(*own)"
    )
    assert loaded.split() == ["ragweave", "ragweave.errors"]


@pytest.mark.parametrize("name", ragweave.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(ragweave, name) is not None


def test_every_name_that_resolves_is_public() -> None:
    assert len(ragweave.__all__) > 20
    assert ragweave.__all__ == dir(ragweave)


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

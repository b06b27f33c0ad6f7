"""The backend of Keras is chosen on first use. In separate processes, since Keras chooses only once."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import pytest

import ragweave.tf
from ragweave.tf.keras_backend import dtype_policy


def run(code: str, **environment: str) -> str:
    """The last line that a new process prints, or the last line of its error."""
    variables = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return (result.stdout if result.returncode == 0 else result.stderr).strip().splitlines()[-1]


def test_importing_loads_no_framework():
    code = """
import os, sys
import ragweave.tf
from ragweave import tf
assert "TFRagModel" in dir(tf)
loaded = {"keras", "tensorflow", "torch", "transformers"} & set(sys.modules)
print(sorted(loaded), os.environ.get("KERAS_BACKEND"))
"""
    assert run(code) == "[] None"


def test_tensorflow_is_chosen_on_first_use():
    code = """
import os, ragweave.tf
ragweave.tf.TFRagModel
import keras
print(keras.config.backend(), os.environ["KERAS_BACKEND"])
"""
    assert run(code) == "tensorflow tensorflow"


def test_a_different_loaded_backend_is_an_error():
    code = """
import os
os.environ["KERAS_BACKEND"] = "torch"
import keras
del os.environ["KERAS_BACKEND"]
import ragweave.tf
ragweave.tf.TFRagModel
"""
    expected = "Keras was imported with the backend 'torch', but these classes need 'tensorflow': set"
    assert expected in run(code)


def test_the_variable_chooses_the_backend():
    code = "import ragweave.tf; ragweave.tf.TFRagModel; import keras; print(keras.config.backend())"
    assert run(code, KERAS_BACKEND="torch") == "torch"
    assert "KERAS_BACKEND is 'numpy'; choose one of tensorflow, jax, torch" in run(
        code, KERAS_BACKEND="numpy"
    )


def test_the_error_names_the_missing_extra():
    code = """
import sys
sys.modules["tensorflow"] = None
import ragweave.tf
ragweave.tf.TFRagModel
"""
    assert "run pip install 'ragweave[tf]'" in run(code)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'TFRag'"):
        ragweave.tf.TFRag  # noqa: B018


def test_dtype_policies_are_restored():
    before = keras.config.dtype_policy().name
    with pytest.raises(RuntimeError), dtype_policy("mixed_bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        raise RuntimeError
    assert keras.config.dtype_policy().name == before

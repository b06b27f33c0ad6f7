"""The benchmark of the TensorFlow classes runs and reports what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="needs the TensorFlow backend")
def test_the_benchmark_measures_torch_and_tensorflow():
    result = subprocess.run(
        [
            sys.executable,
            "benchmarks/tensorflow_classes.py",
            *("--size", "tiny", "--rounds", "1", "--tokens", "3", "--length", "10"),
        ],
        cwd=ROOT,
        env={**os.environ, "RAGWEAVE_BENCH_JSON": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "tokens equal" in result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["what"] for row in rows] == ["torch", "tensorflow"] * 4
    assert all(row["median"] > 0 for row in rows)

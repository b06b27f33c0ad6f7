"""The modules that the models of torch and TensorFlow share import neither framework."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
sys.modules.update(torch=None, tensorflow=None, keras=None)  # importing any of them fails
import ragweave.modeling.parts, ragweave.modeling.proposals, ragweave.outputs
"""


def test_shared_modules_import_no_framework() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=120)

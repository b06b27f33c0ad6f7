"""Import and start-up: ragweave against transformers' own RAG classes, each in a new process.

python benchmarks/startup.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial

from harness import compare, in_turn, machine, say

CALLS = {
    "transformers.RagTokenForGeneration": "from transformers import RagTokenForGeneration",
    "ragweave.RagTokenForGeneration": "from ragweave import RagTokenForGeneration",
    "import ragweave": "import ragweave",
    "ragweave --help": "import sys; sys.argv = ['ragweave', '--help']; from ragweave.cli import main; main()",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    say(machine())
    calls = {
        name: partial(subprocess.run, [sys.executable, "-c", code], check=True, capture_output=True)
        for name, code in CALLS.items()
    }
    compare("start-up", in_turn(calls, args.rounds), next(iter(CALLS)))


if __name__ == "__main__":
    main()

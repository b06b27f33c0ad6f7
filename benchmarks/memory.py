"""Peak memory that generating and a training step add to the model: ragweave against transformers.

Each is measured in a new process, by the kernel's high-water mark of resident memory (Linux).

    python benchmarks/memory.py [--rounds 2] [--beams 4] [--size tiny] [--work training]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from harness import compare, machine, say

PEER = "transformers"
WORK = ("token", "sequence", "training")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--size", choices=("base", "tiny"), default="base")
    parser.add_argument("--work", choices=WORK, nargs="+", default=WORK)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure, beams=args.beams, size=args.size)))
        return
    say(machine())
    command = [sys.executable, __file__, "--beams", str(args.beams), "--size", args.size, "--measure"]
    for work in args.work:
        found: dict[str, list[float]] = {PEER: [], "ragweave": []}
        for _ in range(args.rounds):
            for who, own in found.items():
                result = subprocess.run(  # noqa: S603
                    [*command, work, who], check=True, capture_output=True, text=True
                )
                own.append(json.loads(result.stdout.splitlines()[-1]))
        compare(f"memory, {work}, R {args.beams}", found, PEER, "MB")


def measure(work: str, who: str, *, beams: int, size: str) -> float:
    """What the work adds to resident memory at its highest, in MB."""
    import torch
    from models import contexts, pair
    from transformers.utils import logging

    logging.set_verbosity_error()
    models = pair("sequence" if work == "sequence" else "token", size=size)
    model = models[0] if who == PEER else models[1]
    del models
    questions, padded = (2, 300) if work == "training" else (4, 120 if work == "sequence" else 300)
    vocabulary = model.config.generator.vocab_size
    given = contexts(questions, 5, length=150, padded=padded, vocabulary=vocabulary)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # begin the high-water mark anew
    if work == "training":
        labels = torch.randint(3, vocabulary, (questions, 20))
        model(**given, labels=labels, reduce_loss=True).loss.backward()
    else:
        model.generate(**given, num_beams=beams, max_length=21, min_length=21)
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """A figure of this process's memory, in MB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0]) / 1000


if __name__ == "__main__":
    main()

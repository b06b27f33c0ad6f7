"""Write docs/performance.md and its picture from the figures of a run of the benchmarks.

ragweave bench --json > results.jsonl
python benchmarks/performance_page.py results.jsonl [--machine TEXT] [--output docs]
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from harness import machine

Row = dict[str, Any]

HEAD = """# Performance

Written by `benchmarks/performance_page.py` from figures of `ragweave bench --json` on: {machine}.

{introduction}
"""
INTRODUCTION = """Each peer runs in the same process as ragweave, in turn, several times; ratios are medians over the
rounds, with the lowest and the highest behind them. Above 1, ragweave is faster, or smaller. A neighbour on the
machine moves single rounds, and now and then a whole benchmark. Decoding and training use a generator of BART-base's
size with random weights, B 4 (training: 2), K 5, contexts of about 150 tokens padded to 300 (sequence decoding: 120,
unpadded, since transformers drops the mask there), and 20 tokens; ragweave's tokens in float32 are compared with
transformers' before the clock runs."""

ABOUT_SPEED = """## Where the time goes

- torch multiplies float32 matrices on x86 with MKL, which on AMD's processors reaches half of what oneDNN does
  there. ragweave sends the linear layers of its models to oneDNN on such processors (`ragweave.encoders.linear`), in training
  too; on Intel's it changes nothing. That is a factor of about 1.8 in the float32 figures above; what is left of the
  ratios is less work. `torch.backends.mkldnn.flags(enabled=False)` switches it off.
- Contexts are cut to the longest real one, and those of like length are read together, a few at a time: activations
  that outgrow a processor's caches cost up to four times as much (32 questions together took 124 s, and take 32 s).
- A step of decoding is about half linear layers (the table's "linear layers' share of a step"); attention to the
  contexts, the mixture of the passages and the beams' bookkeeping are the rest.
- Retrieval adds to FAISS the reading of vectors and texts: 0.25 ms of Python for 8 questions of 5 passages, and the
  page faults of passages that no one asked for before.
- `torch.compile` of an encoder changes nothing on a processor (0.51 against 0.52 s for 7 contexts of 150 tokens in
  float32, 0.174 against 0.171 s in bfloat16) after 7 to 10 s of compiling, so nothing here is compiled.
- Beams share the keys and values of their context; nothing of it is computed, kept or moved per beam.
- RAG-Sequence scores a hypothesis only under the passages whose search did not propose it; fast decoding, under none.

## Precision

The embedded model on the 130 questions of a development set from XQuAD, K 5, extractive, one question at a time
(`python -m experiments.embedded.evaluate --dtype ...`), on the same machine, with its first adapter and
passages found by vectors alone:

| `dtype` | Exact match | F1 | Seconds for all |
|-|-|-|-|
| `float32` | 0.438 | 0.545 | 205 |
| `bfloat16` (`"auto"` here) | 0.446 | 0.550 | 127 |
| `int8` | 0.454 | 0.554 | 132 |
| `int8` of every layer (not offered) | 0.215 | 0.322 | 119 |

The differences between the first three are within what 130 questions can tell (one question is 0.008). `int8` pays on
processors without bfloat16 instructions. It leaves the head and the second layers of feed-forward blocks in float32,
whose inputs have outliers; the last row is what happens otherwise.
"""

SERVING = """## Serving

`ragweave bench serving -- KB --questions 64` on two threads of an Intel Xeon (avx512_bf16, amx_bf16), the knowledge
base of these pages, K 5, batches up to 8, passages found by vectors alone, the first adapter; other work ran on the
machine now and then. Callers ask one question after the other; the first row is one question at a time. The second
table is `--size tiny --questions 192`: a random generator of two layers.

| The embedded model | Questions/s | Ratio | p50 | p99 | Lost |
|-|-|-|-|-|-|
| 1 caller | 0.636 | 1 | 1.28 s | 3.96 s | 0 |
| 8 callers | 0.901 | 1.42 | 8.34 s | 12.4 s | 0 |
| 32 callers | 0.873 | 1.37 | 32.3 s | 39.7 s | 0 |

| A tiny generator | Questions/s | Ratio | p50 | p99 | Lost |
|-|-|-|-|-|-|
| 1 caller | 2.85 | 1 | 0.352 s | 0.436 s | 0 |
| 8 callers | 8.80 | 3.09 | 0.897 s | 0.971 s | 0 |
| 32 callers | 9.27 | 3.25 | 3.46 s | 3.56 s | 0 |

What batching gains is the time between the multiplications. The tiny generator has little else, and three times as
many questions are answered together as one by one. The embedded model on a processor spends its time on reading
contexts and on multiplying, which eight questions need eight times: the aim of three times the throughput at 32
callers is missed there.

Ten minutes of 32 callers at the tiny generator (`--size tiny --clients 32 --soak 10`): 5,040 questions answered, none
failed; memory of the server 916 MiB after the first minute, 919 MiB at the end, 931 MiB at most.
"""

ELSEWHERE = """## On another machine

On an Intel Xeon (avx512_bf16, amx_bf16), two threads, a training step took transformers 3.7 s, ragweave 2.2 s and
with bfloat16 autocast 1.1 s: 1.65 to 1.69 and 3.27 to 3.39 times as fast, medians of two runs of
`python benchmarks/training_step.py --rounds 5`. (The version whose figures are above, run in turn with this one: 1.64
to 1.85 and 3.44 to 3.66.) transformers multiplies faster there than on the machine of the tables above; the aim of
1.8 in float32 is missed by a tenth.

## TensorFlow

`python benchmarks/tensorflow_classes.py` on that Intel machine: the classes of `ragweave.tf` against ragweave's torch
classes, the same weights of BART-base's size, B 2, K 5, contexts of 150 tokens, 20 tokens of an answer; float32,
medians of five rounds. Losses differ by 1.5e-05, tokens are equal.

| | torch | TensorFlow | Ratio |
|-|-|-|-|
| Forward, with loss | 0.666 s | 0.748 s | 0.89 (0.86 to 0.93) |
| Training step | 2.399 s | 2.42 s | 0.99 (0.95 to 1.15) |
| 20 tokens, greedy | 1.64 s | 2.02 s | 0.81 (0.80 to 0.82) |
| 20 tokens, 4 beams | 1.84 s | 2.38 s | 0.78 (0.75 to 0.86) |
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="lines of JSON that ragweave bench --json printed")
    parser.add_argument(
        "--machine", default=machine(), help="what the run was on; this machine where left out"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.results.read_text("utf-8").splitlines() if line.strip()]
    growth = [row for row in rows if row["benchmark"].startswith("growth")]
    parts = [
        HEAD.format(machine=args.machine, introduction=INTRODUCTION),
        *tables(rows),
        ABOUT_SPEED,
        SERVING,
        ELSEWHERE,
    ]
    if growth:
        draw(growth, args.output / "performance.svg")
        parts.append(
            "## How cost grows\n\nSeconds of one RAG-Token `generate` (float32, 20 tokens), from K 5, R 4, B 2 and "
            "contexts of 150 tokens, one of\nthem changed at a time.\n\n"
            "![Seconds against K, R, B and context length](performance.svg)\n"
        )
    (args.output / "performance.md").write_text("\n".join(parts), encoding="utf-8")


def tables(rows: list[Row]) -> list[str]:
    """A table for each benchmark, those of one kind together."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if not row["benchmark"].startswith(("growth", "serving", "soak")):
            found[row["benchmark"].partition(",")[0]].append(row)
    pages = []
    for name, own in found.items():
        lines = [f"## {name[0].upper()}{name[1:]}\n", "| | | Median | Ratio |", "|-|-|-|-|"]
        for row in own:
            ratio = ""
            if row.get("ratio", 1.0) != 1.0 or row.get("lowest", 1.0) != 1.0:
                ratio = f"{row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})"
            part = row["benchmark"].partition(",")[2].strip()
            lines.append(f"| {part} | {row['what']} | {row['median']:.4g} {row['unit']} | {ratio} |")
        pages.append("\n".join(lines) + "\n")
    return pages


def draw(rows: list[Row], path: Path) -> None:
    """One panel for each of what was changed."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ragweave"
    from matplotlib import pyplot as plt

    names = {"K": "passages K", "R": "beams R", "B": "questions B", "S": "tokens of a context"}
    figure, panels = plt.subplots(1, len(names), figsize=(11, 2.8), sharey=True, layout="constrained")
    for panel, (axis, name) in zip(panels, names.items(), strict=True):
        own = [row for row in rows if row["benchmark"] == f"growth with {axis}"]
        panel.plot(
            [int(row["what"].split()[1]) for row in own],
            [row["median"] for row in own],
            marker="o",
            color="#1f5fa8",
        )
        panel.set_xlabel(name)
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(bottom=0, top=1.05 * max(row["median"] for row in rows))  # of all: they share it
    panels[0].set_ylabel("seconds")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()

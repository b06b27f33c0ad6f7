"""What the benchmarks share: taking turns with a peer, and saying what machine this is."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from ragweave.cli.bench import JSON_VARIABLE
from ragweave.encoders.linear import fast_linear


def machine() -> str:
    """This machine, in a line."""
    capabilities = torch.cpu.get_capabilities()
    kinds = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(name)]
    return (
        f"{capabilities.get('cpu_name') or platform.processor() or platform.machine()} ({', '.join(kinds)}), "
        f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, Python {platform.python_version()}"
    )


def matmul_peak(dtype: torch.dtype, size: int = 1536, rounds: int = 10) -> float:
    """The best matrix-multiplication speed seen here, by any of torch's libraries, in GFLOP/s: the limit."""
    layer = torch.nn.Linear(size, size, bias=False).to(dtype)
    x = torch.randn(size, size).to(dtype)
    with torch.inference_mode():
        fastest = min(seconds(lambda: layer(x)) for _ in range(rounds))
        with fast_linear(layer):
            fastest = min(fastest, *(seconds(lambda: layer(x)) for _ in range(rounds)))
    return 2 * size**3 / fastest / 1e9


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def in_turn(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of several calls that take turns, so that what else the machine does falls on all of them."""
    for call in calls.values():
        call()  # warm up
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return taken


def compare(name: str, taken: dict[str, list[float]], peer: str, unit: str = "s") -> None:
    """Report the median of each, and its ratio to the peer with the spread of the rounds.

    Args:
        name: The benchmark.
        taken: What each took in every round; less is better.
        peer: Which of them the others are compared with.
        unit: Of what was taken.
    """
    for one, own in taken.items():
        ratios = [p / s for p, s in zip(taken[peer], own, strict=True)]
        emit(
            {
                "benchmark": name,
                "what": one,
                "median": statistics.median(own),
                "unit": unit,
                "ratio": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
        )


def emit(row: dict[str, Any]) -> None:
    """Print one figure: a line of JSON where ``ragweave bench --json`` asks for it, else a line to read."""
    if as_json():
        print(json.dumps(row), flush=True)
        return
    ratio = ""
    if "ratio" in row:
        ratio = f"   {row['ratio']:7.2f} x ({row['lowest']:.2f} to {row['highest']:.2f})"
    print(
        f"{row['benchmark']:<30} {row['what']:<34} {row['median']:10.4g} {row['unit']:<12}{ratio}", flush=True
    )


def say(text: str) -> None:
    """Print a remark, beside the figures."""
    print(text, file=sys.stderr if as_json() else sys.stdout, flush=True)


def as_json() -> bool:
    """Whether figures are to be lines of JSON."""
    return os.environ.get(JSON_VARIABLE) == "1"

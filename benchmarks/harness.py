"""What the benchmarks share: taking turns with a peer, and saying what machine this is."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def machine() -> str:
    """This machine, in a line."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    kinds = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(name)]
    return (
        f"{capabilities.get('cpu_name') or platform.processor() or platform.machine()} ({', '.join(kinds)}), "
        f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, Python {platform.python_version()}"
    )


def matmul_peak(dtype: torch.dtype, size: int = 1536, rounds: int = 10) -> float:
    """The best matrix-multiplication speed seen here, in GFLOP/s: the limit of everything else."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    fastest = min(seconds(lambda: a @ b) for _ in range(rounds))
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


def compare(name: str, taken: dict[str, list[float]], peer: str) -> list[dict[str, Any]]:
    """Median seconds of each, and its ratio to the peer with the spread of the rounds; printed and returned."""
    rows = []
    for one, own in taken.items():
        ratios = [p / s for p, s in zip(taken[peer], own, strict=True)]
        rows.append(
            {
                "benchmark": name,
                "what": one,
                "seconds": statistics.median(own),
                "ratio": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
        )
        row = rows[-1]
        print(
            f"{name:<28} {one:<28} {row['seconds']:8.3f} s   {row['ratio']:5.2f} x "
            f"({row['lowest']:.2f} to {row['highest']:.2f})",
            flush=True,
        )
    return rows

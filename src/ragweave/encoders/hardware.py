"""What the processor can do."""

from __future__ import annotations

from typing import Any


def cpu_capabilities() -> dict[str, Any]:
    """Instruction sets and name of the processor, as torch tells them (from version 2.7 or so; else nothing)."""
    import torch

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities

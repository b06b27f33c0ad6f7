"""Where passages are embedded: in this process, or by the workers of a cluster."""

from __future__ import annotations

from ragweave.knowledge.engines.local import LocalEngine
from ragweave.knowledge.engines.protocol import Engine

__all__ = ["Engine", "LocalEngine"]

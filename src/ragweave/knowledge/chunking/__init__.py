"""Cutting documents into passages, in one of several ways."""

from __future__ import annotations

from ragweave.knowledge.chunking.cutting import chunk
from ragweave.knowledge.chunking.settings import Chunking, ChunkingKind

__all__ = ["Chunking", "ChunkingKind", "chunk"]

"""One question as it stands in a file, whatever the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One question as it stands in a file.

    Attributes:
        where: The file and the line.
        fields: What is there, by name.
        is_text: Whether all of it is text, so that a list is spelled out in it, as in a table.
    """

    where: str
    fields: Mapping[str, Any]
    is_text: bool = False

"""Pages with parts that several experiments write."""

from __future__ import annotations

from pathlib import Path


def replace_part(path: Path, name: str, text: str) -> None:
    """Put a part of a page in the place of what it was, or at the page's end; the other parts stay.

    Args:
        path: The page, which need not be there yet.
        name: Of the part; a comment before and after it tells where it stands.
        text: What it is from now on.
    """
    begin, end = f"<!-- part: {name} -->", f"<!-- end of part: {name} -->"
    part = f"{begin}\n\n{text.strip()}\n\n{end}"
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    before, found, rest = page.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    before = before if found else f"{page.rstrip()}\n\n".lstrip()
    path.write_text(before + part + after, encoding="utf-8")

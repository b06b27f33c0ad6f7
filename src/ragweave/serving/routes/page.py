"""``GET /`` and ``/docs``: the page, and the endpoints for people to read."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

STATIC = Path(__file__).parents[1] / "static"

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> FileResponse:
    """The page."""
    return _file("index.html")


@router.get("/docs")
async def reference() -> FileResponse:
    """The endpoints, from the OpenAPI schema."""
    return _file("reference.html")


def _file(name: str) -> FileResponse:
    return FileResponse(STATIC / name, headers={"Cache-Control": "no-cache"})

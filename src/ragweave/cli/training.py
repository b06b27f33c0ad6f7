"""A file of further arguments, as the commands that train take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragweave.errors import ConfigurationError


def read_settings_file(path: Path | None) -> dict[str, Any]:
    """Read a YAML file of arguments by name.

    Raises:
        ConfigurationError: It cannot be read, or holds something else.
    """
    if path is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as YAML ({error}): write 'name: value' lines."
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds no arguments: write 'name: value' lines.")
    return content

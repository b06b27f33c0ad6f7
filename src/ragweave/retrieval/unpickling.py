"""Reading old pickled data without ever executing anything from it."""

from __future__ import annotations

import pickle  # only its restricted reader below is used
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ragweave.errors import IndexDataError

# Lists, dictionaries, tuples, strings and numbers have opcodes of their own. Of everything that a pickle may
# name, these two containers are all that is let through.
_ADMITTED = {("builtins", "set"): set, ("builtins", "frozenset"): frozenset}


class _PlainDataUnpickler(pickle.Unpickler):
    """Knows containers, strings and numbers, and no function or class beside them."""

    def find_class(self, module: str, name: str) -> Any:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return admitted

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside of it")


def load_plain_data(path: Path) -> Any:
    """Read a pickle that holds containers, strings and numbers only.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        IndexDataError: It holds anything else, or is damaged. Nothing of it has been executed.
    """
    try:
        with path.open("rb") as file:
            return _load(file)
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise IndexDataError(
            f"{path} is no plain data ({error}): only containers, strings and numbers are read from pickles."
        ) from error


def _load(file: BinaryIO) -> Any:
    return _PlainDataUnpickler(file).load()

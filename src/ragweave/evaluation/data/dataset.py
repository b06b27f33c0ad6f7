"""Data sets of the library ``datasets``: a folder that it saved, one of data files, or a name on the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ragweave.errors import DataError
from ragweave.evaluation.data.record import Record

_USUAL = "validation"
_SAVED = ("dataset_dict.json", "state.json")
"""What is in a folder that ``save_to_disk`` has written."""


def from_dataset(name: str) -> Iterator[Record]:
    """Read a split of a data set; of numbered classes, their names.

    Args:
        name: ``NAME[,CONFIGURATION][:SPLIT]``, where ``NAME`` is a folder that ``save_to_disk`` has written, a copy
            of one of the hub's, or a name on the hub. Without a split, the only one saved, or else ``validation``.

    Yields:
        A record a row.

    Raises:
        DataError: There is no such data set, or it has no such split.
    """
    import datasets

    try:
        rows = _opened(name)
    # Names that the hub does not have, and splits that the data set does not, are OSErrors and ValueErrors; data sets
    # that come as a script are RuntimeErrors.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"The data set '{name}' cannot be read ({reason}): write NAME,CONFIGURATION:SPLIT, or the folder of a "
            "saved one."
        ) from error
    classes = {
        column: feature
        for column, feature in rows.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    for number, row in enumerate(rows, start=1):
        yield Record(f"row {number} of {name}", {**row, **_named(row, classes)})


def _opened(name: str) -> Any:
    """The rows of a split, as plain Python values."""
    import datasets

    whole, split = (name, "") if Path(name).is_dir() else _parted(name, ":")
    if not any((Path(whole) / own).is_file() for own in _SAVED):
        place, configuration = (whole, "") if Path(whole).is_dir() else _parted(whole, ",")
        return datasets.load_dataset(place, configuration or None, split=split or _USUAL)
    loaded = datasets.load_from_disk(whole)
    if isinstance(loaded, datasets.DatasetDict):
        chosen = split or (next(iter(loaded)) if len(loaded) == 1 else _USUAL)
        if chosen not in loaded:
            raise ValueError(f"it has the splits {', '.join(loaded)}, and not '{chosen}'")
        loaded = loaded[chosen]
    elif split:
        raise ValueError("it was saved without splits")
    return loaded.with_format(None)


def _parted(name: str, separator: str) -> tuple[str, str]:
    """A name and what follows its last separator, if it has one."""
    head, found, tail = name.rpartition(separator)
    return (head, tail) if found else (name, "")


def _named(row: Mapping[str, Any], classes: Mapping[str, Any]) -> dict[str, str | None]:
    """The names of the classes that a row has as numbers; -1 stands for none."""
    return {
        column: None if row[column] in (None, -1) else feature.int2str(row[column])
        for column, feature in classes.items()
    }

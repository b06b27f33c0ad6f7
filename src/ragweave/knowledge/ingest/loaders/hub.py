"""Data sets of the hub as sources: what the datasets library has downloaded is read like any other file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ragweave.errors import SourceError
from ragweave.knowledge.source_records import SourceFile

if TYPE_CHECKING:
    from datasets import Dataset

# A path made of the address has one slash less.
_ADDRESS = re.compile(
    r"hf://?datasets/(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^:,]+))?(?:,(?P<configuration>[^:]+))?"
    r"(?::(?P<split>[\w.-]+))?"
)


def is_address(source: Path | str) -> bool:
    """Whether a source is of the hub, and not of the disk."""
    return str(source).startswith(("hf:/",))


def find_on_hub(source: Path | str) -> list[SourceFile]:
    """Download a data set, or find it in the cache.

    Args:
        source: ``hf://datasets/NAME[@REVISION][,CONFIGURATION][:SPLIT]``; the split is ``train`` where left out.

    Returns:
        Its files, which are Arrow's, known by the address and not by where the cache is.

    Raises:
        SourceError: The address is none, or there is no such data set, or the hub cannot be reached.
    """
    from datasets import Dataset, load_dataset

    match = _ADDRESS.fullmatch(str(source))
    if match is None:
        raise SourceError(
            f"{source} is no address of a data set: write hf://datasets/NAME@REVISION,CONFIGURATION:SPLIT, of which "
            "all but the name may be left out."
        )
    try:
        found = load_dataset(
            match["name"], match["configuration"], split=match["split"] or "train", revision=match["revision"]
        )
    except (OSError, ValueError, ConnectionError) as error:
        raise SourceError(
            f"The data set {match['name']} cannot be had from the hub ({str(error).splitlines()[0]}): check its "
            "name, configuration and split, and the connection."
        ) from error
    if not isinstance(found, Dataset):
        raise SourceError(f"{source} has several splits: name one.")
    return files_of(found, str(source).replace("hf:/d", "hf://d", 1))


def files_of(dataset: Dataset, address: str) -> list[SourceFile]:
    """The files that a data set was mapped into memory from, known by an address."""
    paths = [Path(str(file["filename"])) for file in dataset.cache_files]
    names = [address] if len(paths) == 1 else [f"{address}#{number}" for number in range(len(paths))]
    return [
        SourceFile(path=path, name=name.rpartition("/")[2], known_as=name)
        for path, name in zip(paths, names, strict=True)
    ]

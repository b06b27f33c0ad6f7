"""Data sets of the Hugging Face hub: the datasets library downloads them, and their Arrow files are the sources."""

from __future__ import annotations

import re
from pathlib import Path

from datasets import Dataset, load_dataset

from ragweave.errors import SourceError
from ragweave.types import SourceFile

# An address that was turned into a path has lost one slash.
_ADDRESS = re.compile(
    r"hf://?datasets/(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^:,]+))?(?:,(?P<configuration>[^:]+))?"
    r"(?::(?P<split>[\w.-]+))?"
)


def find_on_hub(address: str) -> list[SourceFile]:
    """Download a data set, unless it is in the cache. Its Arrow files have the address as their source."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise SourceError(
            f"{address} is not the address of a data set: write hf://datasets/NAME@REVISION,CONFIGURATION:SPLIT. "
            "Only the name is required."
        )
    try:
        dataset = load_dataset(
            match["name"], match["configuration"], split=match["split"] or "train", revision=match["revision"]
        )
    except (OSError, ValueError, ConnectionError) as error:
        raise SourceError(
            f"The data set {match['name']} cannot be loaded from the hub ({str(error).splitlines()[0]}): check its "
            "name, configuration and split, and the connection."
        ) from error
    if not isinstance(dataset, Dataset):
        raise SourceError(f"{address} has several splits: name one.")
    return dataset_files(dataset, address.replace("hf:/d", "hf://d", 1))


def dataset_files(dataset: Dataset, address: str) -> list[SourceFile]:
    """The files that a data set was memory-mapped from, with an address as their source."""
    paths = [Path(str(file["filename"])) for file in dataset.cache_files]
    names = [address] if len(paths) == 1 else [f"{address}#{number}" for number in range(len(paths))]
    return [
        SourceFile(path=path, name=name.rpartition("/")[2], known_as=name)
        for path, name in zip(paths, names, strict=True)
    ]

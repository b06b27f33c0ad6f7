"""Where the files of an index lie: in a folder, or in a repository on the hub.

wiki_dpr and its snapshots are laid out like this:

    data/psgs_w100/{nq,multiset,dummy.nq,...}/train-00000-of-00157.parquet      id, text, title, embeddings
    index/psgs_w100.{nq,multiset}.HNSW128_SQ8-IP-train.faiss                    "exact"
    index/psgs_w100.{nq,multiset}.IVF4096_HNSW128_PQ128-IP-train.faiss          "compressed"

Any other data set has its Parquet files wherever it likes, with the name of the split in the name of the file
or of a folder above it, as data sets on the hub do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragweave.errors import IndexDataError

WIKI_DPR = "facebook/wiki_dpr"
HUB_NAMES = {"wiki_dpr": WIKI_DPR}
PASSAGES = "data/psgs_w100"
FAISS_KINDS = {"exact": "HNSW128_SQ8-IP", "compressed": "IVF4096_HNSW128_PQ128-IP"}
_SPLITS = ("train", "validation", "valid", "dev", "eval", "test")
_SHARD = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<total>\d{5})\.parquet")


@dataclass(frozen=True)
class Source:
    """The folder of a data set, and what is wanted of it."""

    folder: Path
    variant: str
    index_name: str
    index_path: str | None

    @property
    def is_like_wiki_dpr(self) -> bool:
        """Whether passages and index lie where wiki_dpr's do."""
        return (self.folder / PASSAGES).is_dir()

    def shards(self, split: str) -> list[Path]:
        """The Parquet files of a split, in their order.

        Raises:
            IndexDataError: There are none, or some of them are missing.
        """
        if self.is_like_wiki_dpr:
            place = self.folder / PASSAGES / self.variant
            everything = sorted(place.glob("*.parquet"))
            found = [path for path in everything if path.name.startswith(f"{split}-")]
        else:
            place = self.folder
            everything = sorted(place.rglob("*.parquet"))
            names = [path.relative_to(place).as_posix() for path in everything]
            if split == "train" and not any(_has_word(name, known) for name in names for known in _SPLITS):
                found = everything  # files that name no split are for training, as on the hub
            else:
                pairs = zip(everything, names, strict=True)
                found = [path for path, name in pairs if _has_word(name, split)]
        if not found:
            held = ", ".join(path.name for path in everything[:5]) or "no Parquet file at all"
            raise IndexDataError(
                f"There are no Parquet files of split {split!r} in {place}, which holds {held}: fetch them, or "
                "change dataset, dataset_split or use_dummy_dataset."
            )
        _check_complete(found)
        return found

    def faiss_file(self) -> Path | None:
        """The FAISS file: the one that was asked for, or the data set's own, or ``None``.

        Raises:
            IndexDataError: The one that was asked for is not there, or several would do.
        """
        if self.index_path is not None:
            for path in (Path(self.index_path), self.folder / self.index_path):
                if path.is_file():
                    return path
            raise IndexDataError(f"index_path: there is no file {self.index_path}, nor one in {self.folder}.")
        if self.is_like_wiki_dpr:
            path = self.folder / _wiki_dpr_index(self.variant, self.index_name)
            return path if path.is_file() else None
        files = sorted(self.folder.rglob("*.faiss"))
        of_kind = [path for path in files if FAISS_KINDS[self.index_name] in path.name]
        of_no_kind = [path for path in files if not any(kind in path.name for kind in FAISS_KINDS.values())]
        found = of_kind or of_no_kind
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(self.folder)) for path in found[:5])
            raise IndexDataError(
                f"{len(found)} FAISS files are in {self.folder}; name one as index_path: {names}."
            )
        return found[0] if found else None


def find(
    dataset: str, *, index_name: str, index_path: str | None, use_dummy_dataset: bool, revision: str | None
) -> Source:
    """Find a data set: a folder, or else a snapshot of what is needed from the hub.

    Args:
        dataset: Path of a folder, or a name on the hub.
        index_name: "exact" or "compressed".
        index_path: FAISS file to use instead of the data set's own.
        use_dummy_dataset: Use wiki_dpr's small stand-in.
        revision: Revision on the hub.

    Returns:
        The folder.

    Raises:
        IndexDataError: There is neither, or it has no small stand-in.
    """
    variant = (
        "dummy.nq" if use_dummy_dataset else "nq"
    )  # the vectors of DPR's encoder for NQ, as transformers
    if Path(dataset).is_dir():
        folder = Path(dataset)
    else:
        repository = HUB_NAMES.get(dataset, dataset)
        if repository == WIKI_DPR:
            passages, own_index = [f"{PASSAGES}/{variant}/*.parquet"], _wiki_dpr_index(variant, index_name)
        else:
            passages, own_index = ["*.parquet", "*.arrow", "*.json"], "*.faiss"
        local = index_path is not None and Path(index_path).is_file()
        folder = hub_snapshot(repository, revision, passages + [index_path or own_index] * (not local))
    source = Source(folder, variant, index_name, index_path)
    if use_dummy_dataset and not source.is_like_wiki_dpr:
        raise IndexDataError(
            f"use_dummy_dataset: the data set '{dataset}' has no small stand-in; only one laid out like "
            f"wiki_dpr has, in {PASSAGES}/{variant}."
        )
    return source


def hub_snapshot(repository: str, revision: str | None, wanted: Sequence[str]) -> Path:
    """The folder with those files of a data set on the hub that match a pattern.

    Raises:
        IndexDataError: It cannot be had.
    """
    from huggingface_hub import snapshot_download

    return _fetched(
        lambda: snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=list(wanted)
        ),
        f"dataset: '{repository}' is neither a folder nor to be had from the hub. Check the name and the "
        "connection, or give the folder of a snapshot",
    )


def hub_file(repository: str, name: str) -> Path:
    """A file of a repository on the hub, of a data set or else of a model.

    Raises:
        IndexDataError: It cannot be had.
    """
    from huggingface_hub import hf_hub_download

    message = (
        f"index_path: '{repository}' is neither a folder with {name} in it nor a repository to be had from the "
        "hub. Check the name and the connection, or give the folder"
    )
    try:
        return _fetched(lambda: hf_hub_download(repository, name, repo_type="dataset"), message)
    except IndexDataError:
        return _fetched(lambda: hf_hub_download(repository, name, repo_type="model"), message)


def _fetched(fetch: Callable[[], str], message: str) -> Path:
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(fetch())
    except (OSError, HFValidationError) as error:  # the hub's other errors are OSErrors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise IndexDataError(f"{message} ({reason}).") from error


def _wiki_dpr_index(variant: str, index_name: str) -> str:
    return f"index/psgs_w100.{variant}.{FAISS_KINDS[index_name]}-train.faiss"


def _has_word(name: str, word: str) -> bool:
    """Whether a word is in a path as a word of its own."""
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", name) is not None


def _check_complete(shards: Sequence[Path]) -> None:
    """Of shards that say how many they are, all must be there: rows are counted through them."""
    numbers: dict[tuple[Path, str, int], set[int]] = {}
    for path in shards:
        if shard := _SHARD.fullmatch(path.name):
            series = (path.parent, shard["name"], int(shard["total"]))
            numbers.setdefault(series, set()).add(int(shard["number"]))
    for (folder, name, total), present in numbers.items():
        missing = sorted(set(range(total)) - present)
        if missing:
            raise IndexDataError(
                f"{len(missing)} of {total} Parquet files are missing in {folder}, the first of them "
                f"{name}-{missing[0]:05}-of-{total:05}.parquet: fetch them."
            )

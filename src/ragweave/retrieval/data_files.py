"""Locating the files of an index: in a folder, or in a repository on the hub.

wiki_dpr and its snapshots are laid out like this:

    data/psgs_w100/{nq,multiset,dummy.nq,...}/train-00000-of-00157.parquet      id, text, title, embeddings
    index/psgs_w100.{nq,multiset}.HNSW128_SQ8-IP-train.faiss                    "exact"
    index/psgs_w100.{nq,multiset}.IVF4096_HNSW128_PQ128-IP-train.faiss          "compressed"

Any other data set may have its Parquet files anywhere. As on the hub, the split is named in the file name or in a
folder above it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragweave.errors import IndexDataError

WIKI_DPR = "facebook/wiki_dpr"
PASSAGES = "data/psgs_w100"
FAISS_KINDS = {"exact": "HNSW128_SQ8-IP", "compressed": "IVF4096_HNSW128_PQ128-IP"}
_SPLITS = ("train", "validation", "valid", "dev", "eval", "test")
_SHARD = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<total>\d{5})\.parquet")


@dataclass(frozen=True)
class Source:
    """The folder of a data set, and which of its files to use."""

    folder: Path
    variant: str
    index_name: str
    index_path: str | None

    @property
    def is_like_wiki_dpr(self) -> bool:
        """Whether passages and index are laid out as in wiki_dpr."""
        return (self.folder / PASSAGES).is_dir()

    def shards(self, split: str) -> list[Path]:
        """The Parquet files of a split, in their order. Raises `IndexDataError` if any or all are missing."""
        if self.is_like_wiki_dpr:
            folder = self.folder / PASSAGES / self.variant
            files = sorted(folder.glob("*.parquet"))
            shards = [path for path in files if path.name.startswith(f"{split}-")]
        else:
            folder = self.folder
            files = sorted(folder.rglob("*.parquet"))
            names = [path.relative_to(folder).as_posix() for path in files]
            if split == "train" and not any(_has_word(name, known) for name in names for known in _SPLITS):
                shards = files  # as on the hub, files that name no split are for training
            else:
                pairs = zip(files, names, strict=True)
                shards = [path for path, name in pairs if _has_word(name, split)]
        if not shards:
            content = ", ".join(path.name for path in files[:5]) or "no Parquet file at all"
            raise IndexDataError(
                f"There are no Parquet files of split {split!r} in {folder}, which holds {content}: download "
                "them, or change dataset, dataset_split or use_dummy_dataset."
            )
        _check_complete(shards)
        return shards

    def faiss_file(self) -> Path | None:
        """The requested FAISS file, or the data set's own, or ``None``.

        Raises `IndexDataError` if the requested file is missing, or several files match.
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
        matches = of_kind or of_no_kind
        if len(matches) > 1:
            names = ", ".join(str(path.relative_to(self.folder)) for path in matches[:5])
            raise IndexDataError(
                f"{len(matches)} FAISS files are in {self.folder}; name one as index_path: {names}."
            )
        return matches[0] if matches else None


def find(
    dataset: str, *, index_name: str, index_path: str | None, use_dummy_dataset: bool, revision: str | None
) -> Source:
    """Locate a data set: a folder, or a snapshot of the required files from the hub.

    ``index_name`` is "exact" or "compressed", and ``index_path`` names a FAISS file to use instead of the data set's
    own. Raises `IndexDataError` if it does not exist, or has no small stand-in.
    """
    # The vectors of DPR's encoder for NQ, as in transformers.
    variant = "dummy.nq" if use_dummy_dataset else "nq"
    if Path(dataset).is_dir():
        folder = Path(dataset)
    else:
        repository = WIKI_DPR if dataset == "wiki_dpr" else dataset
        if repository == WIKI_DPR:
            passages, index = [f"{PASSAGES}/{variant}/*.parquet"], _wiki_dpr_index(variant, index_name)
        else:
            passages, index = ["*.parquet", "*.arrow", "*.json"], "*.faiss"
        local = index_path is not None and Path(index_path).is_file()
        folder = hub_snapshot(repository, revision, passages + [index_path or index] * (not local))
    source = Source(folder, variant, index_name, index_path)
    if use_dummy_dataset and not source.is_like_wiki_dpr:
        raise IndexDataError(
            f"use_dummy_dataset: the data set '{dataset}' has no small stand-in; only one laid out like "
            f"wiki_dpr has, in {PASSAGES}/{variant}."
        )
    return source


def hub_snapshot(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Download the files of a data set that match a pattern, or raise `IndexDataError`, and return their folder."""
    from huggingface_hub import snapshot_download

    return _download(
        lambda: snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=list(patterns)
        ),
        f"dataset: '{repository}' is neither a folder nor a data set that the hub serves. Check the name and "
        "the connection, or give the folder of a snapshot",
    )


def hub_file(repository: str, name: str) -> Path:
    """Download a file of a repository on the hub, of a data set or else of a model, or raise `IndexDataError`."""
    from huggingface_hub import hf_hub_download

    message = (
        f"index_path: '{repository}' is neither a folder with {name} in it nor a repository on the hub that can be "
        "downloaded. Check the name and the connection, or give the folder"
    )
    try:
        return _download(lambda: hf_hub_download(repository, name, repo_type="dataset"), message)
    except IndexDataError:
        return _download(lambda: hf_hub_download(repository, name, repo_type="model"), message)


def _download(fetch: Callable[[], str], message: str) -> Path:
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(fetch())
    except (OSError, HFValidationError) as error:  # the hub's other errors are OSErrors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise IndexDataError(f"{message} ({reason}).") from error


def _wiki_dpr_index(variant: str, index_name: str) -> str:
    return f"index/psgs_w100.{variant}.{FAISS_KINDS[index_name]}-train.faiss"


def _has_word(name: str, word: str) -> bool:
    """Whether a path contains a whole word."""
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", name) is not None


def _check_complete(shards: Sequence[Path]) -> None:
    """Refuse a series of numbered shards with gaps, because row numbers count through all of them."""
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
                f"{name}-{missing[0]:05}-of-{total:05}.parquet: download them."
            )

"""Where the files of an index lie: in a folder, or in a repository on the hub.

The layout of ``facebook/wiki_dpr``, and of folders like it:

    data/psgs_w100/{nq,multiset,dummy.nq,...}/train-00000-of-00157.parquet      id, text, title, embeddings
    index/psgs_w100.{nq,multiset}.HNSW128_SQ8-IP-train.faiss                    "exact"
    index/psgs_w100.{nq,multiset}.IVF4096_HNSW128_PQ128-IP-train.faiss          "compressed"

Any other data set has its Parquet files wherever it likes, with the name of the split in the name of the file
or of a folder above it, as hub data sets do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ragweave.errors import IndexDataError

HUB_NAMES = {"wiki_dpr": "facebook/wiki_dpr"}
WIKI_DPR = "facebook/wiki_dpr"
PASSAGES = "data/psgs_w100"
FAISS_KINDS = {"exact": "HNSW128_SQ8-IP", "compressed": "IVF4096_HNSW128_PQ128-IP"}
_SPLITS = ("train", "validation", "valid", "dev", "eval", "test")
_SHARD = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<total>\d{5})\.parquet")


def wiki_dpr_variant(use_dummy_dataset: bool) -> str:
    """The folder of wiki_dpr's passages: those with the vectors of DPR's single-NQ encoder."""
    return "dummy.nq" if use_dummy_dataset else "nq"


def find_folder(
    dataset: str, *, variant: str, index_name: str, index_path: str | None, revision: str | None
) -> Path:
    """The folder of a data set: one on disk, or a snapshot of what is needed from the hub.

    Raises:
        IndexDataError: There is neither.
    """
    if Path(dataset).is_dir():
        return Path(dataset)
    repository = HUB_NAMES.get(dataset, dataset)
    of_wiki_dpr = repository == WIKI_DPR
    wanted = [f"{PASSAGES}/{variant}/*.parquet"] if of_wiki_dpr else ["*.parquet", "*.arrow", "*.json"]
    if index_path is None:
        wanted.append(_wiki_dpr_index(variant, index_name) if of_wiki_dpr else "*.faiss")
    elif not Path(index_path).exists():
        wanted.append(index_path)
    return hub_snapshot(repository, revision, wanted)


def find_shards(folder: Path, *, variant: str, split: str) -> list[Path]:
    """The Parquet files of a split, in their order.

    Raises:
        IndexDataError: There are none, or some of them are missing.
    """
    if (folder / PASSAGES).is_dir():
        place = folder / PASSAGES / variant
        found = sorted(place.glob(f"{split}-*.parquet"))
        hint = "fetch them, or choose another dataset_split or use_dummy_dataset"
    else:
        place, everything = folder, sorted(folder.rglob("*.parquet"))
        found = [path for path in everything if _names(path.relative_to(folder), split)]
        if split == "train" and not any(
            _names(p.relative_to(folder), s) for p in everything for s in _SPLITS
        ):
            found = everything  # files that name no split at all are for training, as on the hub
        names = ", ".join(str(path.relative_to(folder)) for path in everything[:5])
        hint = f"it holds {names}" if everything else "it holds no Parquet file at all"
    if not found:
        raise IndexDataError(f"There are no Parquet files of split {split!r} in {place}: {hint}.")
    _check_complete(found)
    return found


def find_faiss(folder: Path, *, variant: str, index_name: str, index_path: str | None) -> Path | None:
    """The FAISS file: the given one, or the data set's own, or ``None``.

    Raises:
        IndexDataError: The given one is not there, or several would do.
    """
    if index_path is not None:
        for path in (Path(index_path), folder / index_path):
            if path.is_file():
                return path
        raise IndexDataError(f"index_path: there is no FAISS file at {index_path}, nor in {folder}.")
    if (folder / PASSAGES).is_dir():
        path = folder / _wiki_dpr_index(variant, index_name)
        return path if path.is_file() else None
    found = sorted(folder.rglob("*.faiss"))
    of_kind = [path for path in found if FAISS_KINDS[index_name] in path.name]
    of_any_kind = [path for path in found if not any(kind in path.name for kind in FAISS_KINDS.values())]
    choice = of_kind or of_any_kind
    if len(choice) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in choice)
        raise IndexDataError(f"There are several FAISS files in {folder}; name one with index_path: {names}.")
    return choice[0] if choice else None


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
        f"dataset: '{repository}' is neither a folder nor to be had from the hub: check the name and the "
        "connection, or give the folder of a snapshot",
    )


def hub_file(repository: str, name: str) -> Path:
    """A file of a repository on the hub, of a data set or else of a model.

    Raises:
        IndexDataError: It cannot be had.
    """
    from huggingface_hub import hf_hub_download

    message = (
        f"index_path: {name} is neither in a folder '{repository}' nor to be had from the hub: check the "
        "name and the connection, or give the folder that holds it"
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


def _names(path: Path, split: str) -> bool:
    """Whether a path names a split, as a word of its own."""
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(split)}(?![A-Za-z0-9])", path.as_posix()) is not None


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

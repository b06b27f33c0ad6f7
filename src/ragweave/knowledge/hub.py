"""Sharing on the Hugging Face hub: a version of a knowledge base as a data set, and code shared with models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ragweave.errors import KnowledgeBaseError, RagweaveError
from ragweave.knowledge.layout import files_of
from ragweave.knowledge.snapshot import Snapshot

PATTERNS = ("CURRENT", "versions/*", "segments/*")
"""The files of a knowledge base in a repository. It holds data only: nothing in it is executed."""

_LISTED_SOURCES = 50
_FACTS = """version created passages documents encoder fingerprint pooling normalize dimension chunking words tokens
    overlap language index factory recall ragweave""".split()  # noqa: SIM905


def push(snapshot: Snapshot, repository: str, *, licence: str, description: str, private: bool) -> str:
    """Upload a version in one commit; see `KnowledgeBase.push_to_hub`."""
    root, name = snapshot.path, snapshot.version
    paths = [snapshot.layout.version(name).manifest]
    paths += [path for path, _ in files_of(snapshot.layout, name, snapshot.manifest)]
    files: dict[str, Any] = {path.relative_to(root).as_posix(): path for path in paths}
    files["CURRENT"] = f"{name} {snapshot.manifest.checksum[:16]}\n".encode()
    files["README.md"] = "\n".join(_card(snapshot, repository, licence, description)).encode()
    replaced = ("versions/", "segments/")
    kind, error = "knowledge base", KnowledgeBaseError
    return upload(kind, repository, files, error, private=private, repo_type="dataset", replaced=replaced)


def upload(
    what: str,
    repository: str,
    files: Mapping[str, Any],
    error_class: type[RagweaveError],
    *,
    private: bool,
    repo_type: str,
    replaced: tuple[str, ...] = (),
) -> str:
    """Upload files (local paths or contents, by their paths in the repository) and return the name of the commit.

    Other files in the repository whose paths begin with one of ``replaced`` are deleted.
    """
    # Imported here because only sharing needs these, and the import takes a second.
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, repo_type=repo_type, private=private, exist_ok=True)
        present = api.list_repo_files(repository, repo_type=repo_type) if replaced else []
        changes: list[Any] = [CommitOperationAdd(path, content) for path, content in files.items()]
        stale = [path for path in present if path.startswith(replaced) and path not in files]
        changes += map(CommitOperationDelete, stale)
        message = f"Upload a {what} of ragweave"
        commit = api.create_commit(repository, changes, commit_message=message, repo_type=repo_type)
    except (OSError, HFValidationError) as error:  # the hub's other errors are OSErrors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise error_class(
            f"The {what} cannot be pushed to {repository} ({reason}). Check the name, the connection and the login "
            "('hf auth login')."
        ) from error
    return str(commit.oid)


def head(repository: str, licence: str, description: str) -> tuple[str, ...]:
    """The first lines of a card."""
    tags = ("tags:", "- ragweave", "- retrieval-augmented-generation")
    return (
        *("---", f"license: {licence}", "library_name: ragweave", *tags, "---"),
        *("", f"# {repository.rpartition('/')[2]}", "", description, ""),
    )


def _card(snapshot: Snapshot, repository: str, licence: str, description: str) -> Iterator[str]:
    yield from head(repository, licence, description)
    yield from ("A knowledge base for ragweave: passages, their vectors, and an index.", "")
    yield from ("```python", "from ragweave import KnowledgeBase", "")
    yield from (f'base = KnowledgeBase.from_hub("{repository}")', "```", "", "| | |", "|-|-|")
    manifest = snapshot.manifest
    facts = {**manifest.summary(), "version": snapshot.version, "ragweave": manifest.ragweave_version}
    yield from (f"| {name} | {facts[name]} |" for name in _FACTS)
    counts = sorted(snapshot.source_counts().items())
    yield from ("", "## Sources", "", "| source | passages |", "|-|-|")
    for source, count in counts[:_LISTED_SOURCES]:
        yield f"| {source.replace('|', '&#124;')} | {count.passages} |"
    if len(counts) > _LISTED_SOURCES:
        yield from ("", f"{len(counts) - _LISTED_SOURCES} more sources are not listed.")
    yield ""

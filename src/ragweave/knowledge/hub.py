"""Sharing on the Hugging Face hub: a version of a knowledge base as a data set, and what models need as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ragweave.errors import KnowledgeBaseError, RagweaveError
from ragweave.knowledge.layout import files_of
from ragweave.knowledge.snapshot import Snapshot

PATTERNS = ("CURRENT", "versions/*", "segments/*")
"""The files of a knowledge base in a repository. It holds data only: nothing in it is executed."""

_LISTED_SOURCES = 50


def push(snapshot: Snapshot, repository: str, *, licence: str, description: str, private: bool) -> str:
    """Upload a version in one commit; see `KnowledgeBase.push_to_hub`."""
    root, name = snapshot.path, snapshot.version
    paths = [snapshot.layout.version(name).manifest]
    paths += [path for path, _ in files_of(snapshot.layout, name, snapshot.manifest)]
    files: dict[str, Any] = {path.relative_to(root).as_posix(): path for path in paths}
    files["CURRENT"] = f"{name} {snapshot.manifest.checksum[:16]}\n".encode()
    files["README.md"] = "\n".join(_card(snapshot, repository, licence, description)).encode()
    replaced = ("versions/", "segments/")
    return upload(
        "knowledge base",
        repository,
        files,
        KnowledgeBaseError,
        private=private,
        repo_type="dataset",
        replaced=replaced,
    )


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
    """Upload files in one commit.

    Args:
        what: What they are, in words.
        repository: Where to; it is created if it does not exist.
        files: Paths or contents, by their paths in the repository.
        error_class: What to raise if the hub cannot be reached or refuses.
        private: Whether a new repository is private.
        repo_type: "dataset" or "model".
        replaced: What paths begin with that are deleted there if they are not among the files.

    Returns:
        The commit.
    """
    # Only sharing needs them, and they take a second.
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, repo_type=repo_type, private=private, exist_ok=True)
        present = api.list_repo_files(repository, repo_type=repo_type) if replaced else []
        commit = api.create_commit(
            repository,
            repo_type=repo_type,
            commit_message=f"Upload a {what} of ragweave",
            operations=[
                *(CommitOperationAdd(path, content) for path, content in files.items()),
                *(
                    CommitOperationDelete(one)
                    for one in present
                    if one.startswith(replaced) and one not in files
                ),
            ],
        )
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
    """The lines of the card."""
    facts = snapshot.manifest.summary()
    yield from head(repository, licence, description)
    yield from ("A knowledge base for ragweave: passages, their vectors, and an index.", "", "```python")
    yield from (
        "from ragweave import KnowledgeBase",
        "",
        f'base = KnowledgeBase.from_hub("{repository}")',
        "```",
        "",
    )
    yield from ("| | |", "|-|-|", f"| version | {snapshot.version} |")
    shown = (
        "created",
        "passages",
        "documents",
        "encoder",
        "fingerprint",
        "pooling",
        "normalize",
        "dimension",
    )
    for key in (*shown, "chunking", "words", "tokens", "overlap", "language", "index", "factory", "recall"):
        yield f"| {key} | {facts[key]} |"
    yield f"| ragweave | {snapshot.manifest.ragweave_version} |"
    counts = sorted(snapshot.source_counts().items())
    yield from ("", "## Sources", "", "| source | passages |", "|-|-|")
    for source, count in counts[:_LISTED_SOURCES]:
        yield f"| {source.replace('|', '&#124;')} | {count} |"
    if len(counts) > _LISTED_SOURCES:
        yield from ("", f"{len(counts) - _LISTED_SOURCES} more sources are not listed.")
    yield ""

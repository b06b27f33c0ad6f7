"""The folder of a run: intermediate results and answers, so that a run can resume."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.hot_swap.answers import VERSIONS, AnswerFile, Version
from experiments.hot_swap.corpus import Document

if TYPE_CHECKING:
    from ragweave import TextEncoder
    from ragweave.types import Progress


class Workplace:
    """The folder of a run: documents, knowledge base, answers, and what was done so far.

    Args:
        folder: The folder.
        documents: The documents of each version.

    Attributes:
        state: What was done: versions and passages of the knowledge base, seconds of each step.
        answers: The answers.

    Raises:
        SystemExit: The folder was made for other documents.
    """

    def __init__(self, folder: Path, documents: dict[Version, list[Document]]) -> None:
        self.folder = folder
        self._state_file = folder / "state.json"
        texts = {
            version: "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in own)
            for version, own in documents.items()
        }
        hashes = {version: hashlib.sha256(text.encode()).hexdigest() for version, text in texts.items()}
        self.state: dict[str, Any] = {"documents": hashes, "versions": {}, "passages": {}, "seconds": {}}
        if self._state_file.exists():
            self.state = json.loads(self._state_file.read_text(encoding="utf-8"))
        if self.state["documents"] != hashes:
            raise SystemExit(
                f"{folder} holds a run with other documents, such as those of another seed: choose another --work."
            )
        folder.mkdir(parents=True, exist_ok=True)
        for version, text in texts.items():
            self._source(version).write_text(text, encoding="utf-8")
        self.save()
        self.answers = AnswerFile(folder / "answers.jsonl")

    @property
    def knowledge_base(self) -> Path:
        """Folder of the knowledge base."""
        return self.folder / "kb"

    def _source(self, version: Version) -> Path:
        return self.folder / f"{version}.jsonl"

    def save(self) -> None:
        """Writes down what was done."""
        partial = self._state_file.with_name("state.json.partial")
        partial.write_text(json.dumps(self.state, indent=2) + "\n", encoding="utf-8")
        partial.replace(self._state_file)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Writes down how long something took, unless it failed.

        Args:
            what: What it is.
        """
        start = time.perf_counter()
        yield
        self.state["seconds"][what] = round(time.perf_counter() - start, 3)
        self.save()

    def missing(self) -> list[Version]:
        """Lists the versions of the knowledge base that are to be built."""
        return [version for version in VERSIONS if version not in self.state["versions"]]

    def build(self, version: Version, encoder: TextEncoder, progress: Progress) -> None:
        """Builds a version of the knowledge base beside what is there.

        Args:
            version: Which one.
            encoder: What embeds the passages.
            progress: Hears how far it is.
        """
        from ragweave import KnowledgeBase

        with self.timed(f"building {version}"):
            base = KnowledgeBase.build(
                [self._source(version)],
                self.knowledge_base,
                encoder=encoder,
                overwrite=True,
                progress=progress,
            )
        self.state["versions"][version] = base.version
        self.state["passages"][version] = len(base)
        self.save()

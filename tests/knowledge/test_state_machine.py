"""A passage lives exactly as long as one source holds it, whatever happens to the sources in whatever order."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ragweave.errors import SourceError, SourceWarning
from ragweave.knowledge.base import KnowledgeBase

# Not in folders: a file that is named directly gives its documents other ids than its folder does.
NAMES = ("a.jsonl", "b.jsonl", "c.jsonl")
NAME = st.sampled_from(NAMES)
# Few texts, so that sources often share them and hold them twice.
TEXTS = ["lima", "ulm", "a river", "the danube"]
CONTENT = st.lists(st.sampled_from(TEXTS), max_size=4)


class Sources(RuleBasedStateMachine):
    """Files, a knowledge base, and a model of it: the documents of each file that were read and not deleted."""

    folder: Path
    output: Path | str
    encoder: object
    vectors: dict
    runs = 0

    @initialize(content=CONTENT.filter(bool), others=st.lists(CONTENT, min_size=2, max_size=2))
    def build(self, content, others):
        type(self).runs += 1
        self.notes = self.folder / str(self.runs)
        (self.notes / "sub").mkdir(parents=True)
        self.disk, self.read, self.model = {}, {}, {}
        for name, texts in zip(NAMES, [content, *others], strict=True):
            self.write(name, texts, broken=False)
        self.base = KnowledgeBase.build([self.notes], self.output, encoder=self.encoder, overwrite=True)
        self.note(NAMES)

    @rule(name=NAME, content=CONTENT, broken=st.integers(0, 5).map(lambda number: not number))
    def write(self, name, content, broken):
        lines = [json.dumps({"title": "t", "text": text}) for text in content]
        (self.notes / name).write_text("\n".join([*lines, *(["{"] if broken else [])]))
        self.disk[name] = None if broken else content

    @rule(name=NAME)
    def unlink(self, name):
        (self.notes / name).unlink(missing_ok=True)
        self.disk.pop(name, None)

    @rule(name=NAME)
    def add_one(self, name):
        if name in self.disk:
            self.add(self.notes / name)
            self.note([name])

    @rule()
    def add_all(self):
        if self.disk:
            self.add(self.notes)
            self.note(self.disk)

    @rule()
    def sync(self):
        changes = self.base.compare([self.notes])
        gone = set(self.read) - set(self.disk)
        changed = {name for name, content in self.disk.items() if self.read.get(name, content) != content}
        assert set(changes.removed) == {str(self.notes / name) for name in gone}
        assert set(changes.new) == {str(self.notes / name) for name in set(self.disk) - set(self.read)}
        assert set(changes.changed) == {str(self.notes / name) for name in changed}
        before = self.base.version
        if self.add(self.notes, remove_missing=True):
            for name in gone:
                del self.read[name], self.model[name]
            self.note(self.disk)
            assert gone or changed or self.base.version == before or changes.new

    @rule(name=NAME)
    def delete_source(self, name):
        if name in self.read:
            self.base = self.base.delete(sources=[str(self.notes / "sub" / ".." / name)])
            del self.read[name], self.model[name]

    @rule(name=NAME, line=st.integers(1, 4), passage=st.booleans())
    def delete_document(self, name, line, passage):
        document = f"{name}:{line}"
        if document in self.model.get(name, {}):
            self.base = self.base.delete(ids=[f"{document}#0" if passage else document])
            del self.model[name][document]

    @rule()
    def compact(self):
        self.base = self.base.compact()

    @rule()
    def open_again(self):
        self.base.close()
        self.base = KnowledgeBase.open(self.output)

    def teardown(self):
        if hasattr(self, "base"):
            self.base.close()

    def add(self, source, **options):
        """Add or synchronize; returns whether a source could be read."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SourceWarning)
            try:
                self.base = self.base.add([source], encoder=self.encoder, **options)
            except SourceError:
                assert None in self.disk.values()
                return False
        return True

    def note(self, names):
        """What is read of files that have changed; a broken file keeps what was read before."""
        for name in names:
            content = self.disk[name]
            if content is not None and self.read.get(name) != content:
                self.read[name] = content
                self.model[name] = {f"{name}:{line}": text for line, text in enumerate(content, start=1)}

    @invariant()
    def holds_what_the_sources_hold(self):
        if not hasattr(self, "base"):
            return
        texts = {document: text for documents in self.model.values() for document, text in documents.items()}
        holders = {
            text: {self.source(name) for name in texts if texts[name] == text} for text in texts.values()
        }
        _, rows = self.base.search(np.ones((1, 16), np.float32), len(texts) + 2)
        passages = {row: self.base.passage(row) for row in rows[0].tolist() if row >= 0}
        assert sorted(passage.text for passage in passages.values()) == sorted(holders)
        for row, passage in passages.items():
            assert texts[passage.document_id] == passage.text
            assert passage.id == f"{passage.document_id}#0"
            assert passage.source == self.source(passage.document_id)
            assert passage.line == int(passage.document_id.rpartition(":")[2])
            assert set(self.base.sources_of(row)) == holders[passage.text]
            np.testing.assert_allclose(self.base.vectors_of([row])[0], self.vectors[passage.text], atol=1e-5)
        for document, text in texts.items():
            for name in (document, f"{document}#0"):
                (row,) = self.base.row_of(name)
                assert passages[row].text == text
        manifest = self.base.manifest
        owners = {passage.document_id for passage in passages.values()}
        assert (manifest.passages, manifest.documents) == (len(passages), len(owners))
        counts = {str(self.notes / name): len(documents) for name, documents in self.model.items()}
        assert self.base.sources() == counts

    def source(self, document):
        return str(self.notes / document.rpartition(":")[0])


@pytest.mark.parametrize("kind", ["folder", "postgresql"])
def test_a_passage_lives_as_long_as_a_source_holds_it(kind, tmp_path, tiny_encoder, request):
    output = tmp_path / "kb" if kind == "folder" else request.getfixturevalue("postgres").uri()
    vectors = dict(zip(TEXTS, tiny_encoder.encode(TEXTS, titles=["t"] * len(TEXTS)), strict=True))
    attributes = {"folder": tmp_path, "output": output, "encoder": tiny_encoder, "vectors": vectors}
    machine = type("Machine", (Sources,), attributes)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=6,
            stateful_step_count=15,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
